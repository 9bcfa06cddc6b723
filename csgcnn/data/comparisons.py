"""Comparisons of a column with a number, such as `band_gap == 0`."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_COMPARISON = re.compile(
    r"\s*(?P<column>[^<>=!]*[^<>=!\s])\s*(?P<sign><=|>=|==|!=|<|>)"
    r"\s*(?P<number>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)\s*"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of the values of a column with a number.

    Attributes:
        column: Name of the column.
        compare: Returns whether a value compares to a number in this way.
        number: The number.
    """

    column: str
    compare: Callable[[float, float], bool]
    number: float

    def holds(self, value: float) -> bool:
        """Return whether the comparison is true of a value."""
        return self.compare(value, self.number)


def parse_comparison(text: str) -> Comparison:
    """Parse a comparison.

    Args:
        text: `<column> <sign> <number>`; the column may contain spaces.

    Raises:
        ValueError: The text is not a comparison; the message says what was expected.
    """
    parsed = _COMPARISON.fullmatch(text)
    if parsed is None:
        raise ValueError(f"expected <column> <sign> <number> with one of {' '.join(SIGNS)}")
    return Comparison(parsed["column"], SIGNS[parsed["sign"]], float(parsed["number"]))
