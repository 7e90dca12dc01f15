"""How figures are named and written in the reasons of the gate and of the choice."""

from __future__ import annotations

import math

from compress.evidence import Candidate

# Beyond this nobody collects rows: the estimate lies on the margin, as far as anyone can tell.
_ROWS_MAX = 10**12

_TITLES = {
    "auc": "AUC",
    "gini": "Gini",
    "ks": "KS",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "top_1": "top-1 accuracy",
    "macro_f1": "macro F1",
    "worst_class_recall": "recall of the worst class",
    "r2": "R2",
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "rank_correlation": "rank correlation",
}


def title(metric: str) -> str:
    """Returns how a metric is called in a sentence."""
    return _TITLES.get(metric, metric)


def of_task(what: str, task: str, *, several: bool) -> str:
    """Returns what is spoken of with the task that it belongs to, where there are several: `AUC of default`."""
    return f"{what} of {task}" if several else what


def has_several_tasks(candidate: Candidate) -> bool:
    """Returns whether figures of a candidate need the name of their task."""
    return len({metric.task for metric in candidate.metrics}) > 1


def span(low: float, high: float, decimals: int) -> str:
    """Returns an interval as `(0.0042-0.0080)`; with `to` where a minus sign would be mistaken for the dash."""
    between = "-" if round(low, decimals) >= 0 else " to "
    return f"({low:z.{decimals}f}{between}{high:z.{decimals}f})"


def ratio(value: float) -> str:
    """Returns a ratio as `0.41x`."""
    return f"{value:.2f}x"


def percent(share: float) -> str:
    """Returns a share as `97.54 %`."""
    return f"{100 * share:z.2f} %"


def decimals_for(bound: float) -> int:
    """Returns how many decimals tell figures from a bound of that size: 4, more below 0.001, fewer from 10 on."""
    if bound >= 10:
        return max(0, 3 - math.floor(math.log10(bound)))
    if not 0 < bound < 0.001:
        return 4
    return min(12, math.ceil(-math.log10(bound)) + 1)


def rows_to_settle(rows: int, loss: float, good: float, bad: float, margin: float) -> int | None:
    """Returns the rows with which an interval would clear a margin if the estimate stayed: it shrinks as 1/sqrt(rows).

    Rounded up to two digits; None where no practical number does.
    """
    width = bad - loss if loss < margin else loss - good
    distance = abs(margin - loss)
    if not distance:
        return None
    shrink = width / distance
    found = whole_rows(rows * shrink * shrink)
    return found and max(rows + 1, found)


def whole_rows(needed: float) -> int | None:
    """Returns a number of rows rounded up to two digits; None where nobody collects so many."""
    if not 0 < needed <= _ROWS_MAX:
        return None
    unit = int(10 ** max(0, math.floor(math.log10(needed)) - 1))
    return math.ceil(needed / unit) * unit
