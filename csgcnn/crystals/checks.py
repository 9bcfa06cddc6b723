"""Checks of a crystal after it was read: formula, volume, and distances between atoms."""

from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal, cell_volume
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.formulas import count_atoms, formula_text, parse_formula, same_ratios
from csgcnn.crystals.structure_warnings import warn
from csgcnn.errors import StructureError, one_line

FormulaMismatch = Literal["refuse", "warn"]

# Distances between atoms, in sums of their covalent radii. The data sets of this project have none
# below 0.64.
SHORTEST_DISTANCE, SHORT_DISTANCE = 0.5, 0.6
# Å³: range of the 106,113 crystals of matbench_mp_gap, 5.28 to 742, widened by 20 %.
VOLUME_PER_ATOM = (4.2, 890.0)

Array = NDArray[Any]


def check_crystal(crystal: Crystal, formula_mismatch: FormulaMismatch = "refuse") -> None:
    """Check the formula and the volume of a crystal, and warn of what is doubtful.

    Args:
        crystal: The crystal.
        formula_mismatch: Whether a crystal is refused whose elements have other ratios than in the
            formula that its file declares, or warned of.

    Raises:
        StructureError: The formula is another one.
    """
    if (declared := parse_formula(crystal.declared_formula)) is not None:
        found = count_atoms(crystal.atomic_number)
        if not same_ratios(found, declared):
            message = (
                f"the file declares {one_line(crystal.declared_formula)}, but its atoms are "
                f"{formula_text(found)}"
            )
            if formula_mismatch == "refuse":
                raise StructureError(
                    f"{message}; correct the file, or accept such crystals with "
                    "dataset.formula_mismatch=warn"
                )
            warn("formula_mismatch", message)
    volume = abs(cell_volume(crystal.lattice)) / len(crystal.atomic_number)
    smallest, largest = VOLUME_PER_ATOM
    if not smallest <= volume <= largest:
        warn(
            "volume_per_atom",
            f"the volume per atom is {volume:.4g} Å³; crystals have {smallest:g} to {largest:g} Å³",
        )


def check_distances(crystal: Crystal, center: Array, neighbor: Array, distance: Array) -> None:
    """Refuse atoms that are much closer than the sum of their covalent radii, warn of close ones.

    Covalent radii: Cordero et al., Dalton Trans. 2832 (2008).

    Args:
        crystal: The crystal.
        center: First atom of each pair, [n_pairs].
        neighbor: Second atom of each pair, [n_pairs].
        distance: [n_pairs], in Å.

    Raises:
        StructureError: A distance is below half of the sum; the message names both sites.
    """
    if not len(distance):
        return
    radius = _covalent_radii()[crystal.atomic_number]
    relative = distance / (radius[center] + radius[neighbor])
    closest = int(relative.argmin())
    if relative[closest] >= SHORT_DISTANCE:
        return
    sites = crystal.pair_name(int(center[closest]), int(neighbor[closest]))
    message = (
        f"{one_line(sites)} are {distance[closest]:.3g} Å apart, {relative[closest]:.2f} of the "
        "sum of their covalent radii"
    )
    if relative[closest] < SHORTEST_DISTANCE:
        raise StructureError(
            f"{message}; expected at least {SHORTEST_DISTANCE}: two atoms on one position, or "
            "wrong units, cell or symmetry"
        )
    warn("short_distance", message)


@cache
def _covalent_radii() -> NDArray[np.float64]:
    """Return covalent radii in Å, [119] indexed by atomic number."""
    import gemmi

    return np.array([gemmi.Element(symbol or "X").covalent_r for symbol in SYMBOLS])
