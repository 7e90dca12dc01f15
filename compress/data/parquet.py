"""Parquet, read through pyarrow."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from compress.data.csvfile import check_names
from compress.data.files import check_expanded, reading
from compress.registry import require


def read_parquet(path: Path) -> pd.DataFrame:
    """Reads a Parquet file. An index that pandas stored comes as the column `__index_level_0__`.

    Raises:
        MissingPackageError: If pyarrow is not installed.
        DataError: If it is damaged, too large, or has duplicate columns.
    """
    parquet = require("pyarrow.parquet", why="a .parquet file")
    with reading(path, "Parquet"), parquet.ParquetFile(path) as file:
        check_names(path, file.schema_arrow.names)
        groups = range(file.metadata.num_row_groups)
        check_expanded(path, sum(file.metadata.row_group(group).total_byte_size for group in groups))
        table = file.read()
        for index, field in enumerate(table.schema):
            if isinstance(field.type, require("pyarrow").DictionaryType):
                table = table.set_column(index, field.name, table.column(index).cast(field.type.value_type))
        # What pandas wrote about itself is not believed: every column is a column.
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    return frame
