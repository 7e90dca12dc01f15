"""The review of one task of one candidate beside its baseline: who is treated differently, and how. Data only.

1. Every figure stands beside the baseline's, on the same rows; `difference` is candidate minus baseline.
2. A figure that the rows do not define is None, and its `note` says why. It is never a number made up.
3. Tuples are empty, and single parts None, where nothing of the kind was asked for or the task has none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A confidence interval `[low, high]` at `level`, and the method that gave it."""

    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True)
class Figure:
    """One figure of a group of rows, by the candidate (`value`) and by the baseline.

    `interval` is the paired interval of `difference`; without a baseline it is that of `value`.
    """

    name: str
    value: float | None
    baseline: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    note: str = ""


@dataclass(frozen=True)
class Share:
    """`count` of `rows` rows; `interval` is that of the share, None where there are no rows."""

    count: int
    rows: int
    interval: Interval | None = None

    @property
    def share(self) -> float | None:
        """Count / rows."""
        return self.count / self.rows if self.rows else None


@dataclass(frozen=True)
class Decisions:
    """What is decided otherwise than by the baseline, at one cut-off of a binary task.

    A row is positive where its probability reaches `cutoff`. `task_cutoff` marks the cut-off that the task decides at;
    the others were asked for beside it. `figures` are `approval_rate`, `precision`, `recall`, `f1`, and
    `expected_cost` where a cost matrix is given.
    """

    cutoff: float
    task_cutoff: bool
    flipped: Share
    to_positive: Share
    to_negative: Share
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Bands:
    """Where rows moved between score bands, which are cut at the quantiles of the baseline's scores.

    `edges` are the inner edges, ascending probabilities (predictions for a regression task). `matrix[i][j]` counts rows
    of band i by the baseline and band j by the candidate. `psi` is the population stability index, natural logarithm.
    """

    edges: tuple[float, ...]
    matrix: tuple[tuple[int, ...], ...]
    psi: float | None
    psi_interval: Interval | None
    spearman: float | None
    kendall: float | None
    note: str = ""

    @property
    def baseline_rows(self) -> tuple[int, ...]:
        """Rows of each band by the baseline."""
        return tuple(sum(row) for row in self.matrix)

    @property
    def candidate_rows(self) -> tuple[int, ...]:
        """Rows of each band by the candidate."""
        return tuple(sum(column) for column in zip(*self.matrix, strict=True))


@dataclass(frozen=True)
class Lift:
    """One tenth of the rows, the highest scores first: its rate of positives over the rate of all, by both."""

    decile: int
    rows: int
    baseline: float
    candidate: float


@dataclass(frozen=True)
class RocPoint:
    """One point of a ROC curve: the rows scored `threshold` or more. KS is the largest true minus false share."""

    threshold: float
    false_positive_rate: float
    true_positive_rate: float


@dataclass(frozen=True)
class Ranking:
    """How well scores order rows: `average_precision`, ROC curves of at most about 100 points, lift by decile."""

    figures: tuple[Figure, ...]
    baseline_roc: tuple[RocPoint, ...]
    candidate_roc: tuple[RocPoint, ...]
    lift: tuple[Lift, ...]


@dataclass(frozen=True)
class ReliabilityPoint:
    """One bin of a reliability curve: rows scored in [low, high), their mean score and share of positives."""

    low: float
    high: float
    rows: int
    mean_score: float
    positive_rate: float
    interval: Interval


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from what happened.

    `figures` of a binary task are `ece`, `calibration_gap` (mean score minus share of positives), and the parts of the
    Brier score over the bins: `reliability`, `resolution`, `uncertainty`. Of a multi-class task, `ece` and
    `calibration_gap` are those of the class decided for, whose "positive" rows are the right ones, and `classwise_ece`
    is the mean over classes. The two intervals are those of each ECE itself.
    """

    figures: tuple[Figure, ...]
    baseline_ece_interval: Interval | None
    candidate_ece_interval: Interval | None
    baseline_curve: tuple[ReliabilityPoint, ...]
    candidate_curve: tuple[ReliabilityPoint, ...]


@dataclass(frozen=True)
class Segment:
    """A group of rows: those of one value, or one range of values, of a column.

    `figures` of a binary task: `auc, approval_rate, agreement, mean_score, true_positive_rate, false_positive_rate,
    calibration_gap`; of a multi-class task `top_1, agreement, log_loss`; of a regression task `mae, mean_error, r2`.
    `small` marks fewer rows than the stated minimum: figures are given, rules of the gate leave it out and say so.
    `p_value` tests whether the candidate's predictive pattern (decision by label) is the baseline's; `adjusted_p_value`
    is Holm's over all segments of the task.
    """

    column: str
    name: str
    rows: int
    positives: int | None
    small: bool
    figures: tuple[Figure, ...]
    p_value: float | None = None
    adjusted_p_value: float | None = None
    note: str = ""

    def figure(self, name: str) -> Figure | None:
        """The figure of that name, or None."""
        return next((item for item in self.figures if item.name == name), None)

    @property
    def title(self) -> str:
        """Column and value, as tables call it."""
        return f"{self.column} {self.name}"


@dataclass(frozen=True)
class Fairness:
    """Gaps between the segments of one column, small ones left out.

    `figures` are `demographic_parity_difference`, `demographic_parity_ratio`, `equal_opportunity_difference` and
    `equalized_odds_difference`: the largest less the smallest (the smallest over the largest) of the segments' shares.
    The favourable decision counts as selected.
    """

    column: str
    segments: tuple[str, ...]
    figures: tuple[Figure, ...]
    note: str = ""


@dataclass(frozen=True)
class FeatureAttribution:
    """One feature: its mean absolute attribution by both, and the correlation of its attributions over the rows."""

    feature: str
    baseline: float
    candidate: float
    correlation: float | None


@dataclass(frozen=True)
class Explanation:
    """Attributions of baseline and candidate on the same rows and the same background.

    `rank_correlation` is the mean over rows of Spearman's of the features' absolute attributions; `top_k_overlap` the
    mean share of the `top_k` features that both name; `drift` the mean absolute change over the mean absolute
    attribution of the baseline. `sign_changes` counts attributions of the baseline's top features that changed their
    sign. `reason_codes_changed` counts declined rows whose `top_k` features towards the decline are another set.
    """

    method: str
    rows: int
    background_rows: int
    top_k: int
    rank_correlation: float | None
    top_k_overlap: float | None
    drift: float | None
    sign_changes: Share
    reason_codes_changed: Share
    features: tuple[FeatureAttribution, ...]
    note: str = ""


@dataclass(frozen=True)
class Robustness:
    """What a disturbance of the inputs does to baseline and candidate.

    `shift` is the mean absolute change of the score against the same model undisturbed; `kept` the share of decisions
    kept. `agreement` is the share of disturbed rows on which both decide alike; `answers` counts rows with a number,
    and `same_answer` says whether both gave a number, or none, on the same rows.
    """

    disturbance: str
    rows: int
    baseline_shift: float | None
    candidate_shift: float | None
    baseline_kept: float | None
    candidate_kept: float | None
    agreement: float | None
    baseline_answers: int
    candidate_answers: int
    same_answer: bool
    note: str = ""


@dataclass(frozen=True)
class Period:
    """The main figures on the rows of one period of the time column, oldest first."""

    name: str
    rows: int
    positives: int | None
    figures: tuple[Figure, ...]
    note: str = ""


@dataclass(frozen=True)
class ClassFigures:
    """One class of a multi-class task: its rows, and `precision`, `recall`, `f1` by both."""

    label: int
    name: str
    rows: int
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Review:
    """Everything found about one task of one candidate, beyond its metrics.

    `flips_file` is the CSV of the rows whose decision changed, relative to the run's folder; empty where there is none.
    `worst_segment` is the title of the segment with the largest loss; empty where no segment can be judged. `folds` has
    the figures of the k-fold option: means over the folds with the interval of the difference.
    """

    task: str
    kind: str
    rows: int
    decisions: tuple[Decisions, ...] = ()
    bands: Bands | None = None
    ranking: Ranking | None = None
    calibration: Calibration | None = None
    classes: tuple[ClassFigures, ...] = ()
    segments: tuple[Segment, ...] = ()
    fairness: tuple[Fairness, ...] = ()
    worst_segment: str = ""
    periods: tuple[Period, ...] = ()
    folds: tuple[Figure, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    robustness: tuple[Robustness, ...] = ()
    flips_file: str = ""
    notes: tuple[str, ...] = ()
