"""Comparisons of a column with a number or a text, such as `band_gap == 0`."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
SIGNS_OF_TEXT = ("==", "!=")
_COMPARISON = re.compile(
    r"\s*(?P<column>[^<>=!]*[^<>=!\s])\s*(?P<sign><=|>=|==|!=|<|>)"
    r"\s*((?P<number>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)|'(?P<text>[^']*)'|\"(?P<other>[^\"]*)\")\s*"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of the values of a column with a number or a text.

    Attributes:
        column: Name of the column.
        compare: Returns whether a value compares to another one in this way.
        value: The number or the text.
    """

    column: str
    compare: Callable[[Any, Any], bool]
    value: float | str

    @property
    def is_of_text(self) -> bool:
        """Whether it compares with a text."""
        return isinstance(self.value, str)

    def holds(self, value: float | str) -> bool:
        """Return whether the comparison is true of a value, which has the type of its own."""
        return self.compare(value, self.value)


def parse_comparison(text: str) -> Comparison:
    """Parse a comparison.

    Args:
        text: `<column> <sign> <number>`, or with '<text>' instead of the number and the sign == or
            !=; the column may contain spaces.

    Raises:
        ValueError: The text is not a comparison; the message says what was expected.
    """
    parsed = _COMPARISON.fullmatch(text)
    if parsed is None or not (parsed["number"] or parsed["sign"] in SIGNS_OF_TEXT):
        raise ValueError(
            f"expected <column> <sign> <number> with one of {' '.join(SIGNS)}, or <column> == "
            "'<text>'"
        )
    found = parsed["text"] or parsed["other"] or ""
    value = float(parsed["number"]) if parsed["number"] else found
    return Comparison(parsed["column"], SIGNS[parsed["sign"]], value)
