"""The neighbors of every atom of a crystal, found by pymatgen; a search that takes minutes or many GiB is refused."""

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal
from csgcnn.errors import StructureError

SHELL_TOLERANCE = 0.01  # Å: distances closer than this belong to one shell of neighbors
CLASH = 0.01  # Å: two atoms closer than this are one atom written twice

_DENSEST = 0.5  # Å³ per atom: half of what any pressure leaves
_FARTHEST = 2.0  # fractional coordinate of an unwrapped atom; wrapped, it needs fewer images
_MOST_IMAGES = 5e6  # periodic images of atoms in one search: half a second, half a GiB
_MOST_BOXES = 2e6  # boxes of the size of the search radius, likewise
_MOST_PAIRS, _SHARE = (
    6e6,
    3e6,
)  # of atoms within the search radius, in all and in one search: half a GiB

Array = NDArray[Any]


def neighbors(
    crystal: Crystal,
    cutoff: float,
    max_neighbors: int,
    everyone: bool = False,
) -> tuple[Array, Array, Array]:
    """Find, within the cutoff, at least every neighbor of each atom up to the shell of its `max_neighbors`-th.

    `everyone`: all within the cutoff, in the order in which `Structure.get_all_neighbors` lists them.

    Returns center, neighbor [n] int64, distance [n] float64, in Å.

    The search starts at the radius that should hold twice `max_neighbors` at the crystal's density and grows, up to the
    cutoff, until every atom has its shell: the same result as searching the whole cutoff, for a fraction of the work.

    Raises:
        StructureError: two atoms lie on the same spot, or the search would take minutes or many GiB.
    """
    n_atoms = len(crystal.atomic_number)
    volume_per_atom = abs(np.linalg.det(crystal.lattice)) / n_atoms
    if volume_per_atom < _DENSEST:
        raise StructureError(
            f"there are {volume_per_atom:.1e} Å³ per atom, expected at least {_DENSEST} Å³; is the lattice in Å?"
        )
    if max(crystal.frac_coords.max(), -crystal.frac_coords.min()) > _FARTHEST:
        crystal = crystal._replace(frac_coords=crystal.frac_coords % 1)
    radius = (
        cutoff if everyone else (volume_per_atom * 2 * max_neighbors * 3 / (4 * np.pi)) ** (1 / 3)
    )
    while True:
        radius = min(radius, cutoff)
        center, neighbor, distance = _within(crystal, radius)
        if len(distance) and distance.min() < CLASH:
            clash = distance.argmin()
            pair = center[clash] + 1, neighbor[clash] + 1
            apart = f"({distance[clash]:.1e} Å apart)"
            raise StructureError(f"sites {min(pair)} and {max(pair)} lie on the same spot {apart}")
        if radius == cutoff:
            break
        safe = np.bincount(center[distance < radius - 2 * SHELL_TOLERANCE], minlength=n_atoms)
        if safe.min() >= max_neighbors:
            break
        radius *= 1.3
    return center, neighbor, distance


def _within(crystal: Crystal, radius: float) -> tuple[Array, Array, Array]:
    """All periodic neighbors within a radius, the atom itself (not its images) left out."""
    cart_coords = np.ascontiguousarray(crystal.frac_coords @ crystal.lattice)
    lattice = np.ascontiguousarray(crystal.lattice)
    parts, first, n_pairs = [], 0, 0
    for centers in _shares(crystal, cart_coords, radius):
        center, *rest = _search()(
            cart_coords,
            centers,
            r=radius,
            pbc=np.ones(3, dtype=np.int64),
            lattice=lattice,
            tol=1e-8,
        )
        parts.append((center + first, *rest))
        first, n_pairs = first + len(centers), n_pairs + len(center)
        if n_pairs > _MOST_PAIRS:
            raise StructureError(
                f"more than {_MOST_PAIRS:.0e} pairs of atoms lie within {radius:.3g} Å of each other"
            )
    center, neighbor, image, distance = (
        np.concatenate(column) if len(parts) > 1 else column[0]
        for column in zip(*parts, strict=True)
    )
    other = (distance > 1e-8) | (center != neighbor)
    center, neighbor, distance = center[other], neighbor[other], distance[other]
    return center, neighbor, distance


def _shares(crystal: Crystal, cart_coords: Array, radius: float) -> list[Array]:
    """The atoms [n_atoms, 3] in as many parts as are needed for each to have about `_SHARE` neighbors at most.

    Raises:
        StructureError: the search would visit too many images or boxes.
    """
    n_atoms, reach = len(cart_coords), max(radius, 1.0)  # pymatgen searches 1 Å at least
    heights, extents = _size(crystal.lattice.tolist())
    n_images, n_boxes = float(n_atoms), 1.0
    for height, extent in zip(heights, extents, strict=True):
        n_images *= 2 * reach / height + 2
        n_boxes *= 2 * _FARTHEST * extent / reach + 3
    if n_boxes > _MOST_BOXES:  # the atoms may lie close together
        n_boxes = float(np.prod(np.ptp(cart_coords, axis=0) / reach + 3))
    if n_images > _MOST_IMAGES or n_boxes > _MOST_BOXES:
        cell = " x ".join(f"{height:.3g}" for height in heights)
        raise StructureError(
            f"a cell {cell} Å high with {n_atoms} sites takes {max(n_images, n_boxes):.0e} steps to search "
            f"{radius:.3g} Å around each; is the lattice in Å?"
        )
    if n_atoms * n_images <= _SHARE:
        return [cart_coords]
    share = np.cumsum(_most_neighbors(crystal.frac_coords % 1, np.array(heights), reach)) // _SHARE
    return np.split(cart_coords, np.flatnonzero(np.diff(share)) + 1)


def _size(lattice: list[list[float]]) -> tuple[list[float], list[float]]:
    """Heights of a cell over its faces, and its extents along x, y and z; for nine floats, faster than numpy."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattice
    faces = (
        (by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx),
        (cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax),
        (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx),
    )
    volume = abs(ax * faces[0][0] + ay * faces[0][1] + az * faces[0][2])
    heights = [volume / math.hypot(*face) for face in faces]
    return heights, [
        abs(ax) + abs(bx) + abs(cx),
        abs(ay) + abs(by) + abs(cy),
        abs(az) + abs(bz) + abs(cz),
    ]


def _most_neighbors(frac_coords: Array, heights: Array, radius: float) -> Array:
    """How many neighbors each atom has at most, from the number of atoms in boxes: [n_atoms]."""
    n_boxes = np.clip(heights // radius, 1, 64).astype(
        int
    )  # so wide that neighbors lie in the same or the next
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
def _search() -> Any:
    from pymatgen.optimization.neighbors import find_points_in_spheres

    return find_points_in_spheres
