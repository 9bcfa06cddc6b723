import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from record_lists import read_records
from structure_text import Write

from csgcnn.crystals.datasets import iter_records
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import StructureError, UserError

CELL = [[5, 0, 0], [1, 4, 0], [2, 1, 6]]


def write_database(path: Path) -> Path:
    """Three rows: with an id, with an energy, and a molecule."""
    database = connect(str(path), append=False)
    atoms = Atoms("CsCl", [[0, 0, 0], [2, 1, 2]], cell=CELL, pbc=True)
    data = {"pbe": {"gap": 2.5}, "bands": np.zeros((2, 2)), "name": "x"}
    database.write(atoms, gap=1.5, kind="salt", stable=True, data=data)
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5, forces=np.zeros((2, 3)))
    database.write(atoms, gap=0.5)
    database.write(Atoms("H2", [[0, 0, 0], [0, 0, 1]]), gap=11.0)
    return path


@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_rows_of_a_database_are_records(tmp_path: Path, name: str) -> None:
    path = write_database(tmp_path / name)
    records = read_records(path)
    assert [record.id for record in records] == ["1", "2", "3"]
    columns = {"gap": 1.5, "kind": "salt", "stable": 1, "data.pbe.gap": 2.5, "data.name": "x"}
    assert records[0].columns == columns
    assert records[1].columns == {"gap": 0.5, "energy": -3.5}
    crystal = to_crystal(records[0].source)
    assert crystal.atomic_number.tolist() == [55, 17]
    np.testing.assert_allclose(crystal.lattice, CELL)
    np.testing.assert_allclose((crystal.frac_coords @ crystal.lattice)[1], [2, 1, 2])
    with pytest.raises(StructureError, match="no cell"):
        to_crystal(records[2].source)
    assert [record.id for record in iter_structures([path])] == ["1", "2", "3"]


def test_a_key_can_be_the_id(tmp_path: Path) -> None:
    database = connect(tmp_path / "a.db")
    database.write(Atoms("Cs", cell=[4] * 3, pbc=True), material_id="mp-1", gap=1.0)
    (record,) = read_records(tmp_path / "a.db")
    assert (record.id, record.columns) == ("mp-1", {"gap": 1.0})


@pytest.mark.parametrize("content", [b"", b"hello" * 100, b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_that_is_no_database_is_refused(write: Write, content: bytes) -> None:
    path = write("a.db", content)
    with pytest.raises(UserError, match=r"a\.db: not a .*database of ASE"):
        read_records(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE other (id INTEGER)",
        "CREATE VIEW systems AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i FROM n",
        "CREATE TABLE systems (id INTEGER, numbers BLOB AS (zeroblob(id)))",
    ],
)
def test_a_database_that_computes_its_content_is_refused(tmp_path: Path, schema: str) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute(schema)
    connection.close()
    with pytest.raises(UserError, match=r"a\.db: not a database of ASE"):
        read_records(tmp_path / "a.db")


@pytest.mark.parametrize("column", ["numbers", "positions", "cell", "pbc"])
@pytest.mark.parametrize("value", [None, b"abc", "text", 7, b"\xff" * 48])
def test_a_damaged_row_is_refused_when_it_is_read(
    tmp_path: Path, column: str, value: object
) -> None:
    path = write_database(tmp_path / "a.db")
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE systems SET {column} = ? WHERE id = 1", [value])
    connection.close()
    first, second, _ = iter_records(path)
    if (column, value) != ("pbc", 7):
        with pytest.raises(StructureError):
            to_crystal(first.source)
    assert len(to_crystal(second.source).atomic_number) == 2


def test_classes_that_a_json_database_names_are_not_created(tmp_path: Path) -> None:
    path = write_database(tmp_path / "a.json")
    content = json.loads(path.read_text())
    content["1"]["cell"]["__ase_objtype__"] = "os.system"
    content["2"] = {"numbers": {"__ndarray__": [[10**9], "int64", [55]]}, "positions": "x"}
    path.write_text(json.dumps(content))
    first, second, _ = read_records(path)
    assert len(to_crystal(first.source).atomic_number) == 2
    with pytest.raises(StructureError):
        to_crystal(second.source)
