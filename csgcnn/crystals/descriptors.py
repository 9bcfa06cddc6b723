"""Descriptors of a whole crystal: density, lattice, symmetry and composition.

They do not depend on the choice of the cell, the origin, the orientation or the order of the sites.
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csgcnn.crystals.crystal import Crystal, cell_volume
from csgcnn.crystals.elements import masses, properties

# The library writes to the terminal about cells that are close to a higher symmetry.
os.environ.setdefault("SPGLIB_WARNING", "OFF")

# Å: relaxed positions deviate by less from their symmetry, different positions by more.
SYMMETRY_TOLERANCE = 0.01
# 1 u/Å³ in g/cm³ (CODATA 2022).
GRAMS_PER_CM3 = 1.66053906892

CRYSTAL_SYSTEMS = (
    *("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal"),
    *("hexagonal", "cubic"),
)
# Last space group of each crystal system.
_LAST_SPACE_GROUP = (2, 15, 74, 142, 167, 194, 230)
# A crystal and its mirror image have the same properties, but in eleven pairs of space groups
# different numbers.
_MIRROR_IMAGE = {
    **{78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152},
    **{170: 169, 172: 171, 179: 178, 181: 180, 213: 212},
}

_DENSITY = ("volume_per_atom [Å3]", "density [g/cm3]")
NAMES: dict[str, tuple[str, ...]] = {
    "density": _DENSITY,
    "lattice": (
        *(f"{length} [Å]" for length in "abc"),
        *(f"{angle} [degree]" for angle in ("alpha", "beta", "gamma")),
        *_DENSITY,
    ),
    "symmetry": (
        *CRYSTAL_SYSTEMS,
        "space_group_number / 230",
        "point_group_order / 48",
        "centrosymmetric",
    ),
    "composition": (
        "n_elements",
        *(
            f"{kind} {name}"
            for kind in ("mean", "deviation", "min", "max")
            for name in properties()
        ),
    ),
}

# Power of a length with which a descriptor grows, by its unit. Other descriptors do not depend on
# the size of the cell, such as the mean of the atomic radii.
_LENGTH_POWERS = {"[Å]": 1, "[Å3]": 3, "[g/cm3]": -3}

Array = NDArray[Any]


class Symmetry(NamedTuple):
    """Symmetry of a crystal."""

    primitive: Array  # [3, 3], rows are vectors of a primitive cell, Å
    space_group: int
    rotations: Array  # [order, 3, 3], of the point group


def descriptors(crystal: Crystal, names: Sequence[str]) -> NDArray[np.float32]:
    """Return descriptors of a crystal, which are finite for every crystal.

    - `density`: volume per atom and density.
    - `lattice`: lengths and angles of the Niggli-reduced primitive cell, and `density`.
    - `symmetry`: crystal system (one column each), space-group number (the lower of a mirror
      pair), order of the point group, inversion.
    - `composition`: number of elements, and mean, standard deviation, minimum and maximum of each
      elemental property over the atoms (Ward et al., npj Comput. Mater. 2, 16028, 2016).

    A cell for which spglib fails has the space group P1.

    Args:
        crystal: The crystal.
        names: Names of the descriptors.

    Returns:
        [n_global], in the order of `descriptor_names`.
    """
    if not names:
        return np.zeros(0, dtype=np.float32)
    if tuple(names) == ("density",):
        return np.array(_density(crystal), dtype=np.float32)
    parts: dict[str, ArrayLike] = {"density": _density(crystal)}
    if "composition" in names:
        parts["composition"] = _composition(crystal)
    if "lattice" in names or "symmetry" in names:
        symmetry = find_symmetry(crystal)
        parts |= {"lattice": _lattice(crystal, symmetry.primitive), "symmetry": _symmetry(symmetry)}
    return np.concatenate([parts[name] for name in names]).astype(np.float32)


def descriptor_names(names: Sequence[str]) -> list[str]:
    """Return the name, with its unit, of each number that `descriptors` returns."""
    return [column for name in names for column in NAMES[name]]


def length_powers(names: Sequence[str]) -> list[int]:
    """Return the power with which each number of `descriptors` scales if all lengths are scaled."""
    return [
        _LENGTH_POWERS.get(column.rpartition(" ")[2], 0) if column in NAMES["lattice"] else 0
        for column in descriptor_names(names)
    ]


def find_symmetry(crystal: Crystal) -> Symmetry:
    """Return space group, point group and primitive cell to 0.01 Å, found by spglib.

    If spglib fails, the space group is P1 and the cell is the given one. The metric of the
    primitive cell is averaged over the point group. Lengths that are equal by symmetry are then
    equal to rounding, and the Niggli reduction does not depend on the last digits of the input.
    About one real crystal in a thousand is symmetric to so nearly 0.01 Å that the result depends on
    the order of its sites.

    Source: Togo, Shinohara & Tanaka, Sci. Technol. Adv. Mater. Methods 4, 2384822 (2024).
    """
    lattice, found = analyze_symmetry(crystal)
    if found is None:
        return Symmetry(lattice, 1, np.eye(3, dtype=int)[None])
    rotations = _point_group(found.hall_number)
    standard = np.linalg.inv(found.transformation_matrix).T @ lattice
    metric = (rotations.transpose(0, 2, 1) @ (standard @ standard.T) @ rotations).mean(axis=0)
    # Centerings are multiples of 1/2 and 1/3.
    primitive = np.round(6 * found.primitive_lattice @ np.linalg.inv(standard)) / 6
    primitive_lattice = np.linalg.cholesky(primitive @ metric @ primitive.T)
    return Symmetry(primitive_lattice, unhanded(found.number), rotations)


def analyze_symmetry(crystal: Crystal) -> tuple[Array, Any]:
    """Return lattice vectors [3, 3] in a standard orientation, and the dataset of spglib for them.

    The dataset is None if spglib fails.
    """
    import spglib

    # Independent of the orientation, and right-handed, as spglib expects; a left-handed crystal
    # becomes its mirror image.
    lattice = np.linalg.cholesky(crystal.lattice @ crystal.lattice.T)
    cell: Any = (lattice, crystal.frac_coords, crystal.atomic_number)
    try:
        return lattice, spglib.get_symmetry_dataset(cell, SYMMETRY_TOLERANCE)
    except Exception:
        # The type of the error depends on the version of spglib; older ones return None.
        return lattice, None


def unhanded(space_group: int) -> int:
    """Return the number of a space group, or the lower one of a group and its mirror image."""
    return _MIRROR_IMAGE.get(space_group, space_group)


@cache
def _point_group(hall_number: int) -> Array:
    """Return the rotations of the point group in the standard setting: [order, 3, 3]."""
    import spglib

    operations: Any = spglib.get_symmetry_from_database(hall_number)
    return np.unique(operations["rotations"], axis=0)


def _lattice(crystal: Crystal, primitive: Array) -> Array:
    import spglib

    reduced = spglib.niggli_reduce(primitive)
    reduced = primitive if reduced is None else reduced
    lengths = np.linalg.norm(reduced, axis=1)
    unit = reduced / lengths[:, None]
    cosines = [unit[1] @ unit[2], unit[2] @ unit[0], unit[0] @ unit[1]]
    return np.array([*lengths, *np.degrees(np.arccos(cosines)), *_density(crystal)])


def _density(crystal: Crystal) -> tuple[float, float]:
    volume = abs(cell_volume(crystal.lattice))
    # in double precision, as the masses are float32
    density = float(masses().take(crystal.atomic_number).sum()) / volume * GRAMS_PER_CM3
    return volume / len(crystal.atomic_number), density


def _symmetry(symmetry: Symmetry) -> Array:
    system = np.searchsorted(_LAST_SPACE_GROUP, symmetry.space_group)
    centrosymmetric = (symmetry.rotations == -np.eye(3)).all(axis=(1, 2)).any()
    order = len(symmetry.rotations)
    systems = np.eye(len(CRYSTAL_SYSTEMS))[system]
    return np.array([*systems, symmetry.space_group / 230, order / 48, centrosymmetric])


def _composition(crystal: Crystal) -> Array:
    elements, counts = np.unique(crystal.atomic_number, return_counts=True)
    fraction = counts / counts.sum()
    columns = [table[elements] for table in properties().values()]
    values = np.stack(columns, axis=1).astype(np.float64)
    mean = fraction @ values
    std = np.sqrt(fraction @ (values - mean) ** 2)
    return np.concatenate([[len(elements)], mean, std, values.min(axis=0), values.max(axis=0)])
