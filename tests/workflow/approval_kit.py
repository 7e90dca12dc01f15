"""Output folders as a run leaves them, made in a moment: real files and hashes, made-up figures."""

from __future__ import annotations

import hashlib
from pathlib import Path

from compress.evidence import (
    ArtifactInfo,
    Candidate,
    Choice,
    DataInfo,
    Environment,
    Evidence,
    ModelInfo,
    RuleResult,
    TargetEvidence,
    Verdict,
    to_json,
)
from compress.store.outdir import OutputFolder

ADA = "Ada Byron <ada@bank.example>"
SCHEMES = ("float32", "int8")


def make_out(folder: Path, mark: str = "a", name: str = "credit", status: str = "PASS", targets=("phone",)) -> Path:
    """Publishes a run whose files hold `mark`, with an attachment and a file of rows for review.

    With `status` PASS int8 ships everywhere; otherwise every scheme got that verdict and nothing ships.
    """
    files: dict[str, bytes] = {}
    found = tuple(_target(target, mark, name, status, files) for target in targets)
    model = ModelInfo("d", 1, 1, 4, 1, ("x",), ("y",))
    data = DataInfo("rows.csv", "f", 10, {"test": 10}, {"test": 5}, {"test": "f"})
    evidence = Evidence(
        name, f"2026-01-01T00:00:00+00:00 {mark}", "0.1.0", "r", model, model, (), data, found, Environment({}, {})
    )
    files |= {
        "evidence.json": to_json(evidence).encode(),
        "report.md": f"report {mark}".encode(),
        f"artifacts/{name}.classes.json": b"{}",
        f"flips.phone.int8.{name}.csv": b"customer,score\n17,0.4\n",
    }
    output = OutputFolder(folder, "recipe")
    with output.claimed():
        output.publish(files, {"status": status, "attachments": [f"artifacts/{name}.classes.json"]})
    return folder


def _target(target: str, mark: str, name: str, status: str, files: dict[str, bytes]) -> TargetEvidence:
    candidates = []
    for scheme in SCHEMES:
        path, data = f"artifacts/{name}.{target}.{scheme}.onnx", f"{name} {target} {scheme} {mark}".encode()
        files[path] = data
        sha = hashlib.sha256(data).hexdigest()
        artifact = ArtifactInfo(scheme, "onnxruntime", path, sha, len(data), ("x",), ("y",), ())
        candidates.append(Candidate(scheme, artifact))
    rule = RuleResult("auc_margin", status, "loses 0.1 AUC, more than the margin 0.003")
    verdicts = {scheme: Verdict(status, (rule,)) for scheme in SCHEMES}
    choice = Choice("int8", "the fastest") if status == "PASS" else Choice(None, "nothing ships: int8 loses 0.1 AUC")
    return TargetEvidence(target, "onnxruntime", {}, tuple(candidates), verdicts, choice)
