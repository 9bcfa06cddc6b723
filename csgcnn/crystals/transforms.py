"""Other descriptions of the same crystal: what a prediction must not depend on."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal

Transform = Callable[[Crystal, np.random.Generator], Crystal | None]

FILE_PRECISION = 1e-6  # Å: what structure files round coordinates to


def rotate(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Turn the crystal by a random rotation."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))  # uniform over the orthogonal matrices (Mezzadri 2007)
    return crystal._replace(lattice=crystal.lattice @ (q * np.sign(np.linalg.det(q))))


def translate(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Shift all atoms by one random vector."""
    return crystal._replace(frac_coords=crystal.frac_coords + rng.random(3))


def wrap(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Give each atom by another of its periodic images, up to a thousand cells away."""
    return crystal._replace(
        frac_coords=crystal.frac_coords + rng.integers(-1000, 1001, crystal.frac_coords.shape)
    )


def permute(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """List the sites in a random order."""
    order = rng.permutation(len(crystal.atomic_number))
    return crystal._replace(
        atomic_number=crystal.atomic_number[order], frac_coords=crystal.frac_coords[order]
    )


def shake(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Move every atom by up to 1e-6 Å along x, y and z: the same crystal within the precision of a file."""
    noise = rng.uniform(-FILE_PRECISION, FILE_PRECISION, crystal.frac_coords.shape)
    return crystal._replace(
        frac_coords=crystal.frac_coords + noise @ np.linalg.inv(crystal.lattice)
    )


def double(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Double the cell along a random axis."""
    return _supercell(crystal, rng.permutation([2, 1, 1]).tolist())


def double_all(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Double the cell along all three axes."""
    return _supercell(crystal, (2, 2, 2))


def choose_cell(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Take other lattice vectors of the same lattice: a random integer matrix of determinant 1 or -1."""
    one = np.eye(3, dtype=int)
    lower, upper = (np.tril(rng.integers(-1, 2, (3, 3)), -1) + one for _ in range(2))
    return _in_basis(crystal, rng.permutation(lower @ upper.T))


def niggli(crystal: Crystal, rng: np.random.Generator) -> Crystal | None:
    """Take the Niggli-reduced vectors of the same lattice; None where spglib finds none."""
    import spglib

    reduced: Any = None
    with suppress(Exception):  # which kind depends on the version of spglib; older ones answer None
        reduced = spglib.niggli_reduce(crystal.lattice)
    return (
        None
        if reduced is None
        else _in_basis(crystal, np.round(reduced @ np.linalg.inv(crystal.lattice)))
    )


def primitive(crystal: Crystal, rng: np.random.Generator) -> Crystal | None:
    """Take a primitive cell; None where spglib finds none."""
    return _standard_cell(crystal, to_primitive=True)


def conventional(crystal: Crystal, rng: np.random.Generator) -> Crystal | None:
    """Take the conventional cell; None where spglib finds none."""
    return _standard_cell(crystal, to_primitive=False)


def _supercell(crystal: Crystal, times: Sequence[int]) -> Crystal:
    cells = np.array(list(np.ndindex(*times)))
    return Crystal(
        lattice=crystal.lattice * np.array(times)[:, None],
        atomic_number=np.repeat(crystal.atomic_number, len(cells)),
        frac_coords=((crystal.frac_coords[:, None] + cells) / times).reshape(-1, 3),
    )


def _in_basis(crystal: Crystal, basis: NDArray[Any]) -> Crystal:
    """The same atoms on the lattice vectors `basis` @ lattice; basis [3, 3] of integers, determinant 1 or -1."""
    return crystal._replace(
        lattice=basis @ crystal.lattice,
        frac_coords=crystal.frac_coords @ np.round(np.linalg.inv(basis)),
    )


def _standard_cell(crystal: Crystal, to_primitive: bool) -> Crystal | None:
    """One of spglib's standard cells, its atoms where they were, to less than 1e-6 Å."""
    import spglib

    hand = np.sign(
        np.linalg.det(crystal.lattice)
    )  # spglib wants a right-handed cell: turning all vectors gives one
    cell: Any = (hand * crystal.lattice, hand * crystal.frac_coords, crystal.atomic_number)
    found: Any = None
    with suppress(Exception):  # as in `niggli`
        found = spglib.standardize_cell(
            cell, to_primitive, no_idealize=True, symprec=FILE_PRECISION
        )
    if found is None:
        return None
    lattice, frac_coords, atomic_number = found
    return Crystal(lattice, atomic_number.astype(np.uint8), frac_coords)


SAME_CRYSTAL: dict[str, Transform] = {
    "rotation": rotate,
    "translation": translate,
    "periodic wrap": wrap,
    "site order": permute,
    "2x1x1 supercell": double,
    "2x2x2 supercell": double_all,
    "another cell": choose_cell,
    "Niggli cell": niggli,
    "primitive cell": primitive,
    "conventional cell": conventional,
    "noise of 1e-6 Å": shake,
}
