"""Damaged files of a store are refused by name."""

import json
import os
import pickle
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile
from zlib import crc32

import numpy as np
import pytest
import torch

from csgcnn.data.store import GraphStore
from csgcnn.data.store_files import is_store, load_content, merge_stores


@pytest.fixture
def store(store_with: Callable[..., GraphStore]) -> GraphStore:
    return store_with({"gap": [1.0, None, 3.0], "name": ["a", "b", "c"]})


@pytest.fixture
def folder(store: GraphStore, tmp_path: Path) -> Path:
    (tmp_path / "rejected.json").write_text("[]")
    store.save(tmp_path)
    return tmp_path


def refused(folder: Path, name: str, reason: str) -> None:
    path = re.escape(str(folder / name))
    with pytest.raises(ValueError, match=rf"^{path}: .*{reason}") as caught:
        load_content(folder)
    assert len(str(caught.value)) < len(str(folder)) + 200


class Payload:
    """Unpickled, it fails the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle in an array was executed",)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def change_value(path: Path) -> None:
    array = np.load(path)
    array.reshape(-1)[-1] += 1
    np.save(path, array)


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("distance.npy", shorten, "the checksum differs"),
        ("distance.npy", change_value, "the checksum differs"),
        ("fingerprint.npy", change_value, "the checksum differs"),
        ("lattice.npy", lambda path: path.write_bytes(b""), "the checksum differs"),
        ("rows.jsonl", lambda path: path.write_text(path.read_text().upper()), "the checksum"),
        ("rejected.json", lambda path: path.write_text("[[]]"), "the checksum differs"),
        ("meta.json", shorten, ""),
        ("site_node.npy", Path.unlink, "no such file"),
        ("rows.jsonl", Path.unlink, "no such file"),
        ("meta.json", Path.unlink, "no such file"),
        ("lattice.npy", make_pipe, "no such file"),
    ],
)
def test_a_damaged_file_is_named(
    folder: Path, name: str, damage: Callable[[Path], object], reason: str
) -> None:
    damage(folder / name)
    refused(folder, name, reason)


def write_with_checksum(path: Path, content: bytes) -> None:
    """Replace a file of a store and record its checksum."""
    path.write_bytes(content)
    meta = json.loads(path.with_name("meta.json").read_text())
    meta["crc32"][path.name] = crc32(content)
    path.with_name("meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("distance", lambda array: array.astype("float64"), "expected float32"),
        ("atomic_number", lambda array: array.astype("int8"), "expected uint8"),
        ("fingerprint", lambda array: array.view("int64"), "expected uint64"),
        ("lattice", lambda array: array.astype(">f4"), "expected float32"),
        ("distance", lambda array: array[:-1], "expected float32"),
        ("distance", lambda array: array[None], "expected float32"),
        ("edge_index", lambda array: array.T, "expected int32"),
        ("n_atoms", lambda array: np.append(array, array[-1:]), r"expected int32 \[3\]"),
        ("lattice", lambda array: np.array([Payload()] * 3), "Python objects in dtype"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(
    folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    path = folder / f"{name}.npy"
    np.save(path, change(np.load(path)), allow_pickle=True)
    write_with_checksum(path, path.read_bytes())
    refused(folder, path.name, reason)


@pytest.mark.parametrize(
    "shape", ["(2684354560,)", "(-1,)", "(((((", "(2, 99999999999999999999)", "__import__('os')"]
)
def test_the_size_that_a_header_declares_is_not_allocated(folder: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    write_with_checksum(folder / "distance.npy", magic + header.encode())
    tracemalloc.start()
    refused(folder, "distance.npy", "")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_format_6_has_one_hash_of_each_crystal(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"format": 6}))
    refused(folder, "fingerprint.npy", "expected uint64")
    one = np.load(folder / "fingerprint.npy")[:, 0]
    np.save(folder / "fingerprint.npy", one)
    write_with_checksum(folder / "fingerprint.npy", (folder / "fingerprint.npy").read_bytes())
    loaded = GraphStore.load(folder).graphs.fingerprint
    assert (loaded == one[:, None]).all()


def test_files_of_another_format_are_refused(folder: Path, tmp_path: Path) -> None:
    path = folder / "lattice.npy"
    write_with_checksum(path, pickle.dumps(Payload()))
    refused(folder, "lattice.npy", "pickled .object. data")
    ZipFile(path, "w").close()
    write_with_checksum(path, path.read_bytes())
    refused(folder, "lattice.npy", "expected float32")


@pytest.mark.parametrize(
    "rows",
    [
        {"ids": ["a", "b", "c"], "columns": {"gap": [1.0]}},
        {"ids": ["a", "b", "c"], "columns": {"gap": 28}},
        {"ids": ["a", "b", "c"], "columns": [1]},
        {"ids": 3, "columns": {}},
        {"columns": {}},
        [],
    ],
)
def test_rows_that_do_not_fit_each_other_are_refused(folder: Path, rows: Any) -> None:
    write_with_checksum(folder / "rows.jsonl", json.dumps(rows).encode())
    refused(folder, "rows.jsonl", "")


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"cutoff": "far"}},
        {"settings": {"radius": 8}},
        {"settings": None},
        {"crc32": 7},
        {"format": 5},
        {"format": [[]] * 1000},
    ],
)
def test_a_description_of_another_format_is_refused(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert is_store(folder)
    refused(folder, "meta.json", "")


def test_other_files_in_the_folder_are_ignored(folder: Path) -> None:
    (folder / "notes.npy").write_bytes(pickle.dumps(Payload()))
    (folder / "subfolder").mkdir()
    (folder / "rejected.json").unlink()
    assert load_content(folder)[1] == ["c0", "c1", "c2"]


def test_only_a_folder_with_a_description_is_a_store(folder: Path, tmp_path: Path) -> None:
    assert is_store(folder)
    (folder / "meta.json").write_text("[]")
    assert not is_store(folder)
    (folder / "meta.json").unlink()
    assert not is_store(folder)
    assert not is_store(folder / "absent")


def test_merged_stores_have_all_rows_and_columns(
    store_with: Callable[..., GraphStore], tmp_path: Path
) -> None:
    columns = [{"gap": [1.0, 2.0]}, {"gap": [3.0], "late": ["x"]}, {"late": [None]}]
    parts = [tmp_path / name for name in "abc"]
    for part, values in zip(parts, columns, strict=True):
        part.mkdir()
        store_with(values).save(part)
    (tmp_path / "all").mkdir()
    merge_stores(parts, tmp_path / "all")
    merged = GraphStore.load(tmp_path / "all")
    assert merged.ids == ["c0", "c1", "c0", "c0"]
    assert list(merged.columns) == ["gap", "late"]
    assert merged.columns == {"gap": [1.0, 2.0, 3.0, None], "late": [None, None, "x", None]}
    distances = [
        GraphStore.load(part).batch(torch.arange(n)).distance
        for part, n in zip(parts, (2, 1, 1), strict=True)
    ]
    assert torch.equal(merged.batch(torch.arange(4)).distance, torch.cat(distances))
