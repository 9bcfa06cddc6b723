"""Nested values of JSON records as columns with dotted names."""

from typing import Any

from record_lists import read_records
from structure_text import CSCL, Write

from csgcnn.crystals.datasets import source_files
from csgcnn.crystals.nested import with_nested
from csgcnn.crystals.records import ReadOptions
from csgcnn.crystals.structures import to_crystal

NESTED = {"outputs": {"pbe": {"gap": 1.5, "bands": [1, 2]}, "kind": "metal"}}


def test_nested_values_are_columns(write: Write) -> None:
    records = read_records(write("a.json", [{"id": "a", "structure": CSCL, "gap": 1, **NESTED}]))
    assert records[0].columns == {"gap": 1, "outputs.pbe.gap": 1.5, "outputs.kind": "metal"}


def test_ids_and_structures_may_be_nested(write: Write) -> None:
    rows = [{"input": {"structure": CSCL, "key": "a"}, **NESTED}]
    path = write("a.json", rows)
    (record,) = read_records(path, ReadOptions("input.key", "input.structure"))
    assert record.id == "a"
    assert record.columns == {"outputs.pbe.gap": 1.5, "outputs.kind": "metal"}
    assert len(to_crystal(record.source).atomic_number) == 2


def test_the_keys_of_a_structure_are_no_columns(write: Write) -> None:
    odd = {"structure": {"foo": {"bar": 1}}, "other": CSCL, "id": "a", "gap": 1}
    (record,) = read_records(write("a.json", [odd]))
    assert record.columns == {"gap": 1}


def test_a_record_may_be_a_structure(write: Write) -> None:
    path = write("a.json", [{"id": "a", "gap": 1.5, **CSCL}, {"id": "b", "gap": 2.5, **CSCL}])
    records = read_records(path)
    assert [record.columns for record in records] == [{"gap": 1.5}, {"gap": 2.5}]
    assert to_crystal(records[1].source).atomic_number.tolist() == [55, 17]


def test_depth_and_number_are_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"a": deep, "x": 1}
    assert len(with_nested({"d": deep}, set())) < 20
    names: set[str] = set()
    for number in range(3000):
        with_nested({"d": {str(number): 1}}, names)
    assert len(names) == 1000


def test_structures_may_be_texts_and_files_of_the_folder(write: Write) -> None:
    file = write("sub/a.vasp")
    path = write("t.json", [{"id": "a", "structure": "sub/a.vasp", "gap": 1}])
    (record,) = read_records(path)
    assert record.source == file
    assert list(source_files(path)) == [path, file]


def test_a_response_of_optimade_is_a_data_set(write: Write) -> None:
    structure = {
        "lattice_vectors": CSCL["lattice"],
        "cartesian_site_positions": [[0, 0, 0], [2, 2, 2]],
        "species_at_sites": ["Cs", "Cl"],
    }
    attributes = {**structure, "nelements": 2, "_mp_gap": {"value": 1.5}}
    entries = [{"id": id_, "type": "structures", "attributes": attributes} for id_ in ("a", "b")]
    for content in ({"data": entries, "meta": {"more_data_available": False}}, entries):
        records = read_records(write("a.json", content))
        assert [record.id for record in records] == ["a", "b"]
        assert records[0].columns == {"nelements": 2, "_mp_gap.value": 1.5}
        assert to_crystal(records[0].source).atomic_number.tolist() == [55, 17]
