"""Rows of atoms of a CIF, and the atoms that symmetry operations make of them."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.cif.items import n_decimals
from csgcnn.crystals.cif.operations import Operations
from csgcnn.crystals.crystal import OCCUPANCY_TOLERANCE
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.limits import MAX_FRAC_COORD, MAX_SITES
from csgcnn.crystals.structure_warnings import warn
from csgcnn.errors import StructureError, one_line

# Å: copies of one row that are closer are one atom on a special position.
SPECIAL_POSITION = 0.05
# Copies may differ by this many units of the last digit; and never by more than so many Å.
_LAST_DIGITS, _FARTHEST = 2.5, 0.3
# Positions that the operations make of the rows; a second.
_MAX_POSITIONS = 1_000_000
# Atoms whose distances are compared.
_MAX_COMPARED = 1000

Array = NDArray[Any]


class Rows(NamedTuple):
    """Rows of atoms with coordinates.

    Attributes:
        name: Label of each row, for messages.
        atomic_number: [n_rows] int64.
        occupancy: [n_rows].
        frac_coords: [n_rows, 3].
        texts: Coordinates of each row as written.
    """

    name: list[str]
    atomic_number: Array
    occupancy: Array
    frac_coords: Array
    texts: list[tuple[str, str, str]]


class Orbits(NamedTuple):
    """The atoms of a cell.

    Attributes:
        row: Row of each atom, [n_atoms].
        frac_coords: [n_atoms, 3], in [0, 1).
        multiplicity: Number of atoms of each row, [n_rows].
    """

    row: Array
    frac_coords: Array
    multiplicity: Array


def expand(rows: Rows, operations: Operations, lattice: Array) -> Orbits:
    """Return the atoms that symmetry operations make of rows.

    Copies that one row makes of itself within 0.05 Å, or within the last digit of its coordinates,
    are one atom on the special position, which is the mean of the copies.

    Args:
        rows: The rows.
        operations: A group.
        lattice: Lattice vectors [3, 3] in Å.

    Raises:
        StructureError: There are too many atoms, or copies of a row are close and no special
            position explains it.
    """
    _check_wrapped(rows)
    n_rows, n_operations = len(rows.name), len(operations)
    if n_rows * n_operations > _MAX_POSITIONS:
        raise StructureError(
            f"its {n_rows} rows of atoms and {n_operations} symmetry operations make up to "
            f"{n_rows * n_operations} positions, too many for a CIF; give it as POSCAR or json"
        )
    if n_operations == 1 and n_rows <= MAX_SITES:
        return Orbits(np.arange(n_rows), rows.frac_coords % 1 % 1, np.ones(n_rows, dtype=int))
    images = np.einsum("gij,rj->rgi", operations.rotation, rows.frac_coords)
    images += operations.translation
    shift = images - rows.frac_coords[:, None]
    # The image nearest to the row itself.
    cells = np.round(shift)
    distance = np.linalg.norm((shift - cells) @ lattice, axis=2)
    is_fixed = distance <= tolerance(rows, lattice)
    parts, multiplicity = [], np.full(n_rows, n_operations)
    for row in range(n_rows):
        if is_fixed[row].sum() == 1:
            parts.append(images[row])
            continue
        fixed = _subgroup(np.flatnonzero(is_fixed[row]), operations.product)
        if not is_fixed[row, fixed].all():
            raise StructureError(
                f"atom {rows.name[row]}: copies of it lie {distance[row, fixed].max():.2f} Å "
                "apart, and no special position explains it; give more digits"
            )
        mean = (images[row, fixed] - cells[row, fixed]).mean(axis=0)
        coset = operations.product[:, fixed].min(axis=1)
        chosen = np.unique(coset)
        parts.append(operations.rotation[chosen] @ mean + operations.translation[chosen])
        multiplicity[row] = len(chosen)
    if (n_atoms := int(multiplicity.sum())) > MAX_SITES:
        raise StructureError(f"the structure has {n_atoms} sites; up to {MAX_SITES} are supported")
    # A coordinate of -1e-17 becomes 1.0 first.
    frac_coords = np.concatenate(parts) % 1 % 1
    return Orbits(np.repeat(np.arange(n_rows), multiplicity), frac_coords, multiplicity)


def _check_wrapped(rows: Rows) -> None:
    """Refuse coordinates that wrapping into the cell would make of few digits."""
    is_far = ~(abs(rows.frac_coords) <= MAX_FRAC_COORD)
    if is_far.any():
        row, axis = np.argwhere(is_far)[0].tolist()
        raise StructureError(
            f"atom {one_line(rows.name[row])}: _atom_site_fract_{'xyz'[axis]} is "
            f"{rows.frac_coords[row, axis]:g}; expected a coordinate in or near the cell"
        )


def tolerance(rows: Rows, lattice: Array) -> float:
    """Return the distance in Å within which copies of one row are one atom.

    Args:
        rows: The rows.
        lattice: Lattice vectors [3, 3] in Å.
    """
    longest = float(np.linalg.norm(lattice, axis=1).max())
    last_digit = 10.0 ** -max(n_decimals(text) for of_row in rows.texts for text in of_row)
    rounding = _LAST_DIGITS * last_digit * longest
    return min(max(SPECIAL_POSITION, rounding), _FARTHEST)


def occupied_rows(rows: Rows, orbits: Orbits, lattice: Array) -> Array:
    """Return the rows that stand for one atom each; rows that share a site stand for one.

    Several rows of one element, such as Fe2+ and Fe3+ or H and D, may share a site if their
    occupancies add up to 1.

    Args:
        rows: The rows.
        orbits: Their atoms.
        lattice: Lattice vectors [3, 3] in Å.

    Returns:
        Numbers of the rows, [n_kept].

    Raises:
        StructureError: A site is partly occupied, or several elements share it.
    """
    is_full = np.abs(rows.occupancy - 1) <= OCCUPANCY_TOLERANCE
    if is_full.all():
        return np.arange(len(rows.name))
    kept = np.flatnonzero(is_full).tolist()
    waiting = np.flatnonzero(~is_full).tolist()
    within = tolerance(rows, lattice)
    first = np.cumsum(orbits.multiplicity) - orbits.multiplicity
    while waiting:
        row = waiting[0]
        at = orbits.frac_coords[first[row]]
        sharing = [
            other
            for other in waiting
            if orbits.multiplicity[other] == orbits.multiplicity[row]
            and _distances(at, orbits.frac_coords[orbits.row == other], lattice).min() <= within
        ]
        total = rows.occupancy[sharing].sum()
        elements = set(rows.atomic_number[sharing].tolist())
        if len(elements) > 1 or abs(total - 1) > OCCUPANCY_TOLERANCE:
            _refuse_occupancy(rows, sharing)
        shared = one_line(", ".join(rows.name[other] for other in sharing))
        warn("merged_sites", f"the rows {shared} share one site and are read as one atom")
        kept.append(row)
        waiting = [other for other in waiting if other not in sharing]
    return np.sort(np.array(kept))


def shortest_distance(frac_coords: Array, lattice: Array) -> float:
    """Return the shortest distance between two atoms of the cell and their nearest images, in Å.

    Args:
        frac_coords: Coordinates of the atoms [n_atoms, 3].
        lattice: Lattice vectors [3, 3] in Å.

    Returns:
        The distance; infinity for one atom, and for more than `_MAX_COMPARED`.
    """
    n_atoms = len(frac_coords)
    if not 1 < n_atoms <= _MAX_COMPARED:
        return np.inf
    first, second = np.triu_indices(n_atoms, 1)
    return float(_distances(frac_coords[second], frac_coords[first], lattice).min())


def _distances(at: Array, frac_coords: Array, lattice: Array) -> Array:
    shift = frac_coords - at
    return np.linalg.norm((shift - np.round(shift)) @ lattice, axis=1)


def _subgroup(members: Array, product: Array) -> Array:
    """Return the group that some operations generate."""
    while True:
        grown = np.unique(product[np.ix_(members, members)])
        if len(grown) == len(members):
            return grown
        members = grown


def _refuse_occupancy(rows: Rows, sharing: list[int]) -> None:
    found = ", ".join(
        f"{SYMBOLS[rows.atomic_number[row]]} {rows.occupancy[row]:g}" for row in sharing[:8]
    )
    names = ", ".join(rows.name[row] for row in sharing[:8])
    if len(sharing) == 1 and rows.occupancy[sharing[0]] > 1:
        raise StructureError(
            f"atom {one_line(names)} has the occupancy {rows.occupancy[sharing[0]]:g}; "
            "expected at most 1"
        )
    raise StructureError(
        f"site {one_line(names)} is disordered ({found}); expected one element with occupancy 1: "
        "give an ordered structure"
    )
