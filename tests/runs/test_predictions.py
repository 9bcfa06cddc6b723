"""Columns and warnings about predictions outside the domain of a model."""

from collections.abc import Sequence

import numpy as np
import torch

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.data.domain import Domain
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.runs.predictions import (
    Prediction,
    concatenate,
    domain_cells,
    prediction_frame,
    warning_lines,
)


def prediction(*ids: str) -> Prediction:
    values = np.arange(len(ids), dtype="f4")[:, None]
    return Prediction([*ids], values, None, {"out_of_domain": [f"of {id_}" for id_ in ids]})


def domain_lines(
    ids: list[str], cells: dict[str, list[str]], warnings: Sequence[StructureNote] = ()
) -> list[str]:
    values = np.zeros((len(ids), 1), "f4")
    return warning_lines(Prediction(ids, values, None, cells, warnings=[*warnings]))


def test_chunks_are_joined_in_order() -> None:
    rejected = [Rejected("c", "no")]
    last = Prediction([], np.empty((0, 1), "f4"), None, {"out_of_domain": []}, rejected)
    joined = concatenate([prediction("a", "b"), prediction("d"), last])
    assert joined.ids == ["a", "b", "d"]
    assert joined.values[:, 0].tolist() == [0, 1, 0]
    assert joined.domain == {"out_of_domain": ["of a", "of b", "of d"]}
    assert joined.rejected == rejected


def test_a_frame_has_the_texts() -> None:
    frame = prediction_frame(prediction("a", "b"), [Target("gap", "eV")])
    assert list(frame.columns) == ["gap [eV]", "out_of_domain", "warnings"]
    assert frame["out_of_domain"].tolist() == ["of a", "of b"]


def test_the_columns_of_a_model_without_a_stored_domain(store: GraphStore) -> None:
    known = Domain.of(store, torch.arange(40))
    old = Domain(known.elements)
    rows = torch.arange(40, 60)
    cells, of_old = (domain_cells(domain, store, rows) for domain in (known, old))
    assert list(cells) == ["unseen_elements", "out_of_domain"]
    assert of_old == {"unseen_elements": cells["unseen_elements"]}
    pairs = zip(cells["unseen_elements"], cells["out_of_domain"], strict=True)
    for symbols, reasons in pairs:
        for symbol in symbols.split(";") if symbols else ():
            assert f"unseen_element:{symbol}" in reasons.split(";")


def test_each_kind_of_reason_has_one_warning() -> None:
    cells = {
        "unseen_elements": ["Pu", "", "Np;Pu", "", "Pu", ""],
        "out_of_domain": [
            "unseen_element:Pu",
            "",
            "unseen_element:Np;unseen_element:Pu;isolated_atoms:2",
            "volume_per_atom:70 Å3 (22 to 35)",
            "unseen_element:Pu",
            "",
        ],
    }
    lines = domain_lines(["a", "b", "c", "d", "e", "f"], cells)
    assert [line.partition(":")[0] for line in lines] == [
        "unseen_element",
        "isolated_atoms",
        "volume_per_atom",
    ]
    assert lines[0].startswith("unseen_element: 3 predictions may be far off")
    assert "Pu (first in a), Np (first in c)" in lines[0]
    assert lines[0].endswith("ids: a, c, e")
    assert lines[2].endswith("volume per atom outside the training range; ids: d")
    only_elements = domain_lines(["a", "b"], {"unseen_elements": ["", "Np"]})
    assert [line.partition(":")[0] for line in only_elements] == ["unseen_element"]
    assert domain_lines(["a"], {"unseen_elements": [""], "out_of_domain": [""]}) == []


def test_a_warning_names_three_ids_at_most() -> None:
    (line,) = domain_lines([*"abcde"], {"out_of_domain": ["isolated_atoms:1"] * 5})
    assert line.endswith("ids: a, b, c, ...")


def test_ids_are_printed_without_control_characters() -> None:
    (line,) = domain_lines(["a\x1b[31m\nb"], {"unseen_elements": ["Pu"]})
    assert line.isprintable()


def test_what_the_domain_says_is_said_once() -> None:
    notes = [StructureNote(id_, "isolated_atoms", "1 of 1 atoms") for id_ in "ab"]
    notes.append(StructureNote("a", "cell_volume", "another volume"))
    cells = {"out_of_domain": ["isolated_atoms:1", "isolated_atoms:1"]}
    lines = domain_lines(["a", "b"], cells, notes)
    assert [line.partition(":")[0] for line in lines] == ["a", "isolated_atoms"]
    # Structures that are inside the domain of the model are still named.
    assert len(domain_lines(["a", "b"], {"out_of_domain": ["isolated_atoms:1", ""]}, notes)) == 3
