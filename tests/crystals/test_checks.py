"""Checks of every structure after it was read: formula, distances, volume."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graph_builder import GraphChunk, GraphPlan, build_graphs
from csgcnn.crystals.records import ReadOptions, Record
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.crystals.structures import StructureText, to_crystal
from csgcnn.errors import StructureError


def cif(formula: str) -> StructureText:
    edges = "".join(f"_cell_length_{edge} 4\n" for edge in "abc")
    angles = "".join(f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma"))
    columns = "".join(f"_atom_site_{name}\n" for name in ("label", "fract_x", "fract_y", "fract_z"))
    return StructureText(
        f"data_a\n{edges}{angles}_space_group_IT_number 1\n_chemical_formula_sum '{formula}'\n"
        f"loop_\n{columns}Na1 0 0 0\nCl1 0.5 0.5 0.5\n"
    )


def pair(distance: float, symbols: tuple[str, str] = ("Na", "Cl"), edge: float = 5.0) -> Any:
    lattice = [[edge, 0, 0], [0, edge, 0], [0, 0, edge]]
    coords = [[0, 0, 0], [distance / edge, 0, 0]]
    return {"lattice": lattice, "species": list(symbols), "frac_coords": coords}


def built(source: Any, **options: Any) -> GraphChunk:
    (chunk,) = build_graphs(
        [Record("a", source, {})], GraphPlan(GraphSettings(), workers=1, **options)
    )
    return chunk


@pytest.mark.parametrize(
    "formula",
    ["Na Cl", "Na1Cl1", "Cl Na", "Na4 Cl4", "(Na Cl)2", "Na0.995 Cl", "unreadable", "?", ""],
)
def test_formula_with_the_same_ratios_is_accepted(formula: str) -> None:
    assert to_crystal(cif(formula)).atomic_number.tolist() == [11, 17]


@pytest.mark.parametrize(
    "formula", ["Na Cl2", "Na Br", "Na", "Na2 Cl2 O", "K Na Cl", "Na120 Cl119"]
)
def test_other_formula_is_refused_with_both(formula: str) -> None:
    with pytest.raises(
        StructureError, match=f"declares {formula}, but its atoms are Na Cl; .*=warn"
    ):
        to_crystal(cif(formula))


def test_other_formula_is_accepted_with_a_warning_on_request() -> None:
    chunk = built(cif("Na Cl2"), formula_mismatch="warn")
    assert [note.code for note in chunk.warnings] == ["formula_mismatch"]
    assert "declares Na Cl2" in chunk.warnings[0].message
    assert [entry.id for entry in built(cif("Na Cl2")).rejected] == ["a"]


def test_deuterium_of_a_formula_is_hydrogen() -> None:
    text = cif("D Cl").text.replace("Na1", "D1")
    assert to_crystal(StructureText(text)).atomic_number.tolist() == [1, 17]


def test_atoms_that_are_far_too_close_are_refused_with_sites_and_distance() -> None:
    # Covalent radii: Na 1.66 Å, Cl 1.02 Å; half of the sum is 1.34 Å.
    (entry,) = built(pair(1.3)).rejected
    assert "sites 1 (Na) and 2 (Cl) are 1.3 Å apart, 0.49 of the sum" in entry.reason
    (note,) = built(pair(1.4)).warnings
    assert note.code == "short_distance"
    assert not built(pair(1.7)).warnings


def test_labels_of_the_file_name_the_sites() -> None:
    text = cif("Na Cl").text.replace("0.5 0.5 0.5", "0.3 0 0")
    (entry,) = built(StructureText(text)).rejected
    assert "sites Na1 and Cl1 are 1.2 Å apart" in entry.reason
    text = cif("?").text.replace("number 1\n", "number 2\n").replace("Na1 0 0", "Na1 0.1 0")
    (entry,) = built(StructureText(text)).rejected
    assert "two copies of site Na1 are 0.8 Å apart" in entry.reason


def test_an_atom_too_close_to_its_own_image_is_refused() -> None:
    lattice = [[1.2, 0, 0], [0, 9, 0], [0, 0, 9]]
    (entry,) = built({"lattice": lattice, "species": ["Fe"], "frac_coords": [[0] * 3]}).rejected
    assert "site 1 (Fe) and its periodic image are 1.2 Å apart" in entry.reason


def test_hydrogen_molecules_are_not_too_close() -> None:
    assert not built(pair(0.74, ("H", "H"))).warnings


@pytest.mark.parametrize(
    ("edge", "is_doubtful"), [(1.9, True), (2.1, False), (12, False), (13, True)]
)
def test_volume_per_atom_outside_known_crystals_is_warned_of(
    edge: float, is_doubtful: bool
) -> None:
    lattice = [[edge, 0, 0], [0, edge, 0], [0, 0, edge]]
    half = {"lattice": lattice, "species": ["H", "H"], "frac_coords": [[0] * 3, [0.5] * 3]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        to_crystal(half)
    assert ["volume per atom" in str(w.message) for w in caught] == [True] * is_doubtful


def test_every_block_of_a_cif_can_be_predicted(tmp_path: Path) -> None:
    one = cif("Na Cl").text
    text = one + one.replace("data_a", "data_b").replace("Na", "K") + one
    (tmp_path / "salts.cif").write_text(text)
    (tmp_path / "broken.cif").write_text("no cif")
    every = ReadOptions(all_blocks=True)
    records = list(iter_structures([tmp_path], every))
    assert [record.id for record in records] == [
        *["broken", "salts:a:1", "salts:b", "salts:a:3"],
    ]
    assert to_crystal(records[2].source).atomic_number.tolist() == [19, 17]
    (first,) = iter_structures([tmp_path / "salts.cif"])
    with pytest.warns(UserWarning, match="the file holds 3 structures; a is used"):
        to_crystal(first.source)
