"""Select rows of a table of predictions: those within limits, and the first of a ranking."""

import heapq
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

from csgcnn.errors import ConfigError, nearest

Row = Sequence[str]

_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_SIGNS_OF_TEXT = ("==", "!=")
_COMPARISON = re.compile(
    r"\s*(?P<column>[^<>=!]*[^<>=!\s])\s*(?P<sign><=|>=|==|!=|<|>)"
    r"\s*((?P<number>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)|'(?P<text>[^']*)'|\"(?P<other>[^\"]*)\")\s*"
)


class Limit(NamedTuple):
    """A comparison of the cells of a column with a number or a text.

    Attributes:
        column: Position of the column.
        compare: Returns whether a cell compares to the value in this way.
        value: The number or the text.
    """

    column: int
    compare: Callable[[Any, Any], bool]
    value: float | str

    def holds(self, row: Row) -> bool:
        """Return whether the comparison is true of a row; it is false for NaN."""
        cell = row[self.column]
        if isinstance(self.value, str):
            return self.compare(cell, self.value)
        return not math.isnan(float(cell)) and self.compare(float(cell), self.value)


@dataclass(frozen=True, slots=True)
class Selection:
    """Keep the rows within all limits, and of these the best.

    Attributes:
        limits: Limits that a row must satisfy.
        top: Number of rows to keep; None: all.
        by: Position of the column that ranks the rows.
        order: Which rows are the best: highest or lowest.
    """

    limits: Sequence[Limit] = ()
    top: int | None = None
    by: int = 0
    order: str = "highest"

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Return the selected rows, with at most `top` of them in memory.

        Ranked rows come best first, equal ones in their order; NaN has no rank.
        """
        within = (row for row in rows if all(limit.holds(row) for limit in self.limits))
        if self.top is None:
            return within
        valued = ((row, float(row[self.by])) for row in within)
        numbers = ((row, value) for row, value in valued if not math.isnan(value))
        best = heapq.nlargest if self.order == "highest" else heapq.nsmallest
        return iter([row for row, _ in best(self.top, numbers, key=lambda entry: entry[1])])


def selection(
    columns: Sequence[str],
    is_number: Sequence[bool],
    where: str | None = None,
    top: int | None = None,
    by: str | None = None,
    order: str = "highest",
    default: str | None = None,
) -> Selection:
    """Build the selection that the keys `where`, `top`, `by` and `order` describe.

    Args:
        columns: Names of the columns.
        is_number: Whether each column holds numbers.
        where: Comparisons joined by `and`, such as `gap < 1.5 and out_of_domain == ''`.
        top: Number of rows to keep.
        by: Column that ranks the rows.
        order: Which rows are the best: highest or lowest.
        default: Column that ranks the rows if `by` is None.

    Raises:
        ConfigError: A comparison is malformed, or a column does not exist or is of the other kind.
    """
    numbers = list(compress(columns, is_number))
    parts = re.split(r"\s+and\s+", where) if where else ()
    limits = [_limit(part, columns, numbers, f"where={where!r}") for part in parts]
    if top is None:
        if by is not None or order != "highest":
            raise ConfigError("by and order rank the rows for top: give top=N, too")
        return Selection(limits)
    by = by or default
    if by is None:
        raise ConfigError(f"top={top}: give the column that ranks, by=… of {', '.join(numbers)}")
    return Selection(limits, top, _position(by, columns, numbers, f"by={by}"), order)


def _limit(text: str, columns: Sequence[str], numbers: Sequence[str], key: str) -> Limit:
    found = _COMPARISON.fullmatch(text)
    if found is None or not (found["number"] or found["sign"] in _SIGNS_OF_TEXT):
        raise ConfigError(
            f"{key}: expected <column> <sign> <number> with one of {' '.join(_SIGNS)}, or <column> "
            "== '<text>', several joined by 'and', such as "
            f"'{(numbers or columns)[0]} < 1.5'"
        )
    name, number = found["column"], found["number"]
    if not number and name in numbers:
        raise ConfigError(f"{key}: {name} is a number; compare it with a number")
    value = float(number) if number else found["text"] or found["other"] or ""
    position = _position(name, columns, numbers if number else columns, key)
    return Limit(position, _SIGNS[found["sign"]], value)


def _position(name: str, columns: Sequence[str], wanted: Sequence[str], key: str) -> int:
    if name not in columns:
        raise ConfigError(
            f"{key}: there is no column {name!r}; expected {', '.join(wanted)}"
            f"{nearest(name, wanted)}"
        )
    if name not in wanted:
        numbers = ", ".join(wanted)
        raise ConfigError(
            f"{key}: {name} is text; the numbers are {numbers}. Text: where=\"{name} == ''\""
        )
    return columns.index(name)
