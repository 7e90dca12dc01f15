"""The recipe: what a user writes to say which model, which data, which passes, schemes, targets and bounds.

One TOML file, `schema = 1`. Every path in it is relative to the file. An unknown key is an error.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from compress.errors import did_you_mean
from compress.schema import Strict, read_toml, validate

SCHEMA = 1
# What the evidence calls the model before all passes, where there are any.
ORIGINAL = "original"
CalibrationMethod = Literal["min-max", "moving-average", "percentile", "entropy", "mse"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _different(value: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({item for item in value if value.count(item) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} is named twice")
    return value


class ModelConfig(Strict):
    """Where the model comes from.

    `source` is `file.py:function`, `package.module:function` or a `.pt2` file. A factory's weights are
    a `.safetensors` file or a plain state dictionary (`.pth`, `.pt`), read without running any of its code.
    """

    source: str = Field(min_length=1)
    weights: str | None = None
    arguments: dict[str, bool | int | float | str | list[int] | list[float] | list[str]] = {}
    outputs: tuple[str, ...] = ()


class SplitConfig(Strict):
    """How rows are dealt to train, calibration, validation and test.

    `hash` (of the row id), `random` (seeded), `stratified` (seeded, by the label), `time` (by a column, oldest
    rows train) take fractions; `column` reads the split's name from a column.
    """

    by: Literal["hash", "random", "stratified", "time", "column"] = "hash"
    column: str | None = None
    seed: int = Field(default=0, ge=0)
    train: float = Field(default=0.6, ge=0, lt=1)
    calibration: float = Field(default=0.1, gt=0, lt=1)
    validation: float = Field(default=0.1, ge=0, lt=1)
    test: float = Field(default=0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> SplitConfig:
        total = self.train + self.calibration + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + calibration + validation + test must be 1; got {total:g}")
        if self.by in ("time", "column") and self.column is None:
            raise ValueError(f'by = "{self.by}" needs the key column')
        if self.by not in ("time", "column") and self.column is not None:
            raise ValueError(f'column is read only with by = "time" or "column", not with "{self.by}"')
        return self

    @property
    def fractions(self) -> dict[str, float]:
        """The share of each split, in the order in which rows are dealt."""
        return {
            "train": self.train,
            "calibration": self.calibration,
            "validation": self.validation,
            "test": self.test,
        }


class ImageConfig(Strict):
    """`[data.image]`: from a file to the model's input, in this order; a phone must do exactly the same.

    Decode to `mode`; `resize` to `size` (height, width), or its shorter side and then crop the centre; times `scale`;
    minus `mean`, divided by `std`, a number a channel. The input is float32 `[channels, height, width]`.
    """

    size: tuple[int, int]
    mode: Literal["RGB", "L"] = "RGB"
    resize: Literal["bilinear", "bicubic", "nearest", "none"] = "bilinear"
    crop: Literal["none", "center"] = "none"
    scale: float = Field(default=1 / 255, gt=0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class TextConfig(Strict):
    """`[data.text]`: a column of text, and the tokenizer that turns it into ids.

    `tokenizer` is a folder with a `tokenizer.json`; default: the Hugging Face folder that the model comes from.
    `length` tokens are fed, always: shorter texts are padded, longer ones cut, and the report says how many were.
    """

    column: str
    tokenizer: str | None = None
    length: int = Field(default=128, ge=2, le=8192)


class DataConfig(Strict):
    """Rows, and which columns mean what.

    `source` is a `.csv`, `.csv.gz`, `.parquet` or `.npz` file, a folder of images with a folder a class, or
    `file.py:function`. `inputs` maps each model
    input to its columns (tables) or array (`.npz`), in order; without it, `features` (default: every column
    that means nothing else) feed the model's only input. `categories` lists the values of a text column; a
    value becomes its position. `missing` says what an empty cell becomes. `unlabelled` is a file like `source` of rows
    without labels, from which a student may learn.
    """

    source: str = Field(min_length=1)
    unlabelled: str | None = None
    label: str | None = None
    labels: dict[str, str] = {}
    id: str | None = None
    features: tuple[str, ...] = ()
    inputs: dict[str, tuple[str, ...] | str] = {}
    drop: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = {}
    missing: Literal["nan", "error"] | float = "nan"
    split: SplitConfig = SplitConfig()
    image: ImageConfig | None = None
    text: TextConfig | None = None
    arguments: dict[str, bool | int | float | str] = {}

    @model_validator(mode="after")
    def _one_way(self) -> DataConfig:
        if self.features and self.inputs:
            raise ValueError("features and inputs say the same thing twice; keep one of them")
        if self.label is not None and self.labels:
            raise ValueError("label and labels say the same thing twice; keep one of them")
        return self

    @property
    def label_columns(self) -> dict[str, str]:
        """Label name to column; a single `label` is named by its own column."""
        return dict(self.labels) if self.labels else ({self.label: self.label} if self.label else {})


class TaskConfig(Strict):
    """How an output answers a label.

    `output` and `label` default to the only one there is. `link` says what the output holds: `logit`,
    `probability`, or `auto`: a probability if every calibration row's output lies in [0, 1]. `cutoff` is the
    probability from which a row counts as positive (binary). `margin` replaces the gate's margin for this task's
    primary metric: AUC, top-1 accuracy (multiclass) or R² (regression).
    """

    kind: Literal["binary", "multiclass", "regression"] = "binary"
    output: str | None = None
    label: str | None = None
    link: Literal["auto", "logit", "probability"] = "auto"
    cutoff: float = Field(default=0.5, gt=0, lt=1)
    margin: float | None = Field(default=None, ge=0)


class PassConfig(Strict):
    """One step from a Model to a Model. `kind` names a registered pass; the other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    allow_no_change: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the pass itself."""
        return dict(self.model_extra or {})


class LayerRule(Strict):
    """One rule of a mixed scheme: layers that match one of the patterns use a built-in scheme instead."""

    layers: tuple[str, ...] = Field(min_length=1)
    use: str

    @field_validator("use")
    @classmethod
    def _built_in(cls, value: str) -> str:
        if value not in _FIXED:
            raise ValueError(f"{value!r} is no built-in scheme: {did_you_mean(value, _FIXED)}")
        return value


class QuantScheme(Strict):
    """What a runtime is asked to realise; each runtime translates it and says what it did.

    1. `activations` is `static` (ranges from calibration), `dynamic` (found at run time), or `none`: activations stay
       float. An integer `dtype` with `none` is weight-only.
    2. `include` and `exclude` are layer patterns (`blocks.*.q`, `operator:conv2d`); they are read in order, exclude
       last. A pattern that matches no layer is an error.
    3. `rules` give layers another built-in scheme, in order; the last that matches counts, and none brings back a layer
       that `exclude` names.
    4. `block_size` weights of 4 bits share a scale, where the runtime has such kernels.
    """

    name: str
    dtype: Literal["float32", "float16", "int8", "int4"]
    activations: Literal["none", "static", "dynamic"] = "none"
    granularity: Literal["channel", "tensor"] = "channel"
    block_size: Literal[16, 32, 64, 128, 256] = 32
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    rules: tuple[LayerRule, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> QuantScheme:
        if self.dtype.startswith("float") and self.activations != "none":
            raise ValueError(f"{self.dtype} has no integer activations; only int8 and int4 have")
        if self.dtype == "int4" and self.activations == "static":
            raise ValueError('no runtime multiplies 4-bit weights with static activations; use "dynamic" or "none"')
        return self

    @property
    def needs_ranges(self) -> bool:
        """Whether any layer needs ranges from calibration."""
        return any(scheme.activations == "static" for scheme in (self, *self.used))

    @property
    def used(self) -> tuple[QuantScheme, ...]:
        """The built-in schemes of its rules."""
        return tuple(BUILTIN_SCHEMES[rule.use] for rule in self.rules)


# Name -> dtype and activations.
_FIXED: dict[str, tuple[str, str]] = {
    "float32": ("float32", "none"),
    "float16": ("float16", "none"),
    "int8-static": ("int8", "static"),
    "int8-dynamic": ("int8", "dynamic"),
    "int8-weights": ("int8", "none"),
    "int4-weights": ("int4", "none"),
    "int4-dynamic": ("int4", "dynamic"),
}
BUILTIN_SCHEMES = {
    name: QuantScheme.model_validate({"name": name, "dtype": dtype, "activations": activations})
    for name, (dtype, activations) in _FIXED.items()
}


class SchemeOverride(Strict):
    """`[scheme.NAME]`: a built-in scheme with other settings, under a name of the user's."""

    base: str
    granularity: Literal["channel", "tensor"] | None = None
    block_size: Literal[16, 32, 64, 128, 256] | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    rules: tuple[LayerRule, ...] | None = None


class CalibrationConfig(Strict):
    """How activation ranges are found: `rows` of the calibration split, streamed `batch` at a time.

    `method` is `min-max`, `moving-average` (`averaging` is the weight of a new row), `percentile` (the central
    `percentile` of the numbers, in percent), `entropy` (Kullback-Leibler) or `mse` (least squared error).
    """

    rows: int = Field(default=512, ge=1)
    batch: int = Field(default=16, ge=1)
    method: CalibrationMethod = "min-max"
    percentile: float = Field(default=99.99, gt=50, le=100)
    averaging: float = Field(default=0.01, gt=0, le=1)


class SensitivityConfig(Strict):
    """`[sensitivity]`: what each layer does to `schemes`, measured on `rows` validation rows in the target's runtime.

    `mode` is `alone` (only this layer quantized) or `without` (only this layer in float). The `timed` most harmful
    layers are timed, too: the scheme with the layer in float beside the whole scheme.
    """

    schemes: tuple[str, ...] = ()
    rows: int = Field(default=256, ge=2)
    mode: Literal["alone", "without"] = "alone"
    timed: int = Field(default=8, ge=0)


class RepairConfig(Strict):
    """`[repair]`: what is done about an integer scheme that does not pass the gate on validation rows.

    Better calibration, conditioning, bias correction, the fewest layers back to float, in this order, until it passes
    or `budget_s` seconds a scheme are spent. No more than the share `max_float` of the quantized layers goes back.
    """

    enabled: bool = False
    budget_s: float = Field(default=600.0, gt=0)
    max_float: float = Field(default=0.25, gt=0, le=1)


class MeasureConfig(Strict):
    """How much is measured. `pairs` interleaved worker processes per candidate; `parity_rows` hold-out rows."""

    pairs: int = Field(default=9, ge=5, le=1000)
    max_pairs: int = Field(default=18, ge=5, le=1000)
    seconds: float = Field(default=0.2, gt=0, le=60)
    batch: int = Field(default=1, ge=1)
    parity_rows: int = Field(default=1000, ge=2)
    resamples: int = Field(default=1000, ge=100, le=100_000)
    tolerance: float = Field(default=0.02, ge=0, lt=1)
    timeout_s: float = Field(default=300, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> MeasureConfig:
        if self.max_pairs < self.pairs:
            raise ValueError("max_pairs must be at least pairs")
        return self


class ParityConfig(Strict):
    """`[parity]`: where else the files that ship must answer as they do here.

    `hosts` names targets; of each its host, processor and threads count, since every artifact runs in its own runtime.
    `rows` hold-out rows are asked there. `shipped` artifacts are checked before they ship, or `all`. `timeout_s` is
    when a worker there counts as hung: emulation is slow.
    """

    hosts: tuple[str, ...] = ()
    rows: int = Field(default=500, ge=2)
    artifacts: Literal["shipped", "all"] = "shipped"
    timeout_s: float = Field(default=1800, gt=0)

    @field_validator("hosts")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _different(value)


class CostConfig(Strict):
    """`[evaluate.cost]`: what a row costs by its label and its decision, in any unit; positive is 1."""

    false_positive: float
    false_negative: float
    true_positive: float = 0.0
    true_negative: float = 0.0


class EvaluateConfig(Strict):
    """What is looked at beside the metrics.

    `favourable` is the decision that a person hopes for: `negative` where positive means the bad event. `cutoffs` are
    probabilities beside the task's own. `time` is a column; figures are given by `period` of it. `segment_rows` is the
    size below which a segment is marked small and judged by no rule. `folds` splits the test rows (0: not at all).
    `robustness_rows` are fed with disturbed inputs (0: none), `noise` being a share of each input's spread.
    """

    favourable: Literal["negative", "positive"] = "negative"
    cutoffs: tuple[float, ...] = ()
    cost: CostConfig | None = None
    bands: int = Field(default=10, ge=2, le=100)
    calibration_bins: int = Field(default=10, ge=2, le=100)
    segment_rows: int = Field(default=100, ge=1)
    folds: int = Field(default=0, ge=0, le=20)
    time: str | None = None
    period: Literal["value", "month", "quarter", "year"] = "month"
    robustness_rows: int = Field(default=200, ge=0)
    noise: float = Field(default=0.01, gt=0, le=1)

    @field_validator("cutoffs")
    @classmethod
    def _probabilities(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        for item in value:
            if not 0 < item < 1:
                raise ValueError(f"a cut-off is a probability between 0 and 1; got {item:g}")
        return value

    @field_validator("folds")
    @classmethod
    def _several(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one fold is all rows; give 2 or more, or 0 for none")
        return value


class SegmentConfig(Strict):
    """`[segments.NAME]`: groups of rows by a column: its values, or with `bins` the ranges between these edges."""

    column: str = Field(min_length=1)
    bins: tuple[float, ...] = ()

    @field_validator("bins")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(high <= low for low, high in itertools.pairwise(value)):
            raise ValueError(f"bins must ascend; got {', '.join(f'{item:g}' for item in value)}")
        return value


class ExplainConfig(Strict):
    """`[explain]`: attributions of baseline and candidate on the same `rows` test rows.

    `background` rows stand for "feature unknown". `shap`: each row is walked through `permutations` random orders of
    its features, there and back. `lime`: a line is fitted to `samples` probes of each row. `top_k` reason codes are
    what a declined customer is told.
    """

    method: Literal["shap", "lime"] = "shap"
    rows: int = Field(default=128, ge=2, le=10_000)
    background: int = Field(default=16, ge=1, le=1000)
    permutations: int = Field(default=2, ge=1, le=1000)
    samples: int = Field(default=200, ge=10, le=100_000)
    top_k: int = Field(default=4, ge=1)


class GateConfig(Strict):
    """What must not get worse, and by how much; docs/risk-gate.md says where each default comes from.

    Each `*_margin` is the largest loss whose 95 % interval may still be reached: the interval's bad end must
    lie inside. It holds for the metric of that name of every task; a task's own `margin` replaces that of its primary
    metric. Metrics without a margin are reported, not gated. The bounds from `max_flips` on are judged in the same
    way; None switches a rule off. Those from `max_latency_ms` on hold on every target, beside its own budgets. Without
    `fallback` the original does not ship where nothing else passes: the run then fails.
    """

    auc_margin: float = Field(default=0.003, ge=0)
    top_1_margin: float = Field(default=0.005, ge=0)
    r2_margin: float = Field(default=0.005, ge=0)
    macro_f1_margin: float | None = Field(default=None, ge=0)
    mae_margin: float | None = Field(default=None, ge=0)
    log_loss_margin: float | None = Field(default=None, ge=0)
    brier_margin: float | None = Field(default=None, ge=0)
    ks_margin: float | None = Field(default=None, ge=0)
    min_agreement: float = Field(default=0.98, ge=0, le=1)
    min_sqnr_db: float | None = Field(default=None)
    min_parity_agreement: float = Field(default=0.999, ge=0, le=1)
    max_parity_difference: float | None = Field(default=0.01, ge=0)
    max_flips: float | None = Field(default=None, ge=0, le=1)
    max_approval_change: float | None = Field(default=None, ge=0, le=1)
    max_psi: float | None = Field(default=0.1, ge=0)
    max_ece_increase: float | None = Field(default=0.02, ge=0)
    max_cost_increase: float | None = Field(default=None, ge=0)
    max_segment_auc_loss: float | None = Field(default=None, ge=0)
    max_segment_approval_change: float | None = Field(default=None, ge=0, le=1)
    max_segment_tpr_loss: float | None = Field(default=None, ge=0, le=1)
    max_fairness_change: float | None = Field(default=None, ge=0, le=1)
    four_fifths: bool = True
    max_attribution_drift: float | None = Field(default=0.2, ge=0)
    max_reason_code_changes: float | None = Field(default=0.25, ge=0, le=1)
    max_leaked_rows: float | None = Field(default=0.01, ge=0, le=1)
    max_latency_ms: float | None = Field(default=None, gt=0)
    max_size_bytes: int | None = Field(default=None, gt=0)
    max_memory_bytes: int | None = Field(default=None, gt=0)
    min_accelerated: float | None = Field(default=None, ge=0, le=1)
    objective: Literal["fastest", "smallest", "best"] = "fastest"
    fallback: bool = True


class Recipe(Strict):
    """The whole file, resolved.

    `schemes` names built-in schemes or those of `[scheme.NAME]`; `targets` names profiles, files of the
    project's `targets/` folder, or paths of target files.
    """

    schema_: int = Field(alias="schema")
    name: str = Field(default="model", pattern=rf"^{_NAME.pattern}$")
    model: ModelConfig
    data: DataConfig
    task: TaskConfig = TaskConfig()
    tasks: dict[str, TaskConfig] = {}
    passes: tuple[PassConfig, ...] = ()
    schemes: tuple[str, ...] = ("float32", "int8-static", "int8-dynamic")
    scheme: dict[str, SchemeOverride] = {}
    targets: tuple[str, ...] = Field(min_length=1)
    calibration: CalibrationConfig = CalibrationConfig()
    sensitivity: SensitivityConfig = SensitivityConfig()
    repair: RepairConfig = RepairConfig()
    measure: MeasureConfig = MeasureConfig()
    parity: ParityConfig = ParityConfig()
    gate: GateConfig = GateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    segments: dict[str, SegmentConfig] = {}
    explain: ExplainConfig | None = None
    seed: int = Field(default=0, ge=0)

    @field_validator("schema_")
    @classmethod
    def _known_schema(cls, value: int) -> int:
        if value != SCHEMA:
            raise ValueError(f"this version reads schema = {SCHEMA}; got {value}")
        return value

    @field_validator("schemes", "targets")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _different(value)

    @model_validator(mode="after")
    def _one_way(self) -> Recipe:
        if self.tasks and self.task != TaskConfig():
            raise ValueError("task and tasks say the same thing twice; keep one of them")
        return self

    @property
    def questions(self) -> dict[str, TaskConfig]:
        """Every task by its name; the only task has none."""
        return dict(self.tasks) if self.tasks else {"": self.task}

    @model_validator(mode="after")
    def _schemes_exist(self) -> Recipe:
        self.quant_schemes()
        return self

    def quant_schemes(self) -> tuple[QuantScheme, ...]:
        """Returns the schemes to try, float32 always first: it is what the others are judged against."""
        known = dict(BUILTIN_SCHEMES)
        for name, override in self.scheme.items():
            if name in BUILTIN_SCHEMES:
                raise ValueError(f"scheme.{name}: the name belongs to a built-in scheme; choose another")
            if not _NAME.fullmatch(name) or name == ORIGINAL:
                raise ValueError(
                    f"scheme: {name!r} becomes part of a file's name: letters, digits, '.', '_' and '-', "
                    f"at most 64 of them, and not {ORIGINAL!r}, which is the baseline's"
                )
            if override.base == "float32":
                raise ValueError(f"scheme.{name}.base: float32 has nothing to change; it is always measured, as it is")
            if override.base not in BUILTIN_SCHEMES:
                raise ValueError(
                    f"scheme.{name}.base: {override.base!r}: {did_you_mean(override.base, BUILTIN_SCHEMES)}"
                )
            changes = {key: value for key, value in override.model_dump(exclude={"base"}).items() if value is not None}
            known[name] = QuantScheme.model_validate(
                {**BUILTIN_SCHEMES[override.base].model_dump(), **changes, "name": name}
            )
        for name in self.schemes:
            if name not in known:
                raise ValueError(f"schemes: unknown scheme {name!r}: {did_you_mean(name, known)}")
        for name in self.sensitivity.schemes:
            if name not in self.schemes or not known[name].dtype.startswith("int"):
                integer = [item for item in self.schemes if known[item].dtype.startswith("int")]
                raise ValueError(f"sensitivity.schemes: {name!r} is no integer scheme of schemes; known: {integer}")
        chosen = [known[name] for name in self.schemes if name != "float32"]
        return (BUILTIN_SCHEMES["float32"], *chosen)


def load_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe file.

    Raises:
        RecipeError: Naming the file, the key, the value and the remedy.
    """
    return validate(Recipe, read_toml(path), str(path))
