"""Parquet tables, read batch by batch; pyarrow is imported late."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from csgcnn.crystals.data_tables import Table, record_table
from csgcnn.errors import UserError, one_line

# Rows that are in memory at once.
_BATCH_SIZE = 256


def parquet_table(path: Path) -> Table:
    """Return the table of a parquet file.

    Raises:
        UserError: pyarrow is not installed, or the file is damaged.
    """
    if find_spec("pyarrow") is None:
        raise UserError(
            f"{path}: parquet needs pyarrow: pip install pyarrow, or give .csv or .json"
        )
    return record_table(path, _rows(path))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_SIZE):
                for row in batch.to_pylist():
                    yield {name: _plain(value) for name, value in row.items()}
    except (ArrowException, ValueError, OSError, MemoryError, OverflowError) as error:
        raise UserError(
            f"{path}: not a readable parquet file: damaged or of another format ({one_line(error)})"
        ) from None


def _plain(value: Any) -> Any:
    """Return a value as JSON would hold it; a date becomes text, a decimal number a float."""
    if value is None or isinstance(value, str | int | float | dict | list):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
