"""What a task asks of a dataset, checked before anything is measured."""

from __future__ import annotations

import numpy as np

from compress.data.base import Dataset
from compress.errors import DataError, did_you_mean


def check_binary(dataset: Dataset, label: str | None, where: str) -> str:
    """Checks that a label answers a yes/no question on the test rows.

    Args:
        dataset: The rows.
        label: The label's name; None for the only one.
        where: The recipe's name, for the message.

    Returns:
        The label's name.

    Raises:
        DataError: If there is no such label, its values are not exactly 0 and 1, or all test rows have the same.
    """
    if not dataset.labels:
        raise DataError(f"{where}: data names no label, and a binary task needs one", "set data.label.")
    if label is None and len(dataset.labels) > 1:
        raise DataError(
            f"{where}: task.label must say which of the labels counts: {', '.join(dataset.labels)}", "set task.label."
        )
    name = next(iter(dataset.labels)) if label is None else label
    if name not in dataset.labels:
        raise DataError(f"{where}: task.label: there is no label {name!r}", did_you_mean(name, dataset.labels))
    values = dataset.labels[name]
    known = np.unique(values)
    if known.tolist() != [0, 1]:
        shown = ", ".join(str(value) for value in known[:10].tolist()) + (", ..." if len(known) > 10 else "")
        raise DataError(
            f"{where}: a binary task needs a label of 0 and 1; {name!r} of {dataset.source} holds {shown}",
            "write 1 for the event and 0 for the rest; in a table, data.categories can map two values, the event last.",
        )
    test = values[dataset.split("test")]
    positives = int(test.sum())
    if positives in (0, len(test)):
        raise DataError(
            f"{where}: the test split has {positives} positive rows of {name!r} out of {len(test)}: no figure of "
            "quality is defined on one class",
            'bring more rows, raise data.split.test, or use data.split.by = "stratified".',
        )
    return name
