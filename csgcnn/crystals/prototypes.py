"""Prototypes of crystals: their structure without elements and distances."""

from collections import Counter

import numpy as np

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.descriptors import analyze_symmetry, unhanded
from csgcnn.crystals.graphs import MAX_SYMMETRY_SITES
from csgcnn.errors import StructureError

# Column of the prototypes.
PROTOTYPE = "prototype"

_POINT_GROUPS = (
    *("1", "-1", "2", "m", "2/m", "222", "mm2", "mmm", "4", "-4", "4/m", "422", "4mm", "-42m"),
    *("4/mmm", "3", "-3", "32", "3m", "-3m", "6", "-6", "6/m", "622", "6mm", "-6m2", "6/mmm"),
    *("23", "m-3", "432", "-43m", "m-3m"),
)
_BY_CHARACTERS = {"".join(sorted(symbol)): symbol for symbol in _POINT_GROUPS}


def prototype(crystal: Crystal) -> str:
    """Return the prototype of a crystal, such as "AB_225_4(m-3m)_4(m-3m)" of NaCl.

    It has the anonymous formula, the number of the space group (the lower of a mirror pair), and
    the occupied positions of each element: multiplicity in the conventional cell and point group of
    the site, to 0.01 Å, found by spglib. Several equal positions have their number in front:
    "3x8(m)". In the labels of AFLOW (Mehl et al., Comput. Mater. Sci. 136, S1, 2017) the positions
    have their Wyckoff letters. The letters depend on the choice of the origin, and multiplicity and
    point group do not. So crystals of one AFLOW prototype have one label. A few prototypes of AFLOW
    share one.

    A cell for which spglib fails has the formula alone.

    Args:
        crystal: The crystal, in any cell.

    Raises:
        StructureError: It has too many sites.
    """
    n_sites = len(crystal.atomic_number)
    if n_sites > MAX_SYMMETRY_SITES:
        raise StructureError(
            f"it has {n_sites} sites; prototypes are found for up to {MAX_SYMMETRY_SITES}"
        )
    count = np.bincount(crystal.atomic_number)
    divisor = int(np.gcd.reduce(count))
    found = analyze_symmetry(crystal)[1]
    positions = Counter[tuple[int, str]]()
    if found is not None:
        n_copies = n_sites / len(found.std_types)
        _, first, size = np.unique(
            found.crystallographic_orbits, return_index=True, return_counts=True
        )
        for site, n in zip(first.tolist(), size.tolist(), strict=True):
            symbol = f"{round(n / n_copies)}({_point_group(found.site_symmetry_symbols[site])})"
            positions[int(crystal.atomic_number[site]), symbol] += 1
    of_element = sorted(
        (count[z] // divisor, _listed({s: n for (y, s), n in positions.items() if y == z}))
        for z in np.flatnonzero(count).tolist()
    )
    formula = "".join(f"{_letter(i)}{n if n > 1 else ''}" for i, (n, _) in enumerate(of_element))
    if found is None:
        return formula
    return "_".join([formula, str(unhanded(found.number)), *(text for _, text in of_element)])


def _listed(positions: dict[str, int]) -> str:
    return "+".join(f"{n}x{s}" if n > 1 else s for s, n in sorted(positions.items()))


def _point_group(site_symmetry: str) -> str:
    """Return the symbol of a point group in any orientation: "mm2" of "m.2m"."""
    symbol = site_symmetry.replace(".", "")
    return symbol if symbol in _POINT_GROUPS else _BY_CHARACTERS["".join(sorted(symbol))]


def _letter(i: int) -> str:
    return chr(ord("A") + i) if i < 26 else f"A{_letter(i - 26)}"
