from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.neighbors import search_neighbors, split_centers
from csgcnn.errors import StructureError

CUTOFF = 8.0
# So many neighbors that the whole cutoff is searched.
WHOLE = 10**7


def iron(lattice: object, *frac_coords: list[float]) -> Crystal:
    sites = np.array(frac_coords or [[0, 0, 0]], dtype=float)
    return Crystal(np.array(lattice, dtype=float), np.full(len(sites), 26, dtype=np.uint8), sites)


def distances(crystal: Crystal, max_neighbors: int = WHOLE, cutoff: float = CUTOFF) -> list[float]:
    return np.sort(search_neighbors(crystal, cutoff, max_neighbors)[2]).tolist()


def simple_cubic(length: float) -> list[float]:
    """Distances within the cutoff in a simple cubic lattice, in closed form."""
    n = int(CUTOFF / length) + 1
    points = length * np.linalg.norm(list(product(range(-n, n + 1), repeat=3)), axis=1)
    return np.sort(points[(points > 0) & (points <= CUTOFF)]).tolist()


@pytest.mark.parametrize("length", [0.81, 1.3, 2.5, 7.9, 8.1, 500.0])
def test_one_atom_in_a_cell_of_any_size(length: float) -> None:
    found = distances(iron(np.eye(3) * length))
    np.testing.assert_allclose(found, simple_cubic(length), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shear", [1, 7, 20])
def test_an_oblique_cell_is_the_same_lattice(shear: int) -> None:
    crystal = iron(2.5 * np.array([[1, 0, 0], [shear, 1, 0], [0, shear, 1]]))
    np.testing.assert_allclose(distances(crystal), simple_cubic(2.5), rtol=0, atol=1e-9)
    assert len(distances(crystal, max_neighbors=6)) >= 6


@pytest.mark.parametrize("shape", [(200, 1, 1), (30, 30, 1), (300, 300, 300)])
def test_atoms_far_from_the_cell_and_wide_cells(shape: tuple[int, int, int]) -> None:
    """Two atoms 2 Å apart are neighbors across the border of the cell and some cells away."""
    lattice = np.diag(np.array(shape) * 5.0)
    shift = np.array([2.0, 0, 0]) @ np.linalg.inv(lattice)
    near = iron(lattice, [0, 0, 0], shift)
    away = near._replace(
        frac_coords=near.frac_coords - shift / 2 + np.array([[1e5, -3, 7], [-4, 2, 1e5]])
    )
    np.testing.assert_allclose(distances(away), distances(near), rtol=0, atol=1e-5)
    assert distances(near)[:2] == pytest.approx([2, 2])


def test_a_split_search_finds_the_same() -> None:
    rng = np.random.default_rng(0)
    for heights in ([6, 7, 60], [90, 6, 6], [18, 19, 20]):
        grid = np.array(list(product(*(range(height // 3) for height in heights)))) * 3.0
        sites = (grid + rng.uniform(-0.5, 0.5, grid.shape)) / heights
        crystal = iron(np.diag(np.array(heights, dtype=float)), *sites.tolist())
        assert len(split_centers(crystal, sites @ crystal.lattice, CUTOFF, max_pairs=3000)) > 3
        whole, split = (
            search_neighbors(crystal, CUTOFF, WHOLE, pairs_per_search=n) for n in (1e9, 3000)
        )
        order, order_of_split = (
            np.lexsort((found[2], found[1], found[0])) for found in (whole, split)
        )
        for one, other in zip(whole, split, strict=True):
            np.testing.assert_allclose(other[order_of_split], one[order], rtol=0, atol=1e-12)


def in_a_corner() -> Crystal:
    """A thousand atoms within 8 Å of each other, in a cell of 40 Å."""
    return iron(np.eye(3) * 40, *(np.random.default_rng(0).random((1000, 3)) * 0.1).tolist())


def test_each_part_of_a_split_search_has_a_bounded_number_of_pairs() -> None:
    crystal = in_a_corner()
    cart_coords = crystal.frac_coords @ crystal.lattice
    parts = split_centers(crystal, cart_coords, CUTOFF, max_pairs=5e4)
    np.testing.assert_array_equal(np.concatenate(parts), cart_coords)
    assert len(parts) > 10
    for part in parts:
        distance = np.linalg.norm(part[:, None] - cart_coords, axis=2)
        assert (distance <= CUTOFF).sum() <= 5e4


def test_too_many_pairs_are_refused() -> None:
    with pytest.raises(StructureError, match=r"more than 1e\+05 pairs of atoms lie within"):
        search_neighbors(in_a_corner(), CUTOFF, WHOLE, max_pairs=1e5, pairs_per_search=5e4)


@pytest.mark.parametrize(
    ("crystal", "cutoff", "reason"),
    [
        (
            iron(np.eye(3) * 0.7),
            CUTOFF,
            r"3\.4e-01 Å³ per atom, expected at least 0\.5 Å³; is the lattice in Å\?",
        ),
        (
            iron([[0.01, 0, 0], [0, 10, 0], [0, 0, 10]]),
            150.0,
            r"a cell 0\.01 x 10 x 10 Å high with 1 sites takes",
        ),
        (
            iron([[2, 0, 0], [200, 2, 0], [0, 200, 2]]),
            CUTOFF,
            r"a cell 0\.0002 x 0\.02 x 2 Å high with 1 sites takes",
        ),
        (iron(np.eye(3) * 2), 1e3, r"takes 4e\+07 steps to search 337 Å around each"),
        (
            iron(np.eye(3) * 9000, [0, 0, 0], [0.5, 0.5, 0.5]),
            CUTOFF,
            r"9e\+03 x 9e\+03 x 9e\+03 Å high with 2 sites",
        ),
        (
            iron(np.eye(3) * 4, [0, 0, 0], [1, 0, 1e-4]),
            CUTOFF,
            r"sites 1 \(Fe\) and 2 \(Fe\) lie on the same spot \(4\.0e-04 Å",
        ),
    ],
    ids=["too dense", "too flat", "too oblique", "too far", "too wide", "clash"],
)
def test_a_search_that_takes_too_long_is_refused(
    crystal: Crystal, cutoff: float, reason: str
) -> None:
    with pytest.raises(StructureError, match=reason):
        search_neighbors(crystal, cutoff, WHOLE)


@pytest.mark.parametrize(
    "accepted",
    [
        lambda: distances(iron(np.eye(3) * 0.8)),
        lambda: distances(iron([[0.01, 0, 0], [0, 10, 0], [0, 0, 10]])),
        lambda: distances(iron(np.eye(3) * 9000, [0, 0, 0], [0.001, 0, 0]), cutoff=10),
        lambda: distances(iron(np.eye(3) * 4, [0, 0, 0], [1, 0, 1e-2])),
    ],
    ids=["dense", "flat", "wide", "close"],
)
def test_a_search_just_within_the_limits_is_done(accepted: Callable[[], list[float]]) -> None:
    assert accepted()
