"""A synthetic Evidence: two targets, a baseline and three schemes each, with every kind of outcome."""

from __future__ import annotations

import pytest
from multitask_evidence import multitask

from compress.evidence import (
    ArtifactInfo,
    Candidate,
    Choice,
    Comparison,
    DataInfo,
    Environment,
    Evidence,
    Interval,
    Latency,
    LatencyVerdict,
    LayerOutcome,
    Memory,
    Metric,
    ModelInfo,
    Operators,
    Parity,
    Placement,
    RuleResult,
    StepInfo,
    TargetEvidence,
    Verdict,
)

ROWS = 6000

# name: (baseline, typical half width of the interval, higher is better)
METRICS = {
    "auc": (0.7794, 0.0008, True),
    "gini": (0.5588, 0.0016, True),
    "ks": (0.4283, 0.0041, True),
    "log_loss": (0.4301, 0.0011, False),
    "brier": (0.1349, 0.0004, False),
    "accuracy": (0.8197, 0.0021, True),
}

LINEARS = tuple(
    f"blocks.{block}.{name}" for block in range(3) for name in ("attention.qkv", "attention.out", "up", "down")
)


@pytest.fixture(scope="session")
def evidence() -> Evidence:
    """Two targets; on each a baseline, a FASTER scheme that ships, a SLOWER one and one that failed."""
    original = _model("9f0c3a51", parameters=812_033, macs=25_460_736)
    pruned = _model("4be77d10", parameters=611_329, macs=18_120_704)
    return Evidence(
        name="credit-default",
        created="2026-01-05T10:00:00+00:00",
        version="0.1.0",
        recipe_digest="c0ffee12",
        model=original,
        compressed=pruned,
        steps=(_prune_step(original, pruned),),
        data=DataInfo(
            source="credit.csv.gz",
            fingerprint="d41d8cd9",
            rows=30_000,
            splits={"train": 18_000, "calibration": 3000, "validation": 3000, "test": ROWS},
            positives={"train": 3982, "calibration": 664, "validation": 663, "test": 1327},
            split_fingerprints={"train": "aa01", "calibration": "bb02", "validation": "cc03", "test": "dd04"},
            notes=("35 rows with the same features and different labels",),
        ),
        targets=(_onnxruntime(), _litert()),
        environment=Environment(
            machine={
                "cpu": "Example CPU @ 2.40GHz",
                "features": ["avx2", "avx512_vnni"],
                "cores": 2,
                "load": {"before": 0.61, "after": 1.9},
                "governor": None,
            },
            packages={"onnxruntime": "1.31.1", "ai-edge-litert": "2.3.0", "numpy": "2.3.0"},
            warnings=("load average 1.9 on 2 cores: other work runs; stop it and run `edge-compress run` again",),
        ),
    )


@pytest.fixture(scope="session")
def three_tasks(evidence: Evidence) -> Evidence:
    """The first target with three tasks of three kinds."""
    return multitask(evidence)


def _model(digest: str, parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(digest, parameters, macs, parameters * 4, 14, ("features",), ("logit",))


def _prune_step(before: ModelInfo, after: ModelInfo) -> StepInfo:
    changed = tuple(f"{name}: 256 to 192 channels" for name in LINEARS if name.endswith(("up", "down")))
    skipped = (
        ("head", "the model's output"),
        ("embed_*", "coupled with <input>"),
        ("norm|final", "the model's output"),
    )
    return StepInfo("prune", changed, skipped, before, after)


def _onnxruntime() -> TargetEvidence:
    slower = _candidate(
        "float16", "onnxruntime", 1_640_000, 0.542, (1.084, 1.051, 1.121), "SLOWER", 0.0, 71.3, layers="float16"
    )
    choice = Choice(
        "int8-dynamic",
        "the fastest scheme that passes the gate",
        {
            "float32": "int8-dynamic is faster and within the margins",
            "float16": "latency is SLOWER than float32: 1.08x [1.05, 1.12] exceeds the tolerance of 2 %",
            "int8-static": "not measured",
        },
    )
    rules = (
        RuleResult("auc_margin", "PASS", "AUC -0.0003, interval down to -0.0011 within 0.0030"),
        RuleResult("latency", "PASS", "FASTER"),
    )
    equal = RuleResult("auc_margin", "PASS", "AUC 0.0000, interval down to -0.0008 within 0.0030")
    bad = RuleResult("latency", "FAIL", "SLOWER: 1.08x [1.05, 1.12]")
    failed = Candidate(
        "int8-static",
        error="LoweringError: `blocks.0.up` | no range for <activation> blocks_0_up_out\nHint: add *calibration* rows.",
    )
    return TargetEvidence(
        target="onnxruntime-cpu",
        runtime="onnxruntime",
        settings={"host": "local", "threads": 1, "cpu": "any", "budgets": {"latency_ms": 5.0, "size_bytes": None}},
        candidates=(
            _baseline(3_263_000, 0.5, "onnxruntime"),
            _candidate(
                "int8-dynamic", "onnxruntime", 861_000, 0.31, (0.62, 0.60, 0.65), "FASTER", -0.0003, 34.1, layers="int8"
            ),
            slower,
            failed,
        ),
        verdicts={"int8-dynamic": Verdict("PASS", rules), "float16": Verdict("FAIL", (equal, bad))},
        choice=choice,
    )


def _litert() -> TargetEvidence:
    rules = (
        RuleResult("auc_margin", "PASS", "AUC -0.0008, interval down to -0.0016 within 0.0030"),
        RuleResult("min_agreement", "PASS", "0.9908 of the decisions agree, at least 0.9800"),
    )
    doubt = RuleResult("auc_margin", "INCONCLUSIVE", "AUC interval reaches -0.0033; about 9,800 rows would settle it")
    choice = Choice("int8-static", "the fastest scheme that passes the gate", {"float32": "int8-static is faster"})
    return TargetEvidence(
        target="litert-cpu",
        runtime="litert",
        settings={"host": "local", "threads": 1, "cpu": "any"},
        candidates=(
            _baseline(3_249_000, 0.118, "litert"),
            _candidate(
                "int8-static", "litert", 842_000, 0.0484, (0.41, 0.39, 0.44), "FASTER", -0.0008, 33.9, layers="int8"
            ),
            _candidate(
                "int8-dynamic", "litert", 845_000, 0.131, (1.11, 1.06, 1.17), "SLOWER", -0.0025, 36.0, layers="int8"
            ),
            Candidate(
                "float16", error="WorkerError: the worker ended by signal 6 (SIGABRT) while it opened the artifact"
            ),
        ),
        verdicts={"int8-static": Verdict("PASS", rules), "int8-dynamic": Verdict("INCONCLUSIVE", (doubt,))},
        choice=choice,
    )


def _baseline(size_bytes: int, median_ms: float, runtime: str) -> Candidate:
    metrics = tuple(
        Metric(name, value, value, None, None, better, ROWS, primary=name == "auc")
        for name, (value, _, better) in METRICS.items()
    )
    return Candidate(
        "float32",
        artifact=_artifact("float32", runtime, size_bytes, "float32"),
        metrics=metrics,
        parity=(_parity(132.9, 2.4e-7),),
        latency=_latency(median_ms, None, blocks=800),
        memory=Memory(61_200_000, 48_900_000),
        placement=_placement(runtime, 0),
    )


def _candidate(
    scheme: str,
    runtime: str,
    size_bytes: int,
    median_ms: float,
    ratio: tuple[float, float, float],
    verdict: LatencyVerdict,
    auc_difference: float,
    sqnr_db: float,
    layers: str,
) -> Candidate:
    comparison = Comparison("float32", ratio[0], Interval(ratio[1], ratio[2], 0.99, "bootstrap"), verdict, 0.02, 9)
    return Candidate(
        scheme,
        artifact=_artifact(scheme, runtime, size_bytes, layers),
        metrics=(*(_metric(name, auc_difference) for name in METRICS), _agreement()),
        parity=(_parity(sqnr_db, 0.62 * 10 ** (-sqnr_db / 20)),),
        latency=_latency(median_ms, comparison, blocks=45),
        memory=Memory(55_000_000, 48_900_000),
        placement=_placement(runtime, 3),
    )


def _metric(name: str, difference: float) -> Metric:
    baseline, half, better = METRICS[name]
    if name == "ks" and difference == 0:
        return Metric(name, None, baseline, None, None, better, ROWS, "undefined: all scores are equal")
    change = difference if better else -difference / 2
    interval = Interval(change - half, change + half, 0.95, "DeLong" if name in ("auc", "gini") else "bootstrap")
    return Metric(name, baseline + change, baseline, change, interval, better, ROWS, primary=name == "auc")


def _agreement() -> Metric:
    interval = Interval(0.9881, 0.9930, 0.95, "Wilson")
    return Metric("agreement", 0.9908, None, None, interval, True, ROWS, "31 decisions became positive, 24 negative")


def _latency(median_ms: float, comparison: Comparison | None, blocks: int) -> Latency:
    samples = tuple(tuple(median_ms for _ in range(blocks // 9)) for _ in range(9))
    p90_ms = median_ms * 1.1 if blocks >= 64 else None
    p99_ms = median_ms * 1.6 if blocks >= 662 else None
    return Latency(1, 1, 9, median_ms, p90_ms, p99_ms, 41.7, median_ms * 3, comparison, samples)


def _parity(sqnr_db: float, max_abs: float) -> Parity:
    return Parity("torch", 1000, "logit", max_abs, sqnr_db, 0.995, 6.21)


def _placement(runtime: str, slow: int) -> Placement:
    path = {"onnxruntime": "MLAS", "litert": "XNNPACK"}[runtime]
    operators = [Operators("MatMul", 12, True), Operators("LayerNormalization", 6, True)]
    operators += [Operators("Gather", slow, False, f"no kernel on <{path}>")] if slow else []
    return Placement(path, tuple(operators))


def _artifact(scheme: str, runtime: str, size_bytes: int, precision: str) -> ArtifactInfo:
    layers = tuple(LayerOutcome(name, "linear", (f"{name}_node",), precision) for name in LINEARS)
    reason = "" if precision == "float32" else "no int8 kernel for layer_norm"
    layers += (LayerOutcome("norm|final", "layer_norm", ("norm",), "float32", reason),)
    layers += (LayerOutcome("head", "linear", ("head",), "float32", reason and "excluded by the pattern `head*`"),)
    notes = ("weights use 7 bits because cpu = any",) if scheme.startswith("int8") else ()
    ending = "onnx" if runtime == "onnxruntime" else "tflite"
    return ArtifactInfo(
        scheme, runtime, f"{scheme}.{ending}", "ab" * 32, size_bytes, ("features",), ("logit",), layers, notes
    )
