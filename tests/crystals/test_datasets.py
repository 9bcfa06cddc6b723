"""Finding the reader of a data set: built-in formats, formats of plugins, and what is refused."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from record_lists import read_records
from structure_text import CSCL, Write

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Unusable
from csgcnn.crystals.datasets import (
    DatasetReader,
    check_labeled,
    find_reader,
    iter_records,
    mark_repeated,
    reader_version,
    register_reader,
    source_files,
)
from csgcnn.crystals.records import ReadOptions, Record
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.data.cache import content_key
from csgcnn.errors import UserError


class LatticeConstants:
    """A format of a plugin: a line `id edge` per crystal of CsCl, with a target."""

    name = ".edges"

    def __init__(self, version: str = "1") -> None:
        self.version = version

    def matches(self, path: Path) -> bool:
        return path.suffix == ".edges"

    def read(self, path: Path, options: ReadOptions) -> Iterator[Record]:
        for line in path.read_text().splitlines():
            id_, edge = line.split()
            lattice = [[float(edge) * (i == j) for i in range(3)] for j in range(3)]
            yield Record(id_, CSCL | {"lattice": lattice}, {"edge": float(edge)})

    def files(self, path: Path, options: ReadOptions) -> Iterator[Path]:
        yield path


@pytest.fixture
def edges(write: Write) -> Path:
    register_reader(LatticeConstants())
    return write("crystals.edges", "a 4.0\nb 4.1\n")


def test_a_registered_format_is_read_as_a_data_set(edges: Path) -> None:
    records = read_records(edges)
    assert [record.id for record in records] == ["a", "b"]
    assert [record.columns for record in records] == [{"edge": 4.0}, {"edge": 4.1}]
    assert list(source_files(edges)) == [edges]
    check_labeled(edges)


def test_a_registered_format_is_predicted(edges: Path, write: Write) -> None:
    records = list(iter_structures([edges, write("c.vasp")]))
    assert [record.id for record in records] == ["a", "b", "c"]


def test_a_new_version_of_a_reader_changes_the_cache_key(edges: Path) -> None:
    options, settings = ReadOptions(), GraphSettings()
    before = content_key(edges, settings, options)
    assert content_key(edges, settings, options) == before
    register_reader(LatticeConstants(version="2"))
    assert reader_version(edges).endswith("LatticeConstants 2")
    assert content_key(edges, settings, options) != before


def test_the_reader_registered_last_is_used(write: Write) -> None:
    path = write("set.edges", "a 4.0\n")
    readers: list[DatasetReader] = [LatticeConstants("1"), LatticeConstants("2")]
    for reader in readers:
        register_reader(reader)
        assert find_reader(path) is reader


@pytest.mark.parametrize("name", ["a.json", "a.jsonl.gz", "a.csv", "folder.json/a.cif"])
def test_built_in_formats_have_no_version(write: Write, tmp_path: Path, name: str) -> None:
    write(name)
    assert reader_version(tmp_path / Path(name).parts[0]) == ""


def test_an_unknown_format_is_refused_with_the_known_ones(edges: Path, write: Write) -> None:
    path = write("a.txt", "hello")
    assert find_reader(path) is None
    known = r"expected \.json, \.jsonl, \.csv, \.parquet, \.extxyz, \.db, a folder .*, \.edges"
    with pytest.raises(UserError, match=rf"a\.txt: not a data set by its name; {known}"):
        read_records(path)


def test_a_missing_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json: no such file or folder"):
        read_records(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match=r"nowhere\.csv: no such file or folder"):
        list(source_files(tmp_path / "nowhere.csv"))
    with pytest.raises(UserError, match="no such file or folder"):
        list(iter_records(tmp_path / ("x" * 300)))


def test_a_pipe_is_refused_without_reading_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.json: is a device, pipe or socket"):
        list(source_files(tmp_path / "a.json"))


def test_records_are_read_lazily(write: Write) -> None:
    path = write("a.jsonl", '{"id": 1, "structure": null}\n' * 1000 + "broken")
    records = iter_records(path)
    assert next(records).id == "1"
    with pytest.raises(UserError, match="not valid JSON"):
        list(records)


def test_a_folder_needs_id_prop_to_have_targets(write: Write, tmp_path: Path) -> None:
    file = write("a.vasp")
    with pytest.raises(UserError, match=r"no id_prop\.csv in this folder; expected one"):
        check_labeled(tmp_path)
    write("id_prop.csv", "a,1\n")
    check_labeled(tmp_path)
    check_labeled(file)


def test_repeated_ids_are_found_among_many() -> None:
    ids = [str(number % 70_000) for number in range(70_002)]
    marked = list(mark_repeated(Record(id_, None, {}) for id_ in ids))
    assert [record.id for record in marked if record.source] == ["0", "1"]
    assert "record 70002 repeats that of record 2" in marked[-1].source.reason


ROW = {"id": "a", "structure": CSCL}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", [ROW, ROW, ROW | {"id": "b"}], "record 2 repeats that of record 1"),
        ("a.csv", "id,file\na,b\na,c\n", "line 3 repeats that of line 2"),
        ("id_prop.csv", "a,1\na,2\n", "line 2 repeats that of line 1"),
    ],
)
def test_a_record_that_repeats_an_id_is_unusable(
    write: Write, tmp_path: Path, name: str, content: Any, reason: str
) -> None:
    write("a.cif")
    path = write(name, content)
    path = tmp_path if name == "id_prop.csv" else path
    records = mark_repeated(iter_records(path))
    unusable = [one.source.reason for one in records if isinstance(one.source, Unusable)]
    assert unusable == [f"the id occurs more than once: {reason}"]
