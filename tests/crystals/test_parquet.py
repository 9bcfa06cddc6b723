import json
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from record_lists import read_records
from structure_text import CIF, CSCL, Write

from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import UserError


def write_table(path: Path, columns: dict[str, list[object]]) -> Path:
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


@pytest.mark.parametrize("structure", [CSCL, json.dumps(CSCL), CIF, "a.vasp"])
def test_rows_of_parquet_are_records(tmp_path: Path, write: Write, structure: object) -> None:
    write("a.vasp")
    columns: dict[str, list[object]] = {
        "material_id": ["a", "b", "c"],
        "structure": [structure] * 3,
        "gap": [1.5, None, 2.5],
        "outputs": [{"pbe": {"gap": float(n)}} for n in range(3)],
    }
    path = write_table(tmp_path / "a.parquet", columns)
    records = read_records(path)
    assert [record.id for record in records] == ["a", "b", "c"]
    assert [record.columns for record in records] == [
        {"gap": 1.5, "outputs.pbe.gap": 0.0},
        {"gap": None, "outputs.pbe.gap": 1.0},
        {"gap": 2.5, "outputs.pbe.gap": 2.0},
    ]
    for record in iter_structures([path]):
        assert to_crystal(record.source).atomic_number.tolist() == [55, 17]


def test_a_damaged_file_is_refused(write: Write, tmp_path: Path) -> None:
    whole = write_table(tmp_path / "a.parquet", {"structure": ["a.cif"] * 50}).read_bytes()
    for content in (b"", b"hello", whole[:-20], whole[:100] + bytes(50) + whole[150:]):
        with pytest.raises(UserError, match=r"b\.parquet: not a readable parquet file"):
            read_records(write("b.parquet", content))


def test_without_pyarrow_the_way_to_install_it_is_told(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.parquet", b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"parquet needs pyarrow: pip install pyarrow"):
        read_records(path)
