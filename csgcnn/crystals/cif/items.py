"""Items of a CIF block: values by data name, in one spelling, and numbers with uncertainties."""

import math
import re
from typing import Any

from csgcnn.errors import StructureError, one_line

# Values that stand for "not applicable" and "unknown".
ABSENT = (".", "?", "")
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\(\d*\))?")
_QUOTES = "'\";"
_LONGEST_SHOWN = 40


class Items:
    """Values of a CIF block by data name.

    Data names are the same in capitals, and with a point instead of the first underscore of a
    category (`_cell.length_a`), as newer dictionaries write them.

    Args:
        block: A `gemmi.cif.Block`.
    """

    def __init__(self, block: Any) -> None:
        self.values: dict[str, list[str]] = {}
        self._columns: dict[str, list[str]] = {}
        self._conflicting: set[str] = set()
        for item in block:
            if item.pair is not None:
                self._add(item.pair[0], [item.pair[1]])
            elif item.loop is not None:
                tags, values = item.loop.tags, item.loop.values
                for position, tag in enumerate(tags):
                    self._add(tag, values[position :: len(tags)])

    def column(self, name: str) -> list[str] | None:
        """Return the values of a data name without their quotes, or None.

        Raises:
            StructureError: The block gives it more than once, with different values.
        """
        if name in self._columns:
            return self._columns[name]
        found = self.values.get(name)
        if found is None:
            return None
        if name in self._conflicting:
            raise StructureError(f"{name} is given more than once, with different values")
        self._columns[name] = [
            _unquoted(value) if value[0] in _QUOTES else value for value in found
        ]
        return self._columns[name]

    def text(self, *names: str) -> str | None:
        """Return the first known value of several data names, or None."""
        for name in names:
            for value in self.column(name) or ():
                if value not in ABSENT:
                    return value
        return None

    def _add(self, tag: str, values: list[str]) -> None:
        name = tag.lower().replace(".", "_")
        if self.values.setdefault(name, values) != values:
            self._conflicting.add(name)


def number(text: str, key: str, owner: str = "") -> float:
    """Return a number of a CIF without its uncertainty: 0.25 of "0.250(3)".

    Args:
        text: The value.
        key: Its data name, for messages.
        owner: The atom that it belongs to, for messages.

    Raises:
        StructureError: It is not a number.
    """
    try:
        value = float(text)
        # float() reads "nan", and "1_2" as 12.
        if math.isfinite(value) and "_" not in text:
            return value
    except ValueError:
        pass
    if found := _NUMBER.fullmatch(text.strip()):
        return float(found[1])
    where = f"atom {owner}: " if owner else ""
    reason = "is not a number"
    if text in ABSENT:
        reason = "is not known"
    elif re.fullmatch(r"[-+]?\d*,\d+(\(\d*\))?", text):
        reason = "has a decimal comma, expected a point"
    raise StructureError(f"{where}{key} is {one_line(repr(text[:_LONGEST_SHOWN]))}; it {reason}")


def n_decimals(text: str) -> int:
    """Return the number of decimals that a number is written with."""
    return len(text.partition("(")[0].partition(".")[2])


def _unquoted(value: str) -> str:
    from gemmi import cif

    return cif.as_string(value).strip()
