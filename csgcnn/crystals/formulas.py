"""Chemical formulas: numbers of atoms by element, and their comparison with a crystal."""

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.elements import SYMBOLS, atomic_number
from csgcnn.errors import StructureError

_TOKEN = re.compile(r"\s*(?:([A-Z][a-z]?)|([(\[])|([)\]]))\s*(\d*\.?\d*)")
_LONGEST = 2000
# Relative difference of the numbers of atoms that the digits of a formula explain.
_TOLERANCE, _ROUNDING = 0.01, 1e-9

Formula = Mapping[int, float]


@lru_cache(maxsize=256)
def parse_formula(text: str) -> Formula | None:
    """Return the number of atoms by atomic number, or None if the text is no formula.

    Args:
        text: Symbols with numbers, with or without spaces: "Mg Al2 O4", "Ca(OH)2"; D is hydrogen.
    """
    groups: list[Counter[int]] = [Counter()]
    position = 0
    text = text.strip()
    if not text or len(text) > _LONGEST:
        return None
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            return None
        symbol, opening, closing, digits = found.groups()
        position = found.end()
        if opening:
            if digits:
                return None
            groups.append(Counter())
            continue
        try:
            factor = float(digits) if digits else 1.0
            part: Mapping[int, float] = {atomic_number(symbol): 1.0} if symbol else groups.pop()
        except (ValueError, StructureError):
            return None
        if closing and not groups:
            return None
        for element, count in part.items():
            groups[-1][element] += factor * count  # type: ignore[assignment]
    if len(groups) != 1:
        return None
    return {element: count for element, count in groups[0].items() if count > 0} or None


def count_atoms(atomic_numbers: NDArray[np.uint8]) -> Formula:
    """Return the number of atoms by atomic number of a crystal's atoms [n_atoms]."""
    # Faster than np.unique for the few atoms of a cell.
    return Counter(atomic_numbers.tolist())


def same_ratios(one: Formula, other: Formula) -> bool:
    """Return whether two formulas have the same elements in the same ratios.

    Whole numbers of atoms have to agree exactly, others to 1 %.

    Args:
        one: Number of atoms by atomic number.
        other: Likewise.
    """
    if one.keys() != other.keys():
        return False
    scale = sum(one.values()) / sum(other.values())
    is_whole = all(float(n).is_integer() for n in (*one.values(), *other.values()))
    tolerance = _ROUNDING if is_whole else _TOLERANCE
    return all(
        abs(n - scale * other[z]) <= tolerance * max(n, scale * other[z]) for z, n in one.items()
    )


def formula_text(formula: Formula) -> str:
    """Return a formula as text, elements by atomic number: "O4 Mg Al2"."""
    return " ".join(f"{SYMBOLS[z]}{f'{n:g}' if n != 1 else ''}" for z, n in sorted(formula.items()))
