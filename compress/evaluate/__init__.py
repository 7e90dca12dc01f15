"""Quality of an artifact: risk metrics, paired comparisons with intervals, parity with its reference."""

from compress.evaluate.parity import parity
from compress.evaluate.quality import compare
from compress.evaluate.scores import binary_labels, probabilities

__all__ = ["binary_labels", "compare", "parity", "probabilities"]
