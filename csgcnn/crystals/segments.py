"""Operations on the rows of flat arrays that hold many crystals one after the other."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def expand(counts: Array) -> tuple[Array, Array]:
    """Repeat each row `counts` times: return the row and the number of each repetition."""
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - (np.cumsum(counts) - counts)[row]


def dense_rank(values: Array) -> Array:
    """Return the position of each value among the distinct values."""
    order = np.argsort(values)
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = np.diff(values[order]) != 0
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.cumsum(is_new) - 1
    return rank


def order_of(*columns: Array) -> Array:
    """Return the order of rows by columns of integers from 0, the first column first.

    One key of all columns is sorted several times faster than by `np.lexsort`. Rows that agree in
    all columns have any order.
    """
    sizes = [int(column.max(initial=0)) + 1 for column in columns]
    if math.prod(sizes) >= 2**63:
        return np.lexsort(columns[::-1])
    key = columns[0]
    for column, size in zip(columns[1:], sizes[1:], strict=True):
        key = key * size + column
    return np.argsort(key)
