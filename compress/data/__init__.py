"""Datasets: rows with ids, labels, sensitive groups and splits, read from tables, arrays or a user's function."""

from compress.data.base import Dataset, Reader, TensorSpec
from compress.data.checks import check_binary
from compress.data.load import load_dataset
from compress.data.split import SPLITS, check_disjoint, hash_split, make_splits

__all__ = [
    "SPLITS",
    "Dataset",
    "Reader",
    "TensorSpec",
    "check_binary",
    "check_disjoint",
    "hash_split",
    "load_dataset",
    "make_splits",
]
