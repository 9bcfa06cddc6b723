"""Columns of a data set that keys of the configuration name."""

from pathlib import Path

from torch import Tensor

from csgcnn.data.compositions import compositions
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import UserError

# Column that every split can read, see `compositions`.
COMPOSITION = "composition"


def existing_column(
    store: GraphStore, name: str, key: str, source: Path | None = None
) -> list[Scalar]:
    """Return a column of all rows of a store.

    Args:
        store: The data set.
        name: Name of the column.
        key: Key that names it, for messages.
        source: Path of the data, for messages.

    Raises:
        UserError: There is no such column.
    """
    if name not in store.columns:
        has = f"{source} has " if source else ""
        columns = ", ".join(store.columns) or "none"
        raise UserError(f"{key}: {has}no such column; the columns are {columns}")
    return store.columns[name]


def split_column(store: GraphStore, name: str | None, key: str = "column") -> list[Scalar]:
    """Return a column that a split reads, or the compositions, of all rows of a store.

    Args:
        store: The data set.
        name: Name of the column.
        key: Key of `dataset.split` that names it.

    Raises:
        UserError: There is no such column.
    """
    if name == COMPOSITION and name not in store.columns:
        return list(compositions(store))
    return existing_column(store, str(name), f"dataset.split.{key}={name}")


def column_values(store: GraphStore, rows: Tensor, name: str | None) -> list[Scalar]:
    """Return the values that rows have in a column that a split reads.

    Args:
        store: The data set.
        rows: [n] int64.
        name: Name of the column.

    Raises:
        UserError: There is no such column, or a row has no value.
    """
    column = split_column(store, name)
    values = [column[row] for row in rows.tolist()]
    if None in values:
        first = store.ids[int(rows[values.index(None)])]
        raise UserError(f"column {name!r} has no value for {first}")
    return values
