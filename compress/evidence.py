"""Evidence: everything measured on artifacts beside their baseline, and the verdict on it. Data only.

All of it is frozen, free of torch, and goes to JSON and back without loss (`to_json`, `from_json`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from compress.errors import StoreError
from compress.review import Interval as Interval
from compress.review import Review

SCHEMA = 1

LatencyVerdict = Literal["FASTER", "SAME", "SLOWER", "UNKNOWN"]
GateStatus = Literal["PASS", "FAIL", "INCONCLUSIVE", "INCOMPARABLE"]


@dataclass(frozen=True)
class Metric:
    """One figure of quality of a candidate beside its baseline, on the same rows.

    `task` names the task that it belongs to; a model may answer several. `primary` marks the one figure of each
    task that stands for it in tables: AUC (binary), top-1 accuracy (multi-class), R² (regression).
    `difference` is candidate minus baseline, with a paired interval. `value` may be None where the rows do not
    define it; `note` then says why. `unseen` is the loss that could sit on rows so rare that none of them is among
    these, with a chance of more than one in twenty; None where that is not known, or the interval counts it already.
    """

    name: str
    value: float | None
    baseline: float | None
    difference: float | None
    interval: Interval | None
    higher_is_better: bool
    rows: int
    note: str = ""
    task: str = ""
    primary: bool = False
    unseen: float | None = None


@dataclass(frozen=True)
class Parity:
    """How far an artifact's outputs are from those of its reference, over the same rows.

    `sqnr_db` is 10 log10(sum ref^2 / sum (ref - got)^2), None where both are equal. `label_agreement` is the share
    of rows with the same decision at the cut-off, `flips` the number of the others. `place` is empty where the artifact
    ran on its target's own host and is compared with what it was made from; else it names where the same artifact ran
    once more, to be compared with its own answers.
    """

    reference: str
    rows: int
    output: str
    max_abs: float
    sqnr_db: float | None
    label_agreement: float | None
    reference_range: float
    flips: int | None = None
    place: str = ""

    @property
    def range_share(self) -> float | None:
        """The largest difference as a share of the output's range; None where a constant output changed."""
        if self.max_abs == 0:
            return 0.0
        return self.max_abs / self.reference_range if self.reference_range else None


@dataclass(frozen=True)
class Place:
    """Where artifacts ran once more: the name of its target file, its host and processor, and what stands in for it."""

    name: str
    host: str
    cpu: str
    machine: str


@dataclass(frozen=True)
class Comparison:
    """Candidate time / baseline time over interleaved pairs of processes."""

    baseline: str
    ratio: float
    interval: Interval
    verdict: LatencyVerdict
    tolerance: float
    pairs: int


@dataclass(frozen=True)
class Latency:
    """Times of one artifact on one target, milliseconds a call at batch `batch`.

    `samples` keeps every process: one tuple of per-call milliseconds (a block's mean where a call is too short to
    be timed alone). Percentiles that the samples cannot carry are None. `cpus` are the processors that every process
    stayed on; empty where they might move.
    """

    batch: int
    threads: int
    processes: int
    median_ms: float
    p90_ms: float | None
    p99_ms: float | None
    load_ms: float
    first_ms: float
    comparison: Comparison | None
    samples: tuple[tuple[float, ...], ...]
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Memory:
    """Peak resident memory of a worker that ran the artifact, and of the runtime's empty worker, in bytes."""

    peak_bytes: int
    empty_bytes: int

    @property
    def above_empty_bytes(self) -> int:
        """What the artifact itself costs."""
        return max(0, self.peak_bytes - self.empty_bytes)


@dataclass(frozen=True)
class Operators:
    """Operators of one kind and where they run."""

    operator: str
    count: int
    accelerated: bool
    reason: str = ""


@dataclass(frozen=True)
class Placement:
    """Which operators run on the runtime's accelerated path (`path`), and why the others do not."""

    path: str
    operators: tuple[Operators, ...]

    @property
    def total(self) -> int:
        """Number of operators that run."""
        return sum(item.count for item in self.operators)

    @property
    def accelerated(self) -> int:
        """Number of operators on the accelerated path."""
        return sum(item.count for item in self.operators if item.accelerated)

    @property
    def share(self) -> float:
        """Accelerated / total; 0 where nothing runs."""
        return self.accelerated / self.total if self.total else 0.0


@dataclass(frozen=True)
class LayerOutcome:
    """What became of one layer of the Model in one artifact: its nodes there, its precision, and why."""

    layer: str
    operator: str
    nodes: tuple[str, ...]
    precision: str
    reason: str = ""


@dataclass(frozen=True)
class ArtifactInfo:
    """The file that ships. `beside` are files of its weights, where they are long; `size_bytes` counts them, too."""

    scheme: str
    runtime: str
    file: str
    sha256: str
    size_bytes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[LayerOutcome, ...]
    notes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def quantized(self) -> int:
        """Number of layers in lower precision than float32."""
        return sum(item.precision != "float32" for item in self.layers)


@dataclass(frozen=True)
class Candidate:
    """One scheme on one target, as measured. `error` says why figures are missing; `reviews` has one entry a task.

    `unchecked` gives, for each place where the artifact was to run once more and did not, the reason.
    """

    scheme: str
    artifact: ArtifactInfo | None = None
    metrics: tuple[Metric, ...] = ()
    parity: tuple[Parity, ...] = ()
    latency: Latency | None = None
    memory: Memory | None = None
    placement: Placement | None = None
    error: str = ""
    reviews: tuple[Review, ...] = ()
    unchecked: tuple[tuple[str, str], ...] = ()

    @property
    def fidelity(self) -> tuple[Parity, ...]:
        """How far the artifact is from what it was made from."""
        return tuple(item for item in self.parity if not item.place)

    @property
    def elsewhere(self) -> tuple[Parity, ...]:
        """How far the artifact's answers in other places are from its own."""
        return tuple(item for item in self.parity if item.place)

    def metric(self, name: str, task: str | None = None) -> Metric | None:
        """The metric of that name (of that task, if one is given), or None."""
        return next((item for item in self.metrics if item.name == name and task in (None, item.task)), None)

    @property
    def primary(self) -> tuple[Metric, ...]:
        """The metric that stands for each task."""
        return tuple(item for item in self.metrics if item.primary)


@dataclass(frozen=True)
class RuleResult:
    """One rule of the gate on one candidate."""

    rule: str
    status: GateStatus
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer for one candidate: the worst of its rules, and all of them."""

    status: GateStatus
    rules: tuple[RuleResult, ...]

    @property
    def reason(self) -> str:
        """The reasons of the rules that did not pass, joined."""
        return "; ".join(rule.reason for rule in self.rules if rule.status != "PASS")


@dataclass(frozen=True)
class Choice:
    """Which scheme ships on a target, and why; `rejected` gives the reason for each of the others."""

    scheme: str | None
    reason: str
    rejected: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerEffect:
    """What one layer does to a scheme, measured on files in the target's own runtime.

    `sqnr_db` and `agreement` (share of rows with the same decision) are those of the file in which this layer alone is
    quantized (`mode` of `Sensitivity`: `alone`) or alone left in float (`without`), beside the float file, for the
    worst output; `sqnr_db` is None where nothing differs. `float_ratio` is the time of the whole scheme with this layer
    left in float over the time of the whole scheme, None where it was not timed; `float_ms` is that difference in
    milliseconds.
    """

    layer: str
    operator: str
    sqnr_db: float | None
    agreement: float | None
    float_ratio: float | None = None
    float_ms: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Sensitivity:
    """How much each layer costs under a scheme, the most harmful first; on `rows` rows of `split`, never test rows."""

    scheme: str
    mode: Literal["alone", "without"]
    split: str
    rows: int
    layers: tuple[LayerEffect, ...]


@dataclass(frozen=True)
class RepairStep:
    """One attempt to repair a scheme, judged on validation rows. `loss` is the largest loss of a primary metric."""

    rung: str
    tried: str
    status: GateStatus | None
    loss: float | None
    sqnr_db: float | None
    kept: bool
    reason: str
    seconds: float


@dataclass(frozen=True)
class Repair:
    """What was tried so that a scheme holds the recipe's policy, and what came of it.

    `candidate` is the name under which the repaired scheme was measured on the test rows; empty where nothing became
    better. `left_float` are layers that went back to float.
    """

    scheme: str
    candidate: str
    split: str
    rows: int
    steps: tuple[RepairStep, ...]
    outcome: str
    left_float: tuple[str, ...] = ()
    passes: tuple[StepInfo, ...] = ()


@dataclass(frozen=True)
class TargetEvidence:
    """All candidates of one target. The first candidate is the baseline: the original in float32.

    `machine` is what they ran on, where it is not the machine of the whole evidence. `device` holds what that machine
    said of itself `before` and `after` times were taken. `unanswered` says what was not asked there, and why.
    """

    target: str
    runtime: str
    settings: Mapping[str, Any]
    candidates: tuple[Candidate, ...]
    verdicts: Mapping[str, Verdict]
    choice: Choice
    error: str = ""
    machine: str = ""
    device: Mapping[str, Any] = field(default_factory=dict)
    unanswered: str = ""
    sensitivities: tuple[Sensitivity, ...] = ()
    repairs: tuple[Repair, ...] = ()

    @property
    def runs_on(self) -> str:
        """The runtime, and the machine where it is another one."""
        return f"{self.runtime} on {self.machine}" if self.machine else self.runtime

    @property
    def baseline(self) -> Candidate | None:
        """The original model in float32 on this target."""
        return self.candidates[0] if self.candidates else None


@dataclass(frozen=True)
class ModelInfo:
    """A Model, described: digest, size, cost. Without a digest it is unknown: files from elsewhere were compared."""

    digest: str
    parameters: int
    macs: int
    bytes: int
    layers: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class EpochInfo:
    """One look at the validation rows while a pass trained; epoch 0 is what came in.

    `train_loss` is the mean of what was minimised since the look before, `loss` the labelled loss of the validation
    rows, `metric` their figure named by `TrainingInfo.metric`. None where there is none.
    """

    epoch: int
    train_loss: float | None
    loss: float | None
    metric: float | None


@dataclass(frozen=True)
class ScoreInfo:
    """One figure of the validation rows, without interval: it guides training and decides nothing about shipping."""

    name: str
    before: float | None
    after: float | None
    teacher: float | None = None


@dataclass(frozen=True)
class TrainingInfo:
    """How a pass trained, what that cost and what it gave.

    Attributes:
        epochs: What was seen after each epoch.
        best_epoch: The epoch whose weights were kept.
        metric: What the validation figure is (`auc`); empty where there is none.
        scores: Figures of the validation rows before and after, and of the teacher where there is one.
        pairs: `student layer <- teacher layer`, and what is compared there.
        ended: Why training ended.
        rows: Training rows, those without labels included.
        steps: Steps of the optimizer.
        seconds: Wall time; that of every part where the run was interrupted.
    """

    epochs: tuple[EpochInfo, ...]
    best_epoch: int
    metric: str
    scores: tuple[ScoreInfo, ...]
    pairs: tuple[str, ...]
    ended: str
    rows: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class StepInfo:
    """What one pass changed and what it skipped, with the reason for each; how it trained, if it did."""

    kind: str
    changed: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    before: ModelInfo
    after: ModelInfo
    training: TrainingInfo | None = None


@dataclass(frozen=True)
class Leak:
    """Rows of `split` whose inputs are also those of a row of `other`: what is measured there was seen before."""

    split: str
    other: str
    rows: int
    split_rows: int


@dataclass(frozen=True)
class DataInfo:
    """The rows behind the figures. `positives` counts the positive rows of each split.

    `leaks` counts rows of the test split with the inputs of rows of other splits; None where nobody looked.
    """

    source: str
    fingerprint: str
    rows: int
    splits: Mapping[str, int]
    positives: Mapping[str, int]
    split_fingerprints: Mapping[str, str]
    notes: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] | None = None


@dataclass(frozen=True)
class Environment:
    """The machine and the packages; `warnings` are facts with a number and the next command."""

    machine: Mapping[str, Any]
    packages: Mapping[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Everything one run measured."""

    name: str
    created: str
    version: str
    recipe_digest: str
    model: ModelInfo
    compressed: ModelInfo
    steps: tuple[StepInfo, ...]
    data: DataInfo
    targets: tuple[TargetEvidence, ...]
    environment: Environment
    places: tuple[Place, ...] = ()
    schema: int = SCHEMA


def to_json(value: Any) -> str:
    """Returns a result as JSON text: keys in the order of the class, infinite and undefined numbers refused.

    Raises:
        ValueError: If a number is not finite; JSON has no word for it.
    """
    from pydantic import TypeAdapter

    # Not in its own JSON mode, which writes a number that is not finite as null.
    plain = TypeAdapter(type(value)).dump_python(value)
    return json.dumps(plain, indent=1, allow_nan=False, ensure_ascii=False, default=_text)


def from_json(kind: type[Any], text: str | bytes, where: str = "evidence") -> Any:
    """Reads back what `to_json` wrote.

    Args:
        kind: The dataclass, `Evidence` for a whole file.
        text: JSON.
        where: The file's name, for the message.

    Raises:
        StoreError: If it is not such JSON, holds a number that is not finite, or was written with another schema.
    """
    from pydantic import TypeAdapter, ValidationError

    again = "run the command that wrote it again."
    try:
        plain = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{where}: not valid JSON: {error}", again) from error
    schema = plain.get("schema", SCHEMA) if isinstance(plain, dict) else SCHEMA
    if "schema" in kind.__dataclass_fields__ and schema != SCHEMA:
        raise StoreError(f"{where}: schema {schema}; this version reads {SCHEMA}", again)
    try:
        return TypeAdapter(kind).validate_python(plain)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{where}: not a valid {kind.__name__}: {key}: {first['msg']}", again) from error


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"a result holds a {type(value).__name__}, for which JSON has no form")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number that JSON knows")


def load_evidence(path: Path) -> Evidence:
    """Reads an `evidence.json`.

    Raises:
        StoreError: If it cannot be read or has another schema.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}", "check the path.") from error
    evidence: Evidence = from_json(Evidence, text, str(path))
    return evidence
