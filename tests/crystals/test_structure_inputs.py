import gzip
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from structure_text import CSCL, POSCAR, ROW, Write

from csgcnn.crystals.records import Record
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import StructureError, UserError


def ids(records: Iterable[Record]) -> list[str]:
    return [record.id for record in records]


def test_a_folder_is_searched_recursively(write: Write, tmp_path: Path) -> None:
    for name in (
        "b.vasp",
        "a.cif.gz",
        "Ca(OH)2 =x.cif",
        "mp-1/POSCAR",
        "mp-2/POSCAR",
        "mp-2/deep/c.json",
    ):
        write(name)
    for name in ("readme.txt", "table.csv", ".hidden.cif", "._b.cif", ".ipynb_checkpoints/b.cif"):
        write(name)
    records = list(iter_structures([tmp_path]))
    assert ids(records) == ["Ca(OH)2 =x", "a", "b", "mp-1/POSCAR", "mp-2/POSCAR", "mp-2/deep/c"]
    assert records[3].source == tmp_path / "mp-1" / "POSCAR"
    assert records[0].columns == {}


def test_equal_names_in_a_folder_keep_their_suffix(write: Write, tmp_path: Path) -> None:
    for name in ("a.cif", "a.vasp", "b.cif"):
        write(name)
    assert ids(iter_structures([str(tmp_path)])) == ["a.cif", "a.vasp", "b"]


def test_files_and_patterns(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one/x.cif", "one/y [1].cif", "two/x.cif"):
        write(name)
    assert ids(iter_structures(["one/y [1].cif", "two/x.cif"])) == ["y [1]", "x"]
    assert ids(iter_structures(["one/*.cif"])) == ["x", "y [1]"]
    assert ids(iter_structures(["**/x.cif"])) == ["one/x.cif", "two/x.cif"]
    assert ids(iter_structures(["one", "two"])) == ["one/x", "one/y [1]", "two/x"]
    assert ids(iter_structures(["one/x.cif", "two"])) == ["x", "two/x"]


def test_data_set_files_and_single_structures(write: Write) -> None:
    single = write("CsCl.json", CSCL)
    data_set = write("set.json.gz", gzip.compress(json.dumps([ROW, ROW | {"id": "b"}]).encode()))
    table = write("table.csv", "id,file\nc,CsCl.json\n")
    records = list(iter_structures([single, data_set, table]))
    assert ids(records) == ["CsCl", "a", "b", "c"]
    for record in records:
        assert to_crystal(record.source).atomic_number.tolist() == [55, 17]


def test_unreadable_files_are_refused_when_their_structure_is_read(write: Write) -> None:
    paths = [write("a.json", "{"), write("b.txt", "hello"), write("c.json", {"foo": 1})]
    for record in iter_structures(paths):
        with pytest.raises(StructureError, match=rf"{record.source.name}: "):
            to_crystal(record.source)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no structures given"),
        (["nowhere.cif"], "nowhere.cif: no such file or folder, and no file matches it"),
        (["*.cif"], r"\*\.cif: no such file or folder, and no file matches it"),
        (["empty"], "empty: no structure file in it"),
        (["a.vasp", "nowhere"], "nowhere: no such file"),
    ],
)
def test_a_path_without_structures_is_refused_before_the_first_record(
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    paths: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write("a.vasp")
    write("empty/readme.txt")
    with pytest.raises(UserError, match=message):
        iter_structures(paths)


def test_a_folder_is_read_lazily(write: Write, tmp_path: Path) -> None:
    for number in range(200):
        write(f"{number:03}.vasp", POSCAR + "#" * 10_000)
    tracemalloc.start()
    for record in iter_structures([tmp_path]):
        to_crystal(record.source)
        if record.id == "000":
            tracemalloc.reset_peak()
            after_first = tracemalloc.get_traced_memory()[0]
    growth = tracemalloc.get_traced_memory()[0] - after_first
    tracemalloc.stop()
    # The files hold 2 MB.
    assert growth < 500_000


def test_patterns_do_not_follow_links(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one/x.vasp", "one/two/x.vasp", ".hidden/x.vasp"):
        write(name)
    (tmp_path / "one" / "again").symlink_to(tmp_path)
    (tmp_path / "itself.vasp").symlink_to(tmp_path / "itself.vasp")
    expected = [Path("one/two/x.vasp"), Path("one/x.vasp")]
    for pattern in ("**/x.vasp", "**/**/x.vas?", "one/**/x.vasp", "**/one/**/x.vasp"):
        assert sorted(record.source for record in iter_structures([pattern])) == expected, pattern
    assert [record.id for record in iter_structures(["one/**"])] == ["x", "two/x"]
    (record,) = iter_structures(["itself.vasp"])
    with pytest.raises(StructureError, match=r"itself\.vasp: cannot be read .Too many levels"):
        to_crystal(record.source)
