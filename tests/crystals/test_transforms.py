"""Transforms change the numbers that describe a crystal, and not the crystal."""

import numpy as np
import pytest
import spglib

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.transforms import SAME_CRYSTAL

IN_PLACE = [name for name in SAME_CRYSTAL if name not in ("rotation", "translation")]
CELLS = ("primitive cell", "conventional cell")


def volume(crystal: Crystal) -> float:
    return abs(np.linalg.det(crystal.lattice))


def largest_move(before: Crystal, after: Crystal) -> float:
    """Largest distance (Å) of an atom from the nearest atom of its element before."""
    frac_coords = after.frac_coords @ after.lattice @ np.linalg.inv(before.lattice)
    offset = frac_coords[:, None] - before.frac_coords
    distance = np.linalg.norm((offset - np.round(offset)) @ before.lattice, axis=2)
    distance[after.atomic_number[:, None] != before.atomic_number] = np.inf
    return distance.min(axis=1).max()


@pytest.mark.parametrize("name", SAME_CRYSTAL)
def test_the_description_changes_and_the_graph_does_not(
    name: str, real_crystals: dict[str, Crystal]
) -> None:
    rng = np.random.default_rng(0)
    crystals = list(real_crystals.values())[::4]
    others = [SAME_CRYSTAL[name](crystal, rng) for crystal in crystals]
    assert any(
        before.lattice.shape != after.lattice.shape
        or not np.allclose(before.lattice, after.lattice)
        or before.frac_coords.shape != after.frac_coords.shape
        or not np.allclose(before.frac_coords, after.frac_coords, rtol=0, atol=1e-9)
        for before, after in zip(crystals, others, strict=True)
    )
    before, after = connect(crystals, GraphSettings()), connect(others, GraphSettings())
    assert np.array_equal(before.n_edges, after.n_edges)
    for i, (a, b) in enumerate(
        zip(
            np.split(before.distance, before.n_edges.cumsum()),
            np.split(after.distance, after.n_edges.cumsum()),
            strict=True,
        )
    ):
        np.testing.assert_allclose(np.sort(a), np.sort(b), atol=1e-4, err_msg=str(i))


@pytest.mark.parametrize("name", IN_PLACE)
def test_no_atom_moves(name: str, real_crystals: dict[str, Crystal]) -> None:
    rng = np.random.default_rng(0)
    tolerance = 2e-6 if name.startswith("noise") else 1e-9
    for id_, before in list(real_crystals.items())[::2]:
        after = SAME_CRYSTAL[name](before, rng)
        n_cells = volume(after) / volume(before)
        assert len(after.atomic_number) == pytest.approx(
            n_cells * len(before.atomic_number), rel=1e-9
        ), id_
        assert largest_move(before, after) < tolerance, id_
        assert largest_move(after, before) < tolerance, id_


@pytest.mark.parametrize(
    ("name", "n_cells"), [("2x1x1 supercell", 2), ("2x2x2 supercell", 8), ("another cell", 1)]
)
def test_the_size_of_other_cells(
    name: str, n_cells: int, real_crystals: dict[str, Crystal]
) -> None:
    rng = np.random.default_rng(0)
    for crystal in list(real_crystals.values())[::10]:
        assert volume(SAME_CRYSTAL[name](crystal, rng)) == pytest.approx(n_cells * volume(crystal))


def test_a_supercell_has_the_primitive_cell_of_its_cell(
    real_crystals: dict[str, Crystal],
) -> None:
    rng = np.random.default_rng(0)
    for crystal in list(real_crystals.values())[::10]:
        large = SAME_CRYSTAL["2x2x2 supercell"](crystal, rng)
        sizes = [
            len(SAME_CRYSTAL["primitive cell"](each, rng).atomic_number)
            for each in (crystal, large)
        ]
        assert sizes[0] == sizes[1] <= len(crystal.atomic_number)


@pytest.mark.parametrize(
    ("name", "n_conventional", "n_primitive"), [("fcc", 4, 1), ("bcc", 2, 1), ("diamond", 8, 2)]
)
def test_cells_of_textbook_crystals(
    name: str, n_conventional: int, n_primitive: int, ideal_crystals: dict[str, Crystal]
) -> None:
    rng = np.random.default_rng(0)
    conventional = SAME_CRYSTAL["conventional cell"](ideal_crystals[name], rng)
    primitive = SAME_CRYSTAL["primitive cell"](conventional, rng)
    assert [len(cell.atomic_number) for cell in (conventional, primitive)] == [
        n_conventional,
        n_primitive,
    ]


@pytest.mark.parametrize("name", [*CELLS, "Niggli cell"])
def test_a_left_handed_cell_is_not_turned_into_its_mirror_image(
    name: str, real_crystals: dict[str, Crystal]
) -> None:
    rng = np.random.default_rng(0)
    for crystal in list(real_crystals.values())[::10]:
        mirrored = crystal._replace(lattice=crystal.lattice * [1, 1, -1])
        assert np.linalg.det(mirrored.lattice) < 0
        assert largest_move(mirrored, SAME_CRYSTAL[name](mirrored, rng)) < 1e-9


@pytest.mark.parametrize("name", [*CELLS, "Niggli cell"])
@pytest.mark.parametrize(
    "fails", [lambda *_, **__: None, lambda *_, **__: 1 / 0], ids=["None", "error"]
)
def test_a_cell_that_spglib_does_not_find_is_none(
    name: str, fails: object, ideal_crystals: dict[str, Crystal], monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in ("standardize_cell", "niggli_reduce"):
        monkeypatch.setattr(spglib, function, fails)
    assert SAME_CRYSTAL[name](ideal_crystals["fcc"], np.random.default_rng(0)) is None


def test_a_rotation_keeps_lengths_and_handedness(real_crystals: dict[str, Crystal]) -> None:
    rng = np.random.default_rng(1)
    for crystal in list(real_crystals.values())[::10]:
        turned = SAME_CRYSTAL["rotation"](crystal, rng)
        np.testing.assert_allclose(
            turned.lattice @ turned.lattice.T, crystal.lattice @ crystal.lattice.T, atol=1e-9
        )
        assert np.linalg.det(turned.lattice) == pytest.approx(np.linalg.det(crystal.lattice))


def test_a_translation_moves_all_atoms_alike(real_crystals: dict[str, Crystal]) -> None:
    rng = np.random.default_rng(1)
    for crystal in list(real_crystals.values())[::10]:
        shift = SAME_CRYSTAL["translation"](crystal, rng).frac_coords - crystal.frac_coords
        np.testing.assert_allclose(shift - shift[0], 0, atol=1e-12)
        assert np.abs(shift[0] - np.round(shift[0])).max() > 1e-3
