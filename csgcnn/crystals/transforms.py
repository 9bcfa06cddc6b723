"""Other descriptions of the same crystal: what a prediction must not depend on."""

from collections.abc import Callable

import numpy as np

from csgcnn.crystals.structures import Crystal

Transform = Callable[[Crystal, np.random.Generator], Crystal]


def rotate(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Turn the crystal by a random rotation."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))  # uniform over the orthogonal matrices (Mezzadri 2007)
    return crystal._replace(lattice=crystal.lattice @ (q * np.sign(np.linalg.det(q))))


def translate(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Shift all atoms by one random vector."""
    return crystal._replace(frac_coords=crystal.frac_coords + rng.random(3))


def permute(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """List the sites in a random order."""
    order = rng.permutation(len(crystal.atomic_number))
    return crystal._replace(atomic_number=crystal.atomic_number[order], frac_coords=crystal.frac_coords[order])


def supercell(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Double the cell along a random axis."""
    axis = rng.integers(3)
    scale, shift = np.ones(3), np.zeros(3)
    scale[axis], shift[axis] = 2, 0.5
    half = crystal.frac_coords / scale
    return Crystal(
        lattice=crystal.lattice * scale[:, None],
        atomic_number=np.tile(crystal.atomic_number, 2),
        frac_coords=np.concatenate([half, half + shift]),
    )


SAME_CRYSTAL: dict[str, Transform] = {
    "rotation": rotate,
    "translation": translate,
    "site order": permute,
    "supercell": supercell,
}
