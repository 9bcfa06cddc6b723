"""Other descriptions of a crystal are other numbers for the same crystal."""

import numpy as np
import pytest

from csgcnn.crystals.graphs import GraphSettings, connect
from csgcnn.crystals.structures import Crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL


@pytest.mark.parametrize("name", SAME_CRYSTAL)
def test_the_description_changes_and_the_graph_does_not(name: str, real_crystals: dict[str, Crystal]) -> None:
    rng = np.random.default_rng(0)
    crystals = list(real_crystals.values())[::4]
    others = [SAME_CRYSTAL[name](crystal, rng) for crystal in crystals]
    assert any(
        before.lattice.shape != after.lattice.shape
        or not np.allclose(before.lattice, after.lattice)
        or before.frac_coords.shape != after.frac_coords.shape
        or not np.allclose(before.frac_coords, after.frac_coords)
        for before, after in zip(crystals, others, strict=True)
    )
    ours, theirs = connect(crystals, GraphSettings()), connect(others, GraphSettings())
    assert np.array_equal(ours.n_edges, theirs.n_edges)
    for i, (a, b) in enumerate(
        zip(
            np.split(ours.distance, ours.n_edges.cumsum()),
            np.split(theirs.distance, theirs.n_edges.cumsum()),
            strict=True,
        )
    ):
        np.testing.assert_allclose(np.sort(a), np.sort(b), atol=1e-4, err_msg=str(i))


def test_a_supercell_is_twice_the_crystal(real_crystals: dict[str, Crystal]) -> None:
    rng = np.random.default_rng(0)
    for crystal in list(real_crystals.values())[::10]:
        double = SAME_CRYSTAL["supercell"](crystal, rng)
        volume, twice = (abs(np.linalg.det(c.lattice)) for c in (crystal, double))
        assert twice == pytest.approx(2 * volume)
        assert len(double.atomic_number) == 2 * len(crystal.atomic_number)


def test_a_rotation_keeps_lengths_and_handedness(real_crystals: dict[str, Crystal]) -> None:
    rng = np.random.default_rng(1)
    for crystal in list(real_crystals.values())[::10]:
        turned = SAME_CRYSTAL["rotation"](crystal, rng)
        np.testing.assert_allclose(turned.lattice @ turned.lattice.T, crystal.lattice @ crystal.lattice.T, atol=1e-9)
        assert np.linalg.det(turned.lattice) == pytest.approx(np.linalg.det(crystal.lattice))
