"""Descriptors of a whole crystal: density, lattice, symmetry, composition; the same for every description of it."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.elements import masses, properties

SYMMETRY_TOLERANCE = (
    0.01  # Å: relaxed positions deviate by less from their symmetry, different ones by more
)
GRAMS_PER_CM3 = 1.66053906892  # of 1 u/Å³ (CODATA 2022)

CRYSTAL_SYSTEMS = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "trigonal",
    "hexagonal",
    "cubic",
)
_LAST_SPACE_GROUP = (2, 15, 74, 142, 167, 194, 230)  # of each crystal system
# A crystal and its mirror image have the same properties but, in eleven cases, space groups of different numbers.
_MIRROR_IMAGE = {
    78: 76,
    95: 91,
    96: 92,
    145: 144,
    153: 151,
    154: 152,
    170: 169,
    172: 171,
    179: 178,
    181: 180,
    213: 212,
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

Array = NDArray[Any]


class Symmetry(NamedTuple):
    """What symmetry says of a crystal.

    Shapes: primitive [3, 3], rows are vectors of a primitive cell; rotations [order, 3, 3] of the point group.
    Units: Å.
    """

    primitive: Array
    space_group: int
    rotations: Array


def descriptors(crystal: Crystal, names: Sequence[str]) -> NDArray[np.float32]:
    """The descriptors of one crystal, finite for every crystal, in the order of `descriptor_names`.

    `density`: volume per atom, density. `lattice`: lengths and angles of the Niggli-reduced primitive cell and these
    two. `symmetry`: crystal system (one column each), space-group number (of a mirror pair, the lower), order of the
    point group, inversion. `composition`: number of elements, and mean, standard deviation, minimum, maximum over the
    atoms of each elemental property, after Ward et al., npj Comput. Mater. 2, 16028 (2016). A cell that spglib cannot
    handle counts as P1; `density` and `composition` do not ask it.

    Shapes: [n_global].
    """
    if not names:
        return np.zeros(0, dtype=np.float32)
    parts = {"density": _density(crystal)}
    if "composition" in names:
        parts["composition"] = _composition(crystal)
    if "lattice" in names or "symmetry" in names:
        symmetry = find_symmetry(crystal)
        parts |= {"lattice": _lattice(crystal, symmetry.primitive), "symmetry": _symmetry(symmetry)}
    return np.concatenate([parts[name] for name in names]).astype(np.float32)


def descriptor_names(names: Sequence[str]) -> list[str]:
    """The name, with its unit, of each number that `descriptors` gives."""
    return [column for name in names for column in NAMES[name]]


def find_symmetry(crystal: Crystal) -> Symmetry:
    """Space group, point group and primitive cell, to 0.01 Å; those of P1 and the cell as given where spglib fails.

    The primitive cell is made as symmetric as its point group (its metric is the mean over the rotations), so that what
    is equal by symmetry is equal to rounding and its Niggli reduction does not hang on the digits of the input.
    About one real crystal in a thousand is symmetric to so nearly 0.01 Å that the order of its sites decides.
    Source: Togo, Shinohara & Tanaka, Sci. Technol. Adv. Mater. Methods 4, 2384822 (2024).
    """
    import spglib

    # The same for every rotation, and right-handed, as spglib wants it; a left-handed crystal becomes its mirror image.
    lattice = np.linalg.cholesky(crystal.lattice @ crystal.lattice.T)
    cell: Any = (lattice, crystal.frac_coords, crystal.atomic_number)
    try:
        found = spglib.get_symmetry_dataset(cell, SYMMETRY_TOLERANCE)
    except Exception:  # which kind depends on the version of spglib; older ones answer None
        found = None
    if found is None:
        return Symmetry(lattice, 1, np.eye(3, dtype=int)[None])
    rotations = _point_group(found.hall_number)
    standard = np.linalg.inv(found.transformation_matrix).T @ lattice
    metric = (rotations.transpose(0, 2, 1) @ (standard @ standard.T) @ rotations).mean(axis=0)
    primitive = (
        np.round(6 * found.primitive_lattice @ np.linalg.inv(standard)) / 6
    )  # centrings are halves and thirds
    primitive_lattice = np.linalg.cholesky(primitive @ metric @ primitive.T)
    return Symmetry(primitive_lattice, _MIRROR_IMAGE.get(found.number, found.number), rotations)


@cache
def _point_group(hall_number: int) -> Array:
    """Rotations of the point group in the standard setting: [order, 3, 3]."""
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


def _density(crystal: Crystal) -> Array:
    volume = abs(np.linalg.det(crystal.lattice))
    density = masses()[crystal.atomic_number].sum() / volume * GRAMS_PER_CM3
    return np.array([volume / len(crystal.atomic_number), density])


def _symmetry(symmetry: Symmetry) -> Array:
    system = np.searchsorted(_LAST_SPACE_GROUP, symmetry.space_group)
    centrosymmetric = (symmetry.rotations == -np.eye(3)).all(axis=(1, 2)).any()
    order = len(symmetry.rotations)
    return np.array(
        [
            *np.eye(len(CRYSTAL_SYSTEMS))[system],
            symmetry.space_group / 230,
            order / 48,
            centrosymmetric,
        ]
    )


def _composition(crystal: Crystal) -> Array:
    elements, counts = np.unique(crystal.atomic_number, return_counts=True)
    share = counts / counts.sum()
    values = np.stack([table[elements] for table in properties().values()], axis=1).astype(
        np.float64
    )
    mean = share @ values
    deviation = np.sqrt(share @ (values - mean) ** 2)
    return np.concatenate(
        [[len(elements)], mean, deviation, values.min(axis=0), values.max(axis=0)]
    )
