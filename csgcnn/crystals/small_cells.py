"""Neighbors in many small crystals at once, equal to those of pymatgen's search in each of them.

`find_points_in_spheres` of pymatgen takes 25 µs for five atoms, most of it for its buffers and
boxes. Here the same calls of numpy search all crystals. Sums and products are those of pymatgen
2026, so that distances have the same bits. Pairs are in the same order: by center, by box of the
neighbor, and the last image first within a box.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.neighbors import (
    MAX_UNWRAPPED,
    MIN_DISTANCE,
    MIN_RADIUS,
    MIN_VOLUME_PER_ATOM,
    SHELL_TOLERANCE,
    first_radius,
)
from csgcnn.crystals.segments import expand, order_of

# Å: tolerance of pymatgen's search.
_TOLERANCE = 1e-8
# Å: added to the radius in which images are listed, because distances there have rounding errors.
_SLACK = 1e-5
# Pairs of atoms and of neighbors in a crystal, above which pymatgen is faster, also if it searches
# the whole cutoff.
_MAX_SIZE, _MAX_SIZE_OF_WHOLE = 800, 2400
# The same of the crystals that are searched at once, whose arrays stay in the cache of a core.
_MAX_SIZE_AT_ONCE = 60_000
# Smallest height and largest extent of a cell, in radii of the search.
_MIN_HEIGHT, _MAX_EXTENT = 1 / 6, 15

Array = NDArray[Any]
# center and neighbor [n_pairs] int64, distance [n_pairs] float64 in Å
Pairs = tuple[Array, Array, Array]


class _Cells(NamedTuple):
    """Crystals side by side; the first axis of vectors is x, y, z or a, b, c."""

    n_sites: Array  # [n_crystals]
    first_site: Array  # [n_crystals]
    crystal: Array  # [n_sites], crystal of each site
    lattice: Array  # [3, 3, n_crystals], Å
    frac_coords: Array  # [3, n_sites], as they are given
    cart_coords: Array  # [3, n_sites], Å

    def take(self, rows: Array) -> "_Cells":
        """Return some of the crystals, [n_rows] in ascending order."""
        n_sites = self.n_sites[rows]
        sites, number = expand(n_sites)
        sites = self.first_site[rows][sites] + number
        return _Cells(
            n_sites,
            np.cumsum(n_sites) - n_sites,
            np.repeat(np.arange(len(rows)), n_sites),
            self.lattice.take(rows, 2),
            self.frac_coords.take(sites, 1),
            self.cart_coords.take(sites, 1),
        )


def search_small_cells(
    crystals: Sequence[Crystal], cutoff: float, max_neighbors: int, whole_cutoff: bool = False
) -> Iterator[Pairs | None]:
    """Yield what `search_neighbors` returns for each crystal, or None where it must be called.

    It must be called for a crystal that is large, has an unusual cell, or will be refused.

    Args:
        crystals: The crystals.
        cutoff: Largest distance of neighbors, in Å.
        max_neighbors: Number of neighbors that each atom needs, unless the cutoff holds fewer.
        whole_cutoff: Return the pairs in the order of a search of the whole cutoff.
    """
    if not crystals:
        return
    cells = _join_cells(crystals)
    volume = np.abs(_volume(cells.lattice)) / cells.n_sites
    radius = first_radius(volume, cutoff, max_neighbors)
    # The radius that pymatgen searches, which orders the pairs.
    searched = np.full_like(radius, cutoff) if whole_cutoff else radius
    largest = _MAX_SIZE_OF_WHOLE if whole_cutoff else _MAX_SIZE
    size = _size(cells, radius, searched)
    part = np.cumsum(np.where(size <= largest, size, 0)) // _MAX_SIZE_AT_ONCE
    for rows in np.split(np.arange(len(crystals)), np.flatnonzero(np.diff(part)) + 1):
        found: dict[int, Pairs] = {}
        rest = rows[size[rows] <= largest]
        while len(rest):
            some = cells.take(rest)
            pairs = _pairs_within(some, radius[rest], searched[rest], whole_cutoff)
            is_refused, is_done = _progress(some, pairs, radius[rest], max_neighbors)
            is_done |= radius[rest] == cutoff
            own = _split(some, pairs)
            found |= {int(rest[i]): own[i] for i in np.flatnonzero(is_done & ~is_refused)}
            rest = rest[~is_done & ~is_refused]
            # `searched` is `radius`, unless it is the cutoff.
            radius[rest] = np.minimum(1.3 * radius[rest], cutoff)
            rest = rest[_size(cells, radius, searched)[rest] <= largest]
        yield from map(found.get, rows.tolist())


def _join_cells(crystals: Sequence[Crystal]) -> _Cells:
    """Return crystals side by side."""
    n_sites = np.array([len(one.frac_coords) for one in crystals])
    if n_sites.tolist() != [len(one.atomic_number) for one in crystals]:
        raise ValueError("a crystal has other numbers of coordinates and atoms")
    lattices = np.concatenate([one.lattice for one in crystals]).reshape(-1, 3, 3)
    return _Cells(
        n_sites,
        np.cumsum(n_sites) - n_sites,
        np.repeat(np.arange(len(crystals)), n_sites),
        lattices.transpose(1, 2, 0).copy(),
        np.concatenate([one.frac_coords for one in crystals]).T.copy(),
        np.concatenate([one.frac_coords @ one.lattice for one in crystals]).T.copy(),
    )


def _pairs_within(cells: _Cells, radius: Array, searched: Array, whole_cutoff: bool) -> Pairs:
    """Return all pairs within a radius, with the sites numbered from crystal to crystal.

    Args:
        cells: The crystals.
        radius: [n_crystals], in Å.
        searched: Radius of the search whose order the pairs have, [n_crystals], in Å.
        whole_cutoff: Whether that is the whole cutoff, of which the closer pairs are kept.
    """
    frac_coords = _product(cells.cart_coords, _inverse(cells.lattice), cells.crystal)
    cell = np.floor(frac_coords)
    wrapped = frac_coords - cell
    in_cell = _product(wrapped, cells.lattice, cells.crystal)

    # Half of the pairs are searched: the images of b around a are those of a around b, reversed.
    end = (cells.first_site + cells.n_sites)[cells.crystal]
    first, number = expand(end - np.arange(len(end)))
    second = first + number
    shift = frac_coords.take(first, 1) - wrapped.take(second, 1)
    row, image = _lattice_points(cells, cells.crystal[first], shift, radius + _SLACK)
    first, second = first[row], second[row]
    other = np.flatnonzero(first != second)
    reverse = (cell.take(first, 1) + cell.take(second, 1) - image).take(other, 1)
    center = np.concatenate([first, second[other]])
    neighbor = np.concatenate([second, first[other]])
    image = np.concatenate([image, reverse], axis=1)

    crystal = cells.crystal[center]
    position = _product(image, cells.lattice, crystal)
    position += in_cell.take(neighbor, 1)
    x, y, z = (
        own - coords.take(center) for own, coords in zip(position, cells.cart_coords, strict=True)
    )
    squared = x * x + y * y + z * z
    distance = np.sqrt(squared)
    if whole_cutoff:
        is_pair = distance <= radius[crystal]
    else:
        is_pair = squared < (radius * radius + _TOLERANCE)[crystal]
    is_pair &= (distance > _TOLERANCE) | (center != neighbor)
    order = _order(cells, searched, center, neighbor, image, position)
    order = order[is_pair[order]]
    return center[order], neighbor[order], distance[order]


def _lattice_points(
    cells: _Cells, crystal: Array, shift: Array, radius: Array
) -> tuple[Array, Array]:
    """Return the lattice vectors that end within a radius, by the method of Fincke & Pohst (1985).

    With the Cholesky factor of the metric, the last coefficient is bounded by the radius, and each
    other one by what the coefficients after it leave of the radius.

    Args:
        cells: The crystals.
        crystal: Crystal of each sphere, [n_spheres].
        shift: Its center in units of the lattice vectors, [3, n_spheres].
        radius: [n_crystals], in Å.

    Returns:
        The sphere [n_points] and the coefficients [3, n_points] of each lattice vector.
    """
    vectors = cells.lattice.transpose(2, 0, 1)
    factor = np.linalg.cholesky(vectors @ vectors.transpose(0, 2, 1)).transpose(1, 2, 0)
    slope = factor / np.einsum("iin->in", factor)
    sphere, rest = np.arange(len(crystal)), (radius**2)[crystal]
    coefficients: dict[int, Array] = {}
    offsets: dict[int, Array] = {}
    for axis in (2, 1, 0):
        of_sphere, middle = crystal[sphere], shift[axis, sphere]
        for later, offset in offsets.items():
            middle = middle - offset * slope[later, axis].take(of_sphere)
        length = factor[axis, axis].take(of_sphere)
        half = np.sqrt(rest) / length
        lowest = np.ceil(middle - half)
        row, number = expand(np.maximum(np.floor(middle + half) - lowest + 1, 0).astype(np.int64))
        sphere = sphere[row]
        coefficients = {later: values[row] for later, values in coefficients.items()}
        coefficients[axis] = lowest[row] + number
        if axis:
            offsets = {later: values[row] for later, values in offsets.items()}
            offsets[axis] = coefficients[axis] - shift[axis, sphere]
            used = ((coefficients[axis] - middle[row]) * length[row]) ** 2
            rest = np.maximum(rest[row] - used, 0)
    return sphere, np.stack([coefficients[axis] for axis in range(3)])


def _order(
    cells: _Cells, box: Array, center: Array, neighbor: Array, image: Array, position: Array
) -> Array:
    """Return the order in which pymatgen lists pairs."""
    low = np.minimum.reduceat(cells.cart_coords, cells.first_site, axis=1) - box - _TOLERANCE
    crystal = cells.crystal[center]
    edge, boxes = box.take(crystal), []
    for own, lowest in zip(position, low, strict=True):
        index = own - lowest.take(crystal)
        index += _TOLERANCE
        index /= edge
        # The images listed beyond the radius may lie below the first box.
        boxes.append(np.maximum(np.floor(index, out=index), 0).astype(np.int64))
    from_last = [(own.max(initial=0) - own).astype(np.int64) for own in image]
    last_site = cells.first_site + cells.n_sites - 1
    return order_of(center, *boxes, *from_last, last_site[crystal] - neighbor)


def _product(vectors: Array, matrices: Array, crystal: Array) -> Array:
    """Return row vectors [3, n] times the matrices [3, 3, n_crystals], as pymatgen sums them."""
    product = np.empty((3, len(crystal)))
    for axis, column in enumerate(product):
        np.multiply(vectors[0], matrices[0, axis].take(crystal), out=column)
        for row in (1, 2):
            term = matrices[row, axis].take(crystal)
            term *= vectors[row]
            column += term
    return product


def _inverse(lattice: Array) -> Array:
    """Return the inverse matrices [3, 3, n_crystals], as pymatgen computes them."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattice
    rows = (
        (by * cz - bz * cy, az * cy - ay * cz, ay * bz - az * by),
        (bz * cx - bx * cz, ax * cz - az * cx, az * bx - ax * bz),
        (bx * cy - by * cx, ay * cx - ax * cy, ax * by - ay * bx),
    )
    return np.array(rows) * (1 / _volume(lattice))


def _volume(lattice: Array) -> Array:
    """Return the determinants [n_crystals] of lattices [3, 3, n_crystals] as `cell_volume` does."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattice
    return ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)


def _size(cells: _Cells, radius: Array, searched: Array) -> Array:
    """Return the number of pairs of atoms and neighbors; infinite for an unusual crystal."""
    volume = np.abs(_volume(cells.lattice))
    with np.errstate(divide="ignore", invalid="ignore"):
        height = 1 / np.sqrt((_inverse(cells.lattice) ** 2).sum(axis=0))
        n_pairs = cells.n_sites**2 * (1 + 4 / 3 * np.pi * radius**3 / volume)
    extent = np.abs(cells.lattice).sum(axis=0)
    farthest = np.maximum.reduceat(np.abs(cells.frac_coords).max(axis=0), cells.first_site)
    is_usual = (volume >= MIN_VOLUME_PER_ATOM * cells.n_sites) & (farthest <= MAX_UNWRAPPED)
    is_usual &= (height >= _MIN_HEIGHT * searched).all(axis=0) & (searched >= MIN_RADIUS)
    is_usual &= (extent <= _MAX_EXTENT * searched).all(axis=0)
    return np.where(is_usual, n_pairs, np.inf)


def _progress(
    cells: _Cells, pairs: Pairs, radius: Array, max_neighbors: int
) -> tuple[Array, Array]:
    """Return which crystals have overlapping atoms, and in which each atom has its neighbors."""
    center, _, distance = pairs
    overlapping = cells.crystal[center[distance < MIN_DISTANCE]]
    is_refused = np.bincount(overlapping, minlength=len(radius)) > 0
    is_inside = distance < (radius - 2 * SHELL_TOLERANCE)[cells.crystal[center]]
    n_inside = np.bincount(center[is_inside], minlength=len(cells.crystal))
    return is_refused, np.minimum.reduceat(n_inside, cells.first_site) >= max_neighbors


def _split(cells: _Cells, pairs: Pairs) -> list[Pairs]:
    """Return the pairs of each crystal, with its sites numbered from 0."""
    center, neighbor, distance = pairs
    crystal = cells.crystal[center]
    first_site = cells.first_site[crystal]
    center, neighbor = center - first_site, neighbor - first_site
    ends = np.cumsum(np.bincount(crystal, minlength=len(cells.n_sites))).tolist()
    return [
        (center[start:end], neighbor[start:end], distance[start:end])
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
