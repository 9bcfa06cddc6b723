"""Neighbors of every atom of a crystal, found by pymatgen within bounds on time and memory."""

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal, cell_volume
from csgcnn.errors import StructureError, one_line

# Å: distances that differ by less belong to one shell of neighbors.
SHELL_TOLERANCE = 0.01
# Å: atoms that are closer are one atom listed twice.
MIN_DISTANCE = 0.01
# Å³: half of what remains at any pressure.
MIN_VOLUME_PER_ATOM = 0.5
# Fractional coordinates beyond this are wrapped into the cell, which needs fewer images.
MAX_UNWRAPPED = 2.0
# Å: smallest radius that pymatgen searches.
MIN_RADIUS = 1.0
# Periodic images of atoms in one search; half a second and half a GiB.
_MAX_IMAGES = 5e6
# Boxes with the edge of the search radius; likewise.
_MAX_BOXES = 2e6
# Pairs of atoms within the search radius; half a GiB.
MAX_PAIRS, PAIRS_PER_SEARCH = 6e6, 3e6

Array = NDArray[Any]


def search_neighbors(
    crystal: Crystal,
    cutoff: float,
    max_neighbors: int,
    whole_cutoff: bool = False,
    max_pairs: float = MAX_PAIRS,
    pairs_per_search: float = PAIRS_PER_SEARCH,
) -> tuple[Array, Array, Array]:
    """Return at least the neighbors of each atom up to the shell of its `max_neighbors`-th.

    The search starts at the radius that holds twice `max_neighbors` at the density of the crystal.
    It grows, up to the cutoff, until every atom has its shell. The shells are those of a search of
    the whole cutoff, which takes several times longer.

    Args:
        crystal: The crystal.
        cutoff: Largest distance of neighbors, in Å.
        max_neighbors: Number of neighbors that each atom needs, unless the cutoff holds fewer.
        whole_cutoff: Return them in the order of pymatgen's `Structure.get_all_neighbors`, which
            depends on the radius that is searched.
        max_pairs: Number of pairs beyond which the crystal is refused.
        pairs_per_search: Number of pairs beyond which the search is split, to bound its memory.

    Returns:
        center, neighbor: Indices of the atoms of each pair, [n_pairs] int64.
        distance: [n_pairs] float64, in Å.

    Raises:
        StructureError: Two atoms have the same position, or the search would take minutes or many
            GiB.
    """
    n_atoms = len(crystal.atomic_number)
    volume_per_atom = abs(cell_volume(crystal.lattice)) / n_atoms
    if volume_per_atom < MIN_VOLUME_PER_ATOM:
        raise StructureError(
            f"there are {volume_per_atom:.1e} Å³ per atom, expected at least "
            f"{MIN_VOLUME_PER_ATOM} Å³; is the lattice in Å?"
        )
    if max(crystal.frac_coords.max(), -crystal.frac_coords.min()) > MAX_UNWRAPPED:
        crystal = crystal._replace(frac_coords=crystal.frac_coords % 1)
    radius = float(first_radius(volume_per_atom, cutoff, max_neighbors))
    bounds = (max_pairs, pairs_per_search)
    whole = _within(crystal, cutoff, *bounds) if whole_cutoff else None
    while True:
        radius = min(radius, cutoff)
        pairs = _within(crystal, radius, *bounds) if whole is None else _closer(whole, radius)
        center, neighbor, distance = pairs
        if len(distance) and distance.min() < MIN_DISTANCE:
            _refuse_overlap(crystal, center, neighbor, distance)
        if radius == cutoff:
            break
        n_inside = np.bincount(center[distance < radius - 2 * SHELL_TOLERANCE], minlength=n_atoms)
        if n_inside.min() >= max_neighbors:
            break
        radius *= 1.3
    return pairs


def first_radius(volume_per_atom: Any, cutoff: float, max_neighbors: int) -> Any:
    """Return the radius of the first search, within which all pairs are found.

    Args:
        volume_per_atom: Volume per atom, or an array of them, in Å³.
        cutoff: Largest distance of neighbors, in Å.
        max_neighbors: Number of neighbors that each atom needs.

    Returns:
        The radius that holds twice `max_neighbors` at this density, at most the cutoff.
    """
    radius = np.cbrt(volume_per_atom * 2 * max_neighbors * 3 / (4 * np.pi))
    return np.minimum(radius, cutoff)


def _refuse_overlap(crystal: Crystal, center: Array, neighbor: Array, distance: Array) -> None:
    closest = distance.argmin()
    sites = one_line(crystal.pair_name(int(center[closest]), int(neighbor[closest])))
    raise StructureError(f"{sites} lie on the same spot ({distance[closest]:.1e} Å apart)")


def _within(
    crystal: Crystal, radius: float, max_pairs: float, pairs_per_search: float
) -> tuple[Array, Array, Array]:
    """Return all pairs within a radius: periodic images of an atom, but not the atom itself."""
    cart_coords = np.ascontiguousarray(crystal.frac_coords @ crystal.lattice)
    lattice = np.ascontiguousarray(crystal.lattice)
    parts, first, n_pairs = [], 0, 0
    for centers in split_centers(crystal, cart_coords, radius, pairs_per_search):
        center, *rest = _pymatgen_search()(
            cart_coords,
            centers,
            r=radius,
            pbc=np.ones(3, dtype=np.int64),
            lattice=lattice,
            tol=1e-8,
        )
        parts.append((center + first, *rest))
        first, n_pairs = first + len(centers), n_pairs + len(center)
        if n_pairs > max_pairs:
            raise StructureError(
                f"more than {max_pairs:.0e} pairs of atoms lie within {radius:.3g} Å of each other"
            )
    center, neighbor, _, distance = (
        np.concatenate(column) if len(parts) > 1 else column[0]
        for column in zip(*parts, strict=True)
    )
    is_pair = (distance > 1e-8) | (center != neighbor)
    return center[is_pair], neighbor[is_pair], distance[is_pair]


def _closer(pairs: tuple[Array, Array, Array], radius: float) -> tuple[Array, Array, Array]:
    """Return the pairs within a radius, in the same order."""
    center, neighbor, distance = pairs
    is_close = distance <= radius
    return center[is_close], neighbor[is_close], distance[is_close]


def split_centers(
    crystal: Crystal, cart_coords: Array, radius: float, max_pairs: float = PAIRS_PER_SEARCH
) -> list[Array]:
    """Split the atoms into as few parts as keep the pairs of each part below a bound.

    Args:
        crystal: The crystal.
        cart_coords: Positions of its atoms, [n_atoms, 3], in Å.
        radius: Radius of the search, in Å.
        max_pairs: Largest number of pairs that each part has, by an upper estimate; a single
            atom may have more.

    Returns:
        Positions of the atoms of each part, in order.

    Raises:
        StructureError: The search would visit too many periodic images or boxes.
    """
    n_atoms, reach = len(cart_coords), max(radius, MIN_RADIUS)
    heights, extents = _cell_size(crystal.lattice.tolist())
    n_images, n_boxes = float(n_atoms), 1.0
    for height, extent in zip(heights, extents, strict=True):
        n_images *= 2 * reach / height + 2
        n_boxes *= 2 * MAX_UNWRAPPED * extent / reach + 3
    if n_boxes > _MAX_BOXES:
        # The atoms may lie close together.
        n_boxes = float(np.prod(np.ptp(cart_coords, axis=0) / reach + 3))
    if n_images > _MAX_IMAGES or n_boxes > _MAX_BOXES:
        cell = " x ".join(f"{height:.3g}" for height in heights)
        raise StructureError(
            f"a cell {cell} Å high with {n_atoms} sites takes {max(n_images, n_boxes):.0e} steps "
            f"to search {radius:.3g} Å around each; is the lattice in Å?"
        )
    if n_atoms * n_images <= max_pairs:
        return [cart_coords]
    n_neighbors = _max_neighbor_counts(crystal.frac_coords % 1, np.array(heights), reach)
    part = np.cumsum(n_neighbors) // max_pairs
    return np.split(cart_coords, np.flatnonzero(np.diff(part)) + 1)


def _cell_size(lattice: list[list[float]]) -> tuple[list[float], list[float]]:
    """Return the heights of a cell over its faces and its extents along x, y and z.

    Plain Python is faster than numpy for nine numbers.
    """
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattice
    faces = (
        (by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx),
        (cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax),
        (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx),
    )
    volume = abs(ax * faces[0][0] + ay * faces[0][1] + az * faces[0][2])
    heights = [volume / math.hypot(*face) for face in faces]
    extents = [
        abs(ax) + abs(bx) + abs(cx),
        abs(ay) + abs(by) + abs(cy),
        abs(az) + abs(bz) + abs(cz),
    ]
    return heights, extents


def _max_neighbor_counts(frac_coords: Array, heights: Array, radius: float) -> Array:
    """Return an upper bound on the neighbors of each atom, from atom counts in boxes: [n_atoms]."""
    # Boxes so wide that neighbors lie in the same or an adjacent one.
    n_boxes = np.clip(heights // radius, 1, 64).astype(int)
    box = tuple((frac_coords * n_boxes).astype(int).T % n_boxes[:, None])
    count = np.zeros(n_boxes)
    np.add.at(count, box, 1)
    for axis, n in enumerate(n_boxes):
        if n > 1:
            count = count + np.roll(count, 1, axis) + np.roll(count, -1, axis)
        else:
            count = count * (2 * np.ceil(radius / heights[axis]) + 1)
    return count[box]


@cache
def _pymatgen_search() -> Any:
    from pymatgen.optimization.neighbors import find_points_in_spheres

    return find_points_in_spheres
