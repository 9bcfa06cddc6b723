"""Test that tensors in files of torch.save must fit their storages."""

import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from legacy_files import (
    DEEP,
    TRIPLES,
    load,
    members,
    refused,
    storage,
    tensor,
    write_old,
    write_zip,
)
from refusals import same

from csgcnn.runs.legacy_archives import PROTOCOL

pytestmark = pytest.mark.usefixtures("little_memory")

LARGE = b"J\xff\xff\xff\x7f"  # 2^31 - 1
UNFIT = {
    "a storage larger than the file": (tensor(storage(n_elements=LARGE)), "larger than the file"),
    "a storage of negative size": (tensor(storage(n_elements=b"J\xff\xff\xff\xff")), ""),
    "a storage smaller than its record": (
        tensor(storage(n_elements=b"K\x03"), size=b"K\x03\x85"),
        "size of its record",
    ),
    "a storage of another type": (tensor(storage(kind="DoubleStorage")), "size of its record"),
    "a storage of complex numbers": (tensor(storage(kind="ComplexFloatStorage")), ""),
    "a part of a storage": (tensor(storage(view=b"K\x01")), "not a storage"),
    "a class that is none": (tensor(storage(kind="device")), "a storage of torch device"),
    "an absent storage": (tensor(storage("7")), ""),
    "a tensor larger than its storage": (
        tensor(storage(), size=b"K\x05\x85"),
        "[5] is larger than its storage",
    ),
    "a tensor far larger": (tensor(storage(), size=LARGE + b"\x85", stride=b"K\x00\x85"), "larger"),
    "a tensor before its storage": (tensor(storage(), offset=b"J\xff\xff\xff\xff"), ""),
    "a tensor behind its storage": (tensor(storage(), offset=b"K\x01"), ""),
    "a negative size": (tensor(storage(), size=b"J\xff\xff\xff\xff\x85"), ""),
    "a negative stride": (tensor(storage(), stride=b"J\xff\xff\xff\xff\x85"), ""),
    "a stride beyond its storage": (tensor(storage(), stride=b"K\x02\x85"), ""),
    "too many sizes": (
        tensor(storage(), size=b"(" + b"K\x01" * 20 + b"t", stride=b"(" + b"K\x01" * 20 + b"t"),
        "",
    ),
    "a tensor without a storage": (tensor(b"K\x04"), ""),
}


def write_both(folder: Path, pickled: bytes) -> list[Path]:
    """The pickle with one storage, 0, of four float32."""
    numbers = struct.pack("<4f", 0, 1, 2, 3)
    old = write_old(folder / "old", pickled, pickle.dumps(["0"], 2), struct.pack("<q", 4) + numbers)
    return [write_zip(folder / "new", pickled, **{"data/0": numbers}), old]


@pytest.mark.parametrize("what", UNFIT)
def test_a_tensor_must_fit_its_storage(what: str, tmp_path: Path) -> None:
    for path in write_both(tmp_path, tensor(storage())):
        assert same(load(path), torch.arange(4.0))
    pickled, part = UNFIT[what]
    for path in write_both(tmp_path, pickled):
        refused(path, "" if "absent" in what else part)


# A tensor of 4 numbers of 8 bytes as the present torch writes it, and what may not replace a part.
TENSOR = pickletools.optimize(members(torch.arange(4))["data.pkl"])
UNFIT_NOW = {
    "a storage larger than its record": (b"K\x04t", b"K\x05t"),
    "a storage smaller than its record": (b"K\x04t", b"K\x03t"),
    "a storage of another type": (b"LongStorage", b"IntStorage"),
    "a tensor larger than its storage": (b"K\x04\x85", b"J\x00\x00\x00\x10\x85"),
    "a tensor before its storage": (b"QK\x00", b"QJ\xff\xff\xff\xff"),
    "a tensor behind its storage": (b"QK\x00", b"QK\x01"),
    "a negative size": (b"K\x04\x85", b"J\xff\xff\xff\xff\x85"),
    "a negative stride": (b"K\x01\x85", b"J\xff\xff\xff\xff\x85"),
}


@pytest.mark.parametrize("what", UNFIT_NOW)
def test_a_tensor_of_the_present_torch_must_fit_its_storage(what: str, tmp_path: Path) -> None:
    storages = {"data/0": members(torch.arange(4))["data/0"]}
    assert same(load(write_zip(tmp_path / "a", TENSOR, **storages)), torch.arange(4))
    old, new = UNFIT_NOW[what]
    assert TENSOR.count(old) == 1
    path = write_zip(tmp_path / "a", TENSOR.replace(old, new), **storages)
    refused(path, "nothing was executed")


def test_the_parts_of_an_old_file_must_belong_together(tmp_path: Path) -> None:
    pickled, size, numbers = tensor(storage()), struct.pack("<q", 4), struct.pack("<4f", 0, 1, 2, 3)
    path, keys = tmp_path / "a", pickle.dumps(["0"], 2)
    whole = write_old(path, pickled, keys, size + numbers).read_bytes()
    for n_bytes in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:n_bytes])
        refused(path)
    refused(write_old(path, pickled, keys, size + numbers, little_endian=False), "big-endian")
    too_long = struct.pack("<q", 2**60) + numbers
    refused(write_old(path, pickled, keys, too_long), "size of its record")
    refused(write_old(path, pickled, b"\x80\x02].", size + numbers), "keys")
    refused(write_old(path, pickled, b"\x80\x02]" + DEEP + b"a.", size + numbers), "keys")
    path.write_bytes(whole.replace(pickle.dumps(PROTOCOL, 2), TRIPLES + b"."))
    refused(path, "protocol")


def test_a_big_endian_archive_is_refused(tmp_path: Path) -> None:
    pickled, numbers = tensor(storage()), struct.pack(">4f", 0, 1, 2, 3)
    path = write_zip(tmp_path / "a", pickled, **{"data/0": numbers, "byteorder": b"big"})
    refused(path, "big-endian")


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_may_not_declare_more_than_the_file(is_zip: bool, tmp_path: Path) -> None:
    def save(content: Any) -> Path:
        torch.save(content, tmp_path / "a", _use_new_zipfile_serialization=is_zip)
        return tmp_path / "a"

    refused(save(torch.ones(1).expand(2**15, 2**15)), "[32768, 32768] is larger than its storage")
    numbers = torch.ones(10_000)
    assert len(load(save([numbers[i:] for i in range(10)]))) == 10
    refused(save([numbers[i:] for i in range(20)]), "larger than the file")
