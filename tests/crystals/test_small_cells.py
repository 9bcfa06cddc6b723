"""Many small crystals searched at once, against pymatgen's search of each."""

from collections.abc import Sequence

import numpy as np
import pytest

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.neighbors import search_neighbors
from csgcnn.crystals.small_cells import search_small_cells

# cutoff, max_neighbors
SEARCHES = [(8.0, 12), (4.5, 3), (6.0, 40), (1.2, 12)]


def unusual(crystal: Crystal, rng: np.random.Generator) -> list[Crystal]:
    """Return a crystal sparse, skewed, left-handed, with atoms outside the cell, and displaced."""
    lattice, coords = crystal.lattice, crystal.frac_coords
    shear = np.eye(3)
    shear[1, 0], shear[2, 1] = rng.integers(-2, 3, 2)
    return [
        crystal._replace(lattice=lattice * 2.5),
        crystal._replace(lattice=shear @ lattice),
        crystal._replace(lattice=lattice[::-1].copy()),
        crystal._replace(frac_coords=coords + rng.integers(-1, 2, coords.shape)),
        crystal._replace(frac_coords=coords + rng.normal(scale=0.01, size=coords.shape)),
    ]


def searched_at_once(crystals: Sequence[Crystal], *search: float, whole_cutoff: bool) -> int:
    """Compare all pairs, their order and bits, and return how many crystals were searched."""
    n_found = 0
    found = list(search_small_cells(crystals, *search, whole_cutoff))  # type: ignore[arg-type]
    for crystal, pairs in zip(crystals, found, strict=True):
        if pairs is not None:
            expected = search_neighbors(crystal, *search, whole_cutoff)  # type: ignore[arg-type]
            for one, other in zip(pairs, expected, strict=True):
                np.testing.assert_array_equal(one, other, strict=True)
            n_found += 1
    return n_found


@pytest.mark.parametrize("whole_cutoff", [False, True])
@pytest.mark.parametrize("search", SEARCHES)
def test_pairs_order_and_bits_are_those_of_one_search_per_crystal(
    real_crystals: dict[str, Crystal], search: tuple[float, int], whole_cutoff: bool
) -> None:
    rng = np.random.default_rng(0)
    real = list(real_crystals.values())[::4]
    crystals = [*real, *(other for one in real for other in unusual(one, rng))]
    assert searched_at_once(crystals, *search, whole_cutoff=whole_cutoff) > len(crystals) / 3


def test_special_crystals_are_left_to_a_search_of_their_own() -> None:
    iron = Crystal(np.eye(3) * 2.8, np.array([26], np.uint8), np.zeros((1, 3)))
    special = {
        "two atoms on one position": iron._replace(
            atomic_number=np.array([26, 26], np.uint8), frac_coords=np.array([[0.0] * 3, [1, 0, 0]])
        ),
        "many atoms": iron._replace(
            lattice=np.eye(3) * 20,
            atomic_number=np.full(300, 26, np.uint8),
            frac_coords=np.random.default_rng(0).random((300, 3)),
        ),
        "far outside the cell": iron._replace(frac_coords=np.full((1, 3), 7.0)),
        "dense": iron._replace(lattice=np.eye(3) * 0.5),
        "flat": iron._replace(lattice=np.diag([0.05, 30, 30])),
        "long": iron._replace(lattice=np.diag([2000.0, 3, 3])),
        "singular": iron._replace(lattice=np.ones((3, 3))),
        "not finite": iron._replace(frac_coords=np.full((1, 3), np.nan)),
    }
    crystals = [one for other in special.values() for one in (iron, other)]
    found = list(search_small_cells(crystals, 8.0, 12))
    assert [pairs is None for pairs in found] == [False, True] * len(special)
    assert list(search_small_cells([], 8.0, 12)) == []
