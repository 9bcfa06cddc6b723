"""Columns that a split reads."""

from torch import Tensor

from csgcnn.data.compositions import compositions
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import UserError

# Column that every data set has, see `compositions`.
COMPOSITION = "composition"


def existing_column(store: GraphStore, name: str | None, key: str) -> list[Scalar]:
    """Return a column of all rows of a store.

    Args:
        store: The data set.
        name: Name of the column.
        key: Key of `dataset.split` that names it.

    Raises:
        UserError: There is no such column.
    """
    if name == COMPOSITION and name not in store.columns:
        return list(compositions(store))
    if name not in store.columns:
        raise UserError(
            f"dataset.split.{key}={name}: no such column; the columns are "
            f"{', '.join(store.columns)}"
        )
    return store.columns[name]


def column_values(
    store: GraphStore, rows: Tensor, name: str | None, key: str = "column"
) -> list[Scalar]:
    """Return the values that rows have in a column.

    Args:
        store: The data set.
        rows: [n] int64.
        name: Name of the column.
        key: Key of `dataset.split` that names it.

    Raises:
        UserError: There is no such column, or a row has no value.
    """
    column = existing_column(store, name, key)
    values = [column[row] for row in rows.tolist()]
    if None in values:
        first = store.ids[int(rows[values.index(None)])]
        raise UserError(f"column {name!r} has no value for {first}")
    return values
