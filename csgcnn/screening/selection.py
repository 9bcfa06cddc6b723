"""The wanted rows of a table of predictions: those within limits, and the first of a ranking."""

import heapq
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

from csgcnn.data.comparisons import parse_comparison
from csgcnn.errors import ConfigError, nearest

Row = Sequence[str]


class Limit(NamedTuple):
    """A comparison of the cells in one column with a number."""

    column: int
    compare: Callable[[float, float], bool]
    number: float

    def holds(self, row: Row) -> bool:
        """Whether the row keeps to it; what is no number never does."""
        value = float(row[self.column])
        return not math.isnan(value) and self.compare(value, self.number)


@dataclass(frozen=True, slots=True)
class Selection:
    """Keep the rows within all `limits`, and of these the `top` that are highest (or lowest) in the column `by`."""

    limits: Sequence[Limit] = ()
    top: int | None = None
    by: int = 0
    order: str = "highest"

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows kept, the best first if they are ranked, for a memory of `top` rows; equal ones as they came."""
        within = (row for row in rows if all(limit.holds(row) for limit in self.limits))
        if self.top is None:
            return within
        ranked = ((row, float(row[self.by])) for row in within)
        numbers = ((row, value) for row, value in ranked if not math.isnan(value))
        best = heapq.nlargest if self.order == "highest" else heapq.nsmallest
        return iter([row for row, _ in best(self.top, numbers, key=lambda entry: entry[1])])


def selection(
    columns: Sequence[str],
    is_number: Sequence[bool],
    where: str | None = None,
    top: int | None = None,
    by: str | None = None,
    order: str = "highest",
    usual: str | None = None,
) -> Selection:
    """Understand `where`, comparisons `<column> <sign> <number>` joined by `and`, and `top` and `by`.

    `columns` are the names of a row's cells; where `by` is not given it is the `usual` one, if there is one.

    Raises:
        ConfigError: it cannot be read, or a column does not exist or holds text.
    """
    numbers = list(compress(columns, is_number))
    limits = (
        [_limit(part, columns, numbers, where) for part in re.split(r"\s+and\s+", where)]
        if where
        else []
    )
    if top is None:
        if by is not None or order != "highest":
            raise ConfigError("by and order say how to rank for top: give top=N, too")
        return Selection(limits)
    by = by or usual
    if by is None:
        raise ConfigError(f"top={top}: say by what to rank, by=… of {', '.join(numbers)}")
    return Selection(limits, top, _position(by, columns, numbers, f"by={by}"), order)


def _limit(text: str, columns: Sequence[str], numbers: Sequence[str], where: str) -> Limit:
    try:
        comparison = parse_comparison(text)
    except ValueError as error:
        raise ConfigError(
            f"where={where!r}: {error}, several joined by "
            f"'and', such as '{(numbers or columns)[0]} < 1.5'"
        ) from None
    column = _position(comparison.column, columns, numbers, f"where={where!r}")
    return Limit(column, comparison.compare, comparison.number)


def _position(name: str, columns: Sequence[str], numbers: Sequence[str], key: str) -> int:
    if name not in numbers:
        found = f"{name} is text" if name in columns else f"there is no column {name!r}"
        raise ConfigError(
            f"{key}: {found}; the numbers are {', '.join(numbers)}{nearest(name, numbers)}"
        )
    return columns.index(name)
