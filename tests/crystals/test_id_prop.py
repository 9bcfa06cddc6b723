"""Folders with id_prop.csv, as several programs write them."""

from pathlib import Path

import pytest
from record_lists import read_records
from structure_text import Write

from csgcnn.crystals.datasets import source_files
from csgcnn.crystals.records import ReadOptions, Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import StructureError, UserError

FILES = ("m0.cif", "m1.vasp", "POSCAR_m2", "sub/m3.cif", "sub/POSCAR_m4", "m5.cif.gz")


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> Path:
    for name in FILES:
        write(name)
    return tmp_path


def sources(folder: Path, records: list[Record]) -> list[str]:
    return [Path(str(record.source)).relative_to(folder).as_posix() for record in records]


@pytest.mark.parametrize(
    "ids",
    [
        ["m0", "m1", "m2", "sub/m3", "sub/m4", "m5"],
        ["m0.cif", "m1.vasp", "POSCAR_m2", "sub/m3.cif", "sub/POSCAR_m4", "m5.cif"],
        ["./m0.cif", "m1", "POSCAR_m2", "./sub/m3", "sub/m4", "m5.cif.gz"],
    ],
)
def test_ids_stand_for_files(write: Write, folder: Path, ids: list[str]) -> None:
    table = write("id_prop.csv", "".join(f"{id_},{n}.5\n" for n, id_ in enumerate(ids)))
    records = read_records(folder)
    assert [record.id for record in records] == ids
    assert [record.columns["target"] for record in records] == [n + 0.5 for n in range(6)]
    assert sources(folder, records) == list(FILES)
    assert list(source_files(folder)) == [table, *(folder / name for name in FILES)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m0;6.2\nm1;5.5\n", {"target": 6.2}),
        ("m0\t6.2\nm1\t5.5\n", {"target": 6.2}),
        ("m0 6.2\nm1   5.5\n", {"target": 6.2}),
        ("m0;6,2\nm1;5,5\n", {"target": 6.2}),
        ("# my data\nm0,6.2\n# more\nm1,5.5\n", {"target": 6.2}),
        ("# id, gap\nm0,6.2\nm1,5.5\n", {"target": 6.2}),
        ("'m0',6.2\n'm1',5.5\n", {"target": 6.2}),
        ('"m0","6.2"\n"m1","5.5"\n', {"target": 6.2}),
        ("m0, 6.2\nm1, 5.5\n", {"target": 6.2}),
        ("name;gap\nm0;6.2\nm1;5.5\n", {"name": "m0", "gap": 6.2}),
        ("name,gap,kind\nm0,6.2,a\nm1,5.5,b\n", {"name": "m0", "gap": 6.2, "kind": "a"}),
        ("m0,metal\nm1,insulator\n", {"target": "metal"}),
        ("m0,-\nm1,5.5\n", {"target": "-"}),
        ("m0,n/a\nm1,5.5\n", {"target": None}),
        ("m0,#N/A\nm1,5.5\n", {"target": None}),
        ("m0,—\nm1,5.5\n", {"target": "—"}),
    ],
)
def test_the_form_of_the_table_is_recognized(
    write: Write, folder: Path, text: str, expected: dict[str, object]
) -> None:
    write("id_prop.csv", text)
    first, second = read_records(folder)
    assert (first.id, first.columns) == ("m0", expected)
    assert second.id == "m1"


@pytest.mark.parametrize(
    ("first", "others"),
    [
        ("gone,6.2", "m0,5.5"),
        ("gone,-", "m0,5.5"),
        ("gone,", "m0,5.5"),
        ("gone,6.2,x", "m0,5.5,y"),
        ("gone,metal", "m0,insulator\nm1,metal"),
        ("gone.cif,metal", "m0,insulator"),
        ("gone", "m0"),
    ],
)
def test_a_first_row_of_data_is_never_taken_for_a_header(
    write: Write, folder: Path, first: str, others: str
) -> None:
    write("id_prop.csv", f"{first}\n{others}\n")
    records = read_records(folder)
    assert len(records) == 1 + len(others.splitlines())
    with pytest.raises(StructureError, match=r"gone\.cif: no such file"):
        to_crystal(records[0].source)


def test_targets_can_be_named(write: Write, folder: Path) -> None:
    write("id_prop.csv", "m0,6.2,1\nm1,5.5,2\n")
    records = read_records(folder, ReadOptions(columns=("gap", "mass")))
    assert [record.columns for record in records] == [
        {"gap": 6.2, "mass": 1.0},
        {"gap": 5.5, "mass": 2.0},
    ]
    with pytest.raises(UserError, match=r"dataset\.columns has 1 names, but there are 2 columns"):
        read_records(folder, ReadOptions(columns=("gap",)))
    write("id_prop.csv", "id,gap\nm0,6.2\n")
    with pytest.raises(UserError, match=r"its first row is a header \(gap\); omit dataset"):
        read_records(folder, ReadOptions(columns=("energy",)))


def test_a_name_stands_for_the_file_that_it_fits_best(write: Write, tmp_path: Path) -> None:
    for name in ("a.vasp", "a.cif", "POSCAR_a", "a.cif.gz"):
        write(name)
    write("id_prop.csv", "a,1\na.cif,2\nPOSCAR_a,3\na.vasp,4\n")
    assert sources(tmp_path, read_records(tmp_path)) == ["a.cif", "a.cif", "POSCAR_a", "a.vasp"]


def test_the_potcar_beside_a_poscar_is_part_of_the_data(write: Write, tmp_path: Path) -> None:
    table, poscar, potcar = write("id_prop.csv", "a,1\n"), write("POSCAR_a"), write("POTCAR", "")
    assert list(source_files(tmp_path)) == [table, poscar, potcar]


def test_a_line_without_id_is_refused(tmp_path: Path) -> None:
    (tmp_path / "id_prop.csv").write_text("m0,1\n,2\n")
    with pytest.raises(UserError, match=r"id_prop.csv: line 2 has no id"):
        read_records(tmp_path)
