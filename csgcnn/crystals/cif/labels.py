"""Elements of the atoms of a CIF, from their type symbols or their labels."""

import re
from collections.abc import Sequence
from functools import lru_cache

from csgcnn.crystals.cif.items import ABSENT
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER, atomic_number
from csgcnn.crystals.formulas import Formula
from csgcnn.errors import StructureError, one_line

# "Fe", "Fe3+", "O2-", "Fe+3", "Mn2.5+", "D1+", "Cval", "Siva".
_TYPE = re.compile(r"([A-Za-z]{1,2})(?:\d*\.?\d*[-+]?|[-+]\d*\.?\d*|val?)")
_LETTERS = re.compile(r"[A-Za-z]+")


# In capitals they may be elements or groups of atoms: CO3 is carbonate, or cobalt with a charge.
_GROUPS = re.compile(r"(CN|CO|HO|NH|NO|PO)\d*")


@lru_cache(maxsize=1024)
def element_of_type(symbol: str) -> int | None:
    """Return the atomic number of a type symbol such as "Fe3+", or None if it is no clear one."""
    symbol = "".join(symbol.split())
    found = _TYPE.fullmatch(symbol)
    if found is None or _GROUPS.fullmatch(symbol):
        return None
    return _element(found[1]) or _element(found[1].capitalize())


def element_of_label(label: str) -> int | None:
    """Return the atomic number of a label that leaves no doubt, or None.

    A label is an element, alone or followed by anything but a letter: "Fe", "Fe1", "O1W", "C1'".
    T is not one, as minerals have tetrahedral sites T1 and T2.
    """
    found = _LETTERS.match(label)
    return _element(found[0]) if found and found[0] != "T" else None


def elements_in_formula(label: str, formula: Formula | None) -> list[int]:
    """Return the elements of a formula with which an unclear label or type symbol may begin.

    Args:
        label: A label or a type symbol, such as "OH1" or "FE1".
        formula: The formula of the crystal, if the file gives one.
    """
    found = _LETTERS.match(label)
    starts = {found[0][:2].capitalize(), found[0][:1].upper()} if found else set()
    elements = {element for start in starts if (element := _element(start))}
    return sorted(element for element in elements if element in (formula or {}))


def unclear_element(label: str, symbol: str | None) -> StructureError:
    """Return the error for an atom whose element is not clear.

    Args:
        label: Its label.
        symbol: Its type symbol, if there is one.
    """
    known = symbol not in (None, *ABSENT)
    given = f"its type symbol {symbol!r}" if known else f"the label {label!r}, without type symbol,"
    return StructureError(
        f"atom {one_line(label)}: {one_line(given)} does not name an element; "
        "expected _atom_site_type_symbol such as O"
    )


def row_names(labels: Sequence[str] | None, symbols: Sequence[str] | None, n: int) -> list[str]:
    """Return a name of each row of atoms for messages: its label, or its number and symbol.

    Args:
        labels: Labels of the rows, if the file has them.
        symbols: Type symbols of the rows, if the file has them.
        n: Number of rows.
    """
    if labels is not None:
        return [
            label if label not in ABSENT else f"in row {row}" for row, label in enumerate(labels, 1)
        ]
    shown = symbols or [""] * n
    return [f"in row {row} ({symbol})" for row, symbol in enumerate(shown, 1)]


def _element(symbol: str) -> int | None:
    try:
        number = atomic_number(symbol)
    except StructureError:
        return None
    return number if number <= MAX_ATOMIC_NUMBER else None
