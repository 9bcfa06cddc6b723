import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_lists import read_records
from structure_text import CSCL, ROW, Write

from csgcnn.crystals.datasets import source_files
from csgcnn.crystals.records import ReadOptions, Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import StructureError, UserError

DATA = Path(__file__).parents[2] / "data"


def ids(records: Iterable[Record]) -> list[str]:
    return [record.id for record in records]


@pytest.mark.parametrize(
    ("name", "n_rows", "first", "columns"),
    [
        ("dielectric", 1056, "mp-441", {"band_gap": 1.88, "refractive_index": 1.86}),
        ("elastic", 1181, "mp-10003", {"log10_k_vrh": 2.288403, "log10_g_vrh": 1.987405}),
        (
            "formation_energy",
            3938,
            "mp-10",
            {"formation_energy_per_atom": 0.107405, "e_above_hull": 0.107405},
        ),
    ],
)
def test_included_data_sets(name: str, n_rows: int, first: str, columns: dict[str, float]) -> None:
    path = DATA / f"{name}.json.gz"
    records = read_records(path)
    assert len(records) == n_rows
    assert records[0].id == first
    assert records[0].columns.items() >= columns.items()
    assert "crystal_structure" not in records[0].columns
    assert all(len(to_crystal(record.source).atomic_number) for record in records)
    assert list(source_files(path)) == [path]


# --- json ---


@pytest.mark.parametrize("structure_column", ["crystal_structure", "structure", "atoms"])
@pytest.mark.parametrize("id_column", ["material_id", "jid", "mbid", "id"])
def test_json_records_find_their_columns(
    write: Write, structure_column: str, id_column: str
) -> None:
    path = write(
        "set.json",
        [{id_column: "x-1", structure_column: CSCL, "gap": 1, "ok": True, "tags": ["a"]}],
    )
    assert read_records(path) == [Record("x-1", CSCL, {"gap": 1, "ok": True})]


def test_jarvis_records(write: Write) -> None:
    atoms = {
        "lattice_mat": CSCL["lattice"],
        "coords": [[0] * 3, [2] * 3],
        "elements": ["Cs", "Cl"],
    }
    records = [
        {"jid": "JVASP-1", "id": 7, "atoms": atoms | {"cartesian": True}, "gap": "na", "e": 1.5}
    ]
    (record,) = read_records(write("jarvis.json", records))
    assert record.id == "JVASP-1"
    assert record.columns == {"id": 7, "gap": None, "e": 1.5}
    np.testing.assert_allclose(
        to_crystal(record.source).frac_coords, CSCL["frac_coords"], atol=1e-12
    )


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"index": ["mb-1", "mb-2"]}, ["mb-1", "mb-2"]),
        ({"index": [0, 1]}, ["0", "1"]),
        ({}, ["0", "1"]),
    ],
)
def test_dataframe_in_split_orient(
    write: Write, frame: dict[str, Any], expected: list[str]
) -> None:
    table = {"columns": ["structure", "gap"], "data": [[CSCL, 1.5], [CSCL, None]]}
    records = read_records(write("matbench.json", table | frame))
    assert ids(records) == expected
    assert [record.columns for record in records] == [{"gap": 1.5}, {"gap": None}]
    assert records[1].source == CSCL


def test_missing_values_and_text(write: Write) -> None:
    values = ["na", "nan", "NaN", "None", "", None, float("nan")]
    rows = [{"id": str(i), "structure": CSCL, "gap": value} for i, value in enumerate(values)]
    assert {record.columns["gap"] for record in read_records(write("set.json", rows))} == {None}
    (record,) = read_records(
        write("set.json", [{"structure": CSCL, "formula": "Na", "number": "1.5"}])
    )
    assert record.columns == {"formula": "Na", "number": "1.5"}
    assert record.id == "0"


def test_gzip_is_known_by_its_content(write: Write) -> None:
    rows = json.dumps([{"id": "a", "structure": CSCL}])
    for name, content in [("a.json", gzip.compress(rows.encode())), ("b.json.gz", rows)]:
        assert ids(read_records(write(name, content))) == ["a"]


def test_columns_can_be_named(write: Write) -> None:
    path = write("set.json", [{"id": 1, "name": "a", "structure": None, "relaxed": CSCL}])
    (record,) = read_records(path, ReadOptions("name", "relaxed"))
    assert (record.id, record.source) == ("a", CSCL)


def test_a_record_without_structure_is_refused_when_it_is_read(write: Write) -> None:
    _, record = read_records(write("set.json", [{"id": 1, "structure": CSCL}, {"id": 2}]))
    with pytest.raises(StructureError, match=r"expected a structure .* found NoneType"):
        to_crystal(record.source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[]", "the data set is empty"),
        ("a.json", {"columns": ["structure"], "data": []}, "the data set is empty"),
        ("a.json", "", "the file is empty"),
        ("a.json", b"\x89PNG\0\0\0", "binary data"),
        ("a.json", "<html>404</html>", "HTML page"),
        ("a.json", "id,target\n", "not valid JSON .*it starts with 'id,target"),
        ("a.json", '[{"id": ', "not valid JSON"),
        (
            "a.json.gz",
            gzip.compress(json.dumps([ROW]).encode(), mtime=0)[:-20],
            "gzip file is truncated or damaged",
        ),
        ("a.json", {"foo": 1, "bar": 2}, "keys foo, bar; expected a list of records"),
        ("a.json", CSCL, "holds a single structure; expected a list of records"),
        ("a.json", "3", "holds 3; expected a list of records"),
        ("a.json", [ROW, 7], "entry 2 is 7; expected a list of records"),
        (
            "a.json",
            {"columns": ["atoms", "b"], "data": [[1]]},
            "rows of data do not match the columns",
        ),
        ("a.json", {"columns": ["atoms"], "data": 3}, "rows of data do not match the columns"),
        (
            "a.json",
            {"columns": ["atoms"], "data": [[1]], "index": []},
            "0 entries in index but 1 rows",
        ),
        ("a.json", [{"id": 1, "gap": 2}], "no column for the structure .*the columns are id, gap"),
        ("a.json", [ROW, {"structure": CSCL}], "record 2 has no id"),
        ("a.csv", "", "the file is empty"),
        ("a.csv", ",,\n", "the table is empty"),
        ("a.csv", "id,file\n", "the data set is empty"),
        ("a.csv", "id,gap\na,1\n", "no column for the structure file .*the columns are id, gap"),
        ("a.csv", "id,file\na,b,c\n", "line 2 has 3 fields, expected 2"),
        ("a.csv", 'id,file\na,"b\n', "line 2 is not csv"),
        ("a.csv", "id,file,id\na,b,c\n", "several columns are called id"),
        ("a.csv", b"\0\1\2", "binary data"),
    ],
)
def test_bad_data_sets_are_refused_with_name_and_reason(
    write: Write, name: str, content: Any, message: str
) -> None:
    path = write(name, content)
    with pytest.raises(UserError, match=message) as caught:
        read_records(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_named_columns_must_exist(write: Write) -> None:
    path = write("set.json", [ROW])
    with pytest.raises(
        UserError, match="no column 'mpid' for the id; the columns are id, structure"
    ):
        read_records(path, ReadOptions(id_column="mpid"))
    with pytest.raises(
        UserError, match="no column 'cell' for the structure; the columns are id, structure"
    ):
        read_records(path, ReadOptions(structure_column="cell"))


# --- csv ---


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("column", ["file", "path", "structure", "cif", "filename"])
def test_csv_table_of_structure_files(
    write: Write, tmp_path: Path, column: str, compressed: bool
) -> None:
    table = (
        f"material_id,{column},gap,label\n007,sub/a.vasp, 1.5 ,x\nb,b (1).vasp,na,1_2\n".encode()
    )
    path = write(
        "table.csv.gz" if compressed else "table.csv", gzip.compress(table) if compressed else table
    )
    files = [write("b (1).vasp"), write("sub/a.vasp")]
    first, second = read_records(path)
    assert (first.id, first.source) == ("007", tmp_path / "sub/a.vasp")
    assert first.columns == {"gap": 1.5, "label": "x"}
    assert second.columns == {"gap": None, "label": "1_2"}
    assert to_crystal(second.source).atomic_number.tolist() == [55, 17]
    assert sorted(source_files(path)) == sorted([path, *files])
    assert sorted(source_files(path, ReadOptions(structure_column=column))) == sorted(
        [path, *files]
    )


def test_csv_without_ids_counts_its_rows(write: Write) -> None:
    assert ids(read_records(write("table.csv", "\ufefffile\na.cif\nb.cif\n"))) == ["0", "1"]


# --- folders with id_prop.csv ---


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("a,1.5\nb,2\n", [{"target": 1.5}, {"target": 2.0}]),
        (
            "a,1.5,3\n\nb,2,na\n",
            [{"target": 1.5, "target_2": 3.0}, {"target": 2.0, "target_2": None}],
        ),
        ("id,gap\na,1.5\nb,2\n", [{"id": "a", "gap": 1.5}, {"id": "b", "gap": 2.0}]),
        ("a,text\nb,2\n", [{"target": "text"}, {"target": 2.0}]),
        ("a\nb\n", [{}, {}]),
    ],
)
def test_id_prop_folder(
    write: Write, tmp_path: Path, table: str, columns: list[dict[str, Any]]
) -> None:
    id_prop, *files = (
        write("id_prop.csv", table),
        write("a.vasp"),
        write("b.POSCAR.vasp"),
        write("b.poscar"),
    )
    write("notes.txt", "not part of the data set")
    records = read_records(tmp_path)
    assert ids(records) == ["a", "b"]
    assert [record.columns for record in records] == columns
    assert [record.source.name for record in records] == ["a.vasp", "b.poscar"]
    assert list(source_files(tmp_path)) == [id_prop, files[0], files[2]]


def test_id_prop_names_a_missing_structure_file_when_it_is_read(
    write: Write, tmp_path: Path
) -> None:
    write("id_prop.csv.gz", gzip.compress(b"a,1\nb,2\n"))
    write("a.cif", "")
    _, missing = read_records(tmp_path)
    with pytest.raises(StructureError, match=r"b\.cif: no such file"):
        to_crystal(missing.source)
    assert list(source_files(tmp_path)) == [tmp_path / "id_prop.csv.gz", tmp_path / "a.cif"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,gap\n", "the data set is empty"),
        ("id,gap,gap\na,1,2\n", "several columns are called gap; give each its own name"),
        ("a,1\nb,2,3\n", "line 2 has 3 fields, expected 2"),
    ],
)
def test_bad_id_prop_folders(write: Write, tmp_path: Path, table: str, message: str) -> None:
    write("a.cif")
    write("id_prop.csv", table)
    with pytest.raises(UserError, match=message):
        read_records(tmp_path)


def test_a_folder_of_structure_files_has_no_targets(write: Write, tmp_path: Path) -> None:
    files = [write("a.vasp"), write("sub/b.vasp")]
    records = read_records(tmp_path)
    assert ids(records) == ["a", "sub/b"]
    assert {tuple(record.columns) for record in records} == {()}
    assert list(source_files(tmp_path)) == files
