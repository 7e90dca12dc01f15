"""Quality of an artifact: metrics of each kind of task, compared in pairs with intervals, and parity."""

from compress.evaluate.decisions import Decision
from compress.evaluate.multiclass import compare_multiclass
from compress.evaluate.parity import parity
from compress.evaluate.quality import compare
from compress.evaluate.regression import compare_regression
from compress.evaluate.scores import binary_labels, probabilities
from compress.evaluate.tasks import compare_task, find_link

__all__ = [
    "Decision",
    "binary_labels",
    "compare",
    "compare_multiclass",
    "compare_regression",
    "compare_task",
    "find_link",
    "parity",
    "probabilities",
]
