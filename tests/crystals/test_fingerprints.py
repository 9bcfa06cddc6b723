"""Fingerprints recognize a crystal in any description, and no other crystal."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.fingerprints import N_HASHES
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.transforms import SAME_CRYSTAL

SETTINGS = {
    "default": GraphSettings(),
    "full": GraphSettings(compress=False),
    "truncate": GraphSettings(shells="truncate", compress=False),
    "short cutoff": GraphSettings(cutoff=4.0),
}


def fingerprints(crystals: Sequence[Crystal], name: str = "default") -> NDArray[np.uint64]:
    return connect(crystals, SETTINGS[name]).fingerprint


def moved(crystal: Crystal, vectors: NDArray[np.float64]) -> Crystal:
    """Return the crystal with its atoms moved by vectors [n_atoms, 3] in Å."""
    shift = vectors @ np.linalg.inv(crystal.lattice)
    return crystal._replace(frac_coords=crystal.frac_coords + shift)


@pytest.fixture(scope="module")
def crystals(real_crystals: dict[str, Crystal]) -> list[Crystal]:
    return [crystal for crystal in real_crystals.values() if len(crystal.atomic_number) <= 20]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("transform", SAME_CRYSTAL)
def test_another_description_has_the_same_fingerprint(
    crystals: list[Crystal], transform: str, name: str
) -> None:
    rng, some = np.random.default_rng(0), crystals[::6]
    changed = [SAME_CRYSTAL[transform](crystal, rng) for crystal in some]
    assert None not in changed
    own, found = fingerprints(some, name), fingerprints(changed, name)  # type: ignore[arg-type]
    assert own.shape == (len(some), N_HASHES)
    assert (own == found).any(axis=1).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.permutations(sorted(SAME_CRYSTAL)))
def test_several_changes_of_the_description(
    real_crystals: dict[str, Crystal], seed: int, steps: list[str]
) -> None:
    rng = np.random.default_rng(seed)
    crystal = list(real_crystals.values())[seed % len(real_crystals)]
    changed = crystal
    for step in steps[:4]:
        changed = SAME_CRYSTAL[step](changed, rng) or changed
        if len(changed.atomic_number) > 200:
            break
    own, found = fingerprints([crystal]), fingerprints([changed])
    assert (own == found).any()


@pytest.mark.parametrize("name", ["default", "truncate"])
def test_positions_rounded_to_five_digits(crystals: list[Crystal], name: str) -> None:
    rng = np.random.default_rng(1)
    noisy = [moved(c, rng.normal(0, 1e-4 / 3**0.5, c.frac_coords.shape)) for c in crystals]
    rounded = [
        Crystal(c.lattice.round(5), c.atomic_number, c.frac_coords.round(5)) for c in crystals
    ]
    own = fingerprints(crystals, name)
    for changed in (noisy, rounded):
        assert (fingerprints(changed, name) == own).any(axis=1).all()


@pytest.mark.parametrize("name", ["default", "truncate"])
def test_other_crystals_have_other_fingerprints(crystals: list[Crystal], name: str) -> None:
    own, rng = fingerprints(crystals, name), np.random.default_rng(2)
    for column in own.T:
        assert len(np.unique(column)) == len(crystals)
    several = [c for c in crystals if len(c.atomic_number) > 2]
    stretched = [c._replace(lattice=1.002 * c.lattice) for c in several]
    assert not (fingerprints(stretched, name) == fingerprints(several, name)).any()
    one_moved = []
    for crystal in several:
        vectors, direction = np.zeros(crystal.frac_coords.shape), rng.standard_normal(3)
        vectors[rng.integers(len(vectors))] = 0.05 * direction / np.linalg.norm(direction)
        one_moved.append(moved(crystal, vectors))
    same = (fingerprints(one_moved, name) == fingerprints(several, name)).any(axis=1)
    assert same.mean() <= 0.02


@pytest.mark.parametrize("name", ["default", "truncate"])
def test_exchanged_elements_give_another_fingerprint(crystals: list[Crystal], name: str) -> None:
    exchanged = []
    # In small cells, as of NaCl or NaLi2Sb, exchanging elements may give the same crystal.
    ternary = [
        c for c in crystals if len(c.atomic_number) > 4 and len(set(c.atomic_number.tolist())) > 2
    ]
    for crystal in ternary:
        atomic_number = crystal.atomic_number.copy()
        first, last = 0, int(np.flatnonzero(atomic_number != atomic_number[0])[-1])
        atomic_number[[first, last]] = atomic_number[[last, first]]
        exchanged.append(crystal._replace(atomic_number=atomic_number))
    assert not (fingerprints(exchanged, name) == fingerprints(ternary, name)).any()


def test_orderings_of_elements_on_the_same_positions_differ() -> None:
    """All twelve nearest neighbors of an fcc metal are equally distant."""
    lattice = np.diag([4.0, 4.0, 8.0])
    fcc = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.25], [0, 0.5, 0.25]])
    positions = np.concatenate([fcc, fcc + np.array([0, 0, 0.5])])
    orderings = ([29, 29, 79, 79, 29, 29, 79, 79], [29, 29, 79, 79, 79, 79, 29, 29])
    layers = [Crystal(lattice, np.array(z, dtype=np.uint8), positions) for z in orderings]
    for name in ("default", "truncate"):
        assert not np.equal(*fingerprints(layers, name)).any()


def test_zincblende_and_wurtzite_differ() -> None:
    zinc, sulfur, bond = 30, 16, 2.34
    a = bond * np.sqrt(8 / 3)
    fcc = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * a * np.sqrt(2)
    zincblende = Crystal(
        fcc, np.array([zinc, sulfur], dtype=np.uint8), np.array([[0.0] * 3, [0.25] * 3])
    )
    hexagonal = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, a * np.sqrt(8 / 3)]])
    sites = np.array([[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5]])
    wurtzite = Crystal(
        hexagonal,
        np.array([zinc, zinc, sulfur, sulfur], dtype=np.uint8),
        np.concatenate([sites, sites + np.array([0, 0, 3 / 8])]),
    )
    both = connect([zincblende, wurtzite], GraphSettings())
    np.testing.assert_array_equal(both.n_edges[0], both.n_edges[1])
    assert not np.equal(*both.fingerprint).any()


def test_a_fingerprint_does_not_depend_on_the_other_crystals(crystals: list[Crystal]) -> None:
    alone = [fingerprints([crystal])[0] for crystal in crystals[::5]]
    assert np.array_equal(alone, fingerprints(crystals)[::5])
