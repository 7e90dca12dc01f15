"""Credit-card clients as rows for the recipe: what was known by the end of August 2005, and three labels for later.

The latest month of the table is September 2005 (`PAY_0`, `BILL_AMT1`, `PAY_AMT1`). It is what the labels are made of,
so none of it is an input, and neither is anything computed from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from compress.errors import DataError

HERE = Path(__file__).resolve().parent
# Of five columns each, the months from August back to April. The order is that of the model's input.
CLIENT = ("LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE")
STATUS = ("PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6")
BILLS = ("BILL_AMT2", "BILL_AMT3", "BILL_AMT4", "BILL_AMT5", "BILL_AMT6")
PAYMENTS = ("PAY_AMT2", "PAY_AMT3", "PAY_AMT4", "PAY_AMT5", "PAY_AMT6")
INPUTS = CLIENT + STATUS + BILLS + PAYMENTS
SENSITIVE = ("SEX", "AGE")
LATEST_STATUS, LATEST_BILL = "PAY_0", "BILL_AMT1"
DEFAULT = "default.payment.next.month"
# From so many months late on, a client is in class 1, in class 2.
DELINQUENCY_FROM = (1, 2)
# A bill that grows by more than the whole limit is as bad as one that grows by it; 87 of 30,000 lie beyond.
GROWTH_LIMIT = 1.0


def rows(table: str = "../credit_default/data/taiwan_credit_default.csv.gz") -> dict[str, Any]:
    """Reads the table.

    Args:
        table: The table, relative to this file.

    Returns:
        What `parts` gives.

    Raises:
        DataError: If the file cannot be read, or lacks a column.
    """
    path = HERE / table
    columns = ["ID", *INPUTS, LATEST_STATUS, LATEST_BILL, DEFAULT]
    try:
        frame = pd.read_csv(path, usecols=columns)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: cannot be read: {error}", "it is committed: git checkout examples/credit_default/data"
        ) from error
    return parts(frame)


def parts(frame: pd.DataFrame) -> dict[str, Any]:
    """Makes inputs and labels from the rows of the table.

    Returns:
        What a recipe's data function returns: the input `features`, float32 `[rows, 20]` in the order of `INPUTS`; the
        labels `default`, 0 or 1 (October), `delinquency`, 0 to 2 (September), and `growth`, from August's bill to
        September's as a share of the limit, in -1..1; the ids; sex and age.
    """
    growth = (frame[LATEST_BILL] - frame[BILLS[0]]) / frame[CLIENT[0]]
    return {
        "inputs": {"features": frame[list(INPUTS)].to_numpy(np.float32)},
        "labels": {
            "default": frame[DEFAULT].to_numpy(np.int64),
            "delinquency": np.digitize(frame[LATEST_STATUS], DELINQUENCY_FROM).astype(np.int64),
            "growth": growth.clip(-GROWTH_LIMIT, GROWTH_LIMIT).to_numpy(np.float64),
        },
        "ids": frame["ID"].to_numpy(np.int64),
        "sensitive": {name: frame[name].to_numpy(np.int64) for name in SENSITIVE},
    }
