"""Transforms that describe the same crystal in another way, which must not change predictions.

A transform takes a crystal and a random generator, and returns another description of the crystal,
or None if it has none.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal

Transform = Callable[[Crystal, np.random.Generator], Crystal | None]

# Å: precision of coordinates in structure files.
FILE_PRECISION = 1e-6


def _rotate(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Rotate the crystal at random."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    # Uniform over the orthogonal matrices (Mezzadri, Not. AMS 54, 592, 2007).
    q = q * np.sign(np.diag(r))
    return crystal._replace(lattice=crystal.lattice @ (q * np.sign(np.linalg.det(q))))


def _translate(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Shift all atoms by one random vector."""
    return crystal._replace(frac_coords=crystal.frac_coords + rng.random(3))


def _wrap(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Replace each atom by one of its periodic images, up to a thousand cells away."""
    cells = rng.integers(-1000, 1001, crystal.frac_coords.shape)
    return crystal._replace(frac_coords=crystal.frac_coords + cells)


def _permute(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Shuffle the sites."""
    order = rng.permutation(len(crystal.atomic_number))
    return crystal._replace(
        atomic_number=crystal.atomic_number[order], frac_coords=crystal.frac_coords[order]
    )


def _shake(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Move every atom by up to 1e-6 Å along x, y and z, the precision of a structure file."""
    noise = rng.uniform(-FILE_PRECISION, FILE_PRECISION, crystal.frac_coords.shape)
    shift = noise @ np.linalg.inv(crystal.lattice)
    return crystal._replace(frac_coords=crystal.frac_coords + shift)


def _double(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Double the cell along a random axis."""
    return _supercell(crystal, rng.permutation([2, 1, 1]).tolist())


def _double_all(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Double the cell along all three axes."""
    return _supercell(crystal, (2, 2, 2))


def _choose_cell(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Choose other lattice vectors by a random integer matrix of determinant 1 or -1."""
    identity = np.eye(3, dtype=int)
    lower, upper = (np.tril(rng.integers(-1, 2, (3, 3)), -1) + identity for _ in range(2))
    return _in_basis(crystal, rng.permutation(lower @ upper.T))


def _niggli(crystal: Crystal, rng: np.random.Generator) -> Crystal | None:
    """Choose the Niggli-reduced lattice vectors; None if spglib finds none."""
    import spglib

    reduced: Any = None
    # The type of the error depends on the version of spglib; older ones return None.
    with suppress(Exception):
        reduced = spglib.niggli_reduce(crystal.lattice)
    if reduced is None:
        return None
    return _in_basis(crystal, np.round(reduced @ np.linalg.inv(crystal.lattice)))


def _primitive(crystal: Crystal, rng: np.random.Generator) -> Crystal | None:
    """Choose a primitive cell; None if spglib finds none."""
    return _standard_cell(crystal, to_primitive=True)


def _conventional(crystal: Crystal, rng: np.random.Generator) -> Crystal | None:
    """Choose the conventional cell; None if spglib finds none."""
    return _standard_cell(crystal, to_primitive=False)


def _supercell(crystal: Crystal, shape: Sequence[int]) -> Crystal:
    cells = np.array(list(np.ndindex(*shape)))
    return Crystal(
        lattice=crystal.lattice * np.array(shape)[:, None],
        atomic_number=np.repeat(crystal.atomic_number, len(cells)),
        frac_coords=((crystal.frac_coords[:, None] + cells) / shape).reshape(-1, 3),
    )


def _in_basis(crystal: Crystal, basis: NDArray[Any]) -> Crystal:
    """Return the atoms with the lattice vectors basis @ lattice, for integers of determinant ±1."""
    return crystal._replace(
        lattice=basis @ crystal.lattice,
        frac_coords=crystal.frac_coords @ np.round(np.linalg.inv(basis)),
    )


def _standard_cell(crystal: Crystal, to_primitive: bool) -> Crystal | None:
    """Return a standard cell of spglib; its atoms move by less than 1e-6 Å."""
    import spglib

    # spglib needs a right-handed cell; inverting all vectors gives one.
    sign = np.sign(np.linalg.det(crystal.lattice))
    cell: Any = (sign * crystal.lattice, sign * crystal.frac_coords, crystal.atomic_number)
    found: Any = None
    # As in `_niggli`.
    with suppress(Exception):
        found = spglib.standardize_cell(
            cell, to_primitive, no_idealize=True, symprec=FILE_PRECISION
        )
    if found is None:
        return None
    lattice, frac_coords, atomic_number = found
    return Crystal(lattice, atomic_number.astype(np.uint8), frac_coords)


# All transforms by name.
SAME_CRYSTAL: dict[str, Transform] = {
    "rotation": _rotate,
    "translation": _translate,
    "periodic wrap": _wrap,
    "site order": _permute,
    "2x1x1 supercell": _double,
    "2x2x2 supercell": _double_all,
    "another cell": _choose_cell,
    "Niggli cell": _niggli,
    "primitive cell": _primitive,
    "conventional cell": _conventional,
    "noise of 1e-6 Å": _shake,
}
