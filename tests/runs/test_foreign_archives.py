"""Files of torch.save that others made, of any age: plain data or a line that says why not; nothing is executed."""

import os
import pickle
import resource
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from csgcnn.errors import UserError
from csgcnn.runs.foreign_archives import MAGIC, PROTOCOL, load_foreign


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """Whoever wants 512 MB more than there are now gets an error, of which no message below speaks."""
    pages = (
        int(Path("/proc/self/statm").read_text().split()[0])
        if Path("/proc/self/statm").exists()
        else None
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def write_zip(path: Path, pickled: bytes, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": pickled, **members}.items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_old(
    path: Path, pickled: bytes, keys: bytes = b"\x80\x02].", storages: bytes = b"", **system: Any
) -> Path:
    """A file as torch before 1.6 wrote it."""
    head = pickle.dumps(PROTOCOL, 2), pickle.dumps({"little_endian": True, **system}, 2)
    path.write_bytes(b"".join([MAGIC, *head, pickled, keys, storages]))
    return path


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_foreign(path, "model")
    message = str(caught.value)
    assert str(path) in message
    assert all(word in message for word in words), message
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400


def refused_in_both(folder: Path, pickled: bytes, *words: str) -> None:
    refused(write_zip(folder / "new", pickled), *words)
    refused(write_old(folder / "old", pickled), *words)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and list(one) == list(other)
            and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


SHARED = torch.arange(12.0)
ORDINARY: dict[str, Any] = {
    "numbers": [0, -1, 255, 65536, 2**40, 0.5, float("inf"), True, False, None],
    "texts": ["", "Å × σ", "x" * 70_000],
    "containers": [{}, [], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {"a": {1: [{"b": ()}]}}],
    "an OrderedDict": OrderedDict(z=1, a=OrderedDict()),
    "a state dict": torch.nn.BatchNorm1d(3).state_dict(),  # an OrderedDict with an attribute
    "types": [
        torch.tensor([0, 1]).to(dtype)
        for dtype in (torch.float32, torch.float64, torch.float16, torch.int64)
    ],
    "views": [
        SHARED.view(3, 4).t(),
        SHARED[2:9:3],
        SHARED[:1].expand(5),
        SHARED,
        torch.tensor(3.5),
        torch.empty(0, 3),
    ],
    "shared parts": [[1, 2]] * 3,
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("kind", ORDINARY)
def test_plain_data_come_back(kind: str, is_zip: bool, tmp_path: Path) -> None:
    torch.save({"content": ORDINARY[kind]}, tmp_path / "a", _use_new_zipfile_serialization=is_zip)
    assert same(load_foreign(tmp_path / "a", "model"), {"content": ORDINARY[kind]})


@pytest.mark.parametrize("is_zip", [True, False])
def test_scalars_of_numpy_and_devices_become_plain(is_zip: bool, tmp_path: Path) -> None:
    strange = [np.float64(0.1), np.float32(0.5), torch.device("cpu"), torch.device("cuda", 3)]
    torch.save(strange, tmp_path / "a", _use_new_zipfile_serialization=is_zip)
    assert same(load_foreign(tmp_path / "a", "model"), [0.1, 0.5, "cpu:0", "cuda:3"])
    before_numpy_2 = pickle.dumps(strange[0], 2).replace(b"numpy._core.", b"numpy.core.")
    assert load_foreign(write_old(tmp_path / "b", before_numpy_2), "model") == 0.1


class Call:
    """Is pickled as the call of a function."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


# Pickles that create the folder TRAP when they are trusted, each by other means, and by what name they are refused.
CALLS = {
    "REDUCE": (lambda trap: pickle.dumps(Call(os.mkdir, (trap,)), 2), "posix.mkdir"),
    "eval": (
        lambda trap: pickle.dumps(Call(eval, (f"__import__('os').mkdir({trap!r})",)), 2),
        "__builtin__.eval",
    ),
    "STACK_GLOBAL": (lambda trap: pickle.dumps(Call(os.mkdir, (trap,)), 4), "PROTO.4"),
    "protocol 0": (lambda trap: pickle.dumps(Call(os.mkdir, (trap,)), 0), "posix.mkdir"),
    "INST": (lambda trap: b"(" + text(trap) + b"iposix\nmkdir\n.", "INST.posix.mkdir"),
    "OBJ": (lambda trap: b"(cposix\nmkdir\n" + text(trap) + b"o.", "posix.mkdir"),
}


@pytest.mark.parametrize("way", CALLS)
def test_calls_are_refused_by_name_and_not_made(way: str, tmp_path: Path) -> None:
    make, name = CALLS[way]
    trap = tmp_path / "sprung"
    pickled = make(str(trap))
    refused_in_both(
        tmp_path, pickled, "something other than plain data", "nothing was executed", name
    )
    assert not trap.exists()
    pickle.loads(pickled)
    assert trap.exists(), "the trap works where pickles are trusted"


@pytest.mark.parametrize("place", range(4))
def test_calls_are_refused_in_every_part_of_an_old_file(place: int, tmp_path: Path) -> None:
    parts = [pickle.dumps(part, 2) for part in (PROTOCOL, {"little_endian": True}, {}, [])]
    trap = tmp_path / "sprung"
    parts[place] = pickle.dumps(Call(os.mkdir, (str(trap),)), 2)
    (tmp_path / "a").write_bytes(MAGIC + b"".join(parts))
    refused(tmp_path / "a", "posix.mkdir")
    assert not trap.exists()


NOT_PLAIN: dict[str, Any] = {
    "a set": {1, 2},
    "bytes": b"abc",
    "an array": torch.arange(3).numpy(),
    "a text of numpy": np.str_("abc"),
    "a path": Path("a"),
    "a dtype": torch.float32,
    "a parameter": torch.nn.Parameter(torch.ones(1)),
    "a module": torch.nn.Linear(1, 1),
    "an integer storage": torch.ones(1, dtype=torch.int8),
    "an OrderedDict with content": Call(OrderedDict, ([("a", 1)],)),
    "a device of what is no text": Call(torch.device, (("cpu",),)),
    "a key that is a tuple": {(1, 2): 3},
    "a key that is None": {None: 3},
    "a type of numpy": np.dtype("f8"),
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("what", NOT_PLAIN)
def test_what_is_not_plain_is_refused(what: str, is_zip: bool, tmp_path: Path) -> None:
    torch.save({"a": [NOT_PLAIN[what]]}, tmp_path / "a", _use_new_zipfile_serialization=is_zip)
    refused(tmp_path / "a")


def laughs(n: int) -> list[Any]:
    part: list[Any] = ["ha"]
    for _ in range(n):
        part = [part] * 10
    return part


def circle() -> dict[str, Any]:
    around: dict[str, Any] = {}
    around["around"] = [around]
    return around


TRIPLES = b"\x80\x02)" + b"".join(b"q%c" % i + b"h%c" % i * 3 + b"\x87" for i in range(100))
DEEP = b")" + b"\x85" * 200_000
HOSTILE = {
    "parts shared over and over": pickle.dumps(laughs(9), 2),
    "a circle": pickle.dumps(circle(), 2),
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples": b"\x80\x02" + DEEP + b".",
    "tuples shared over and over": TRIPLES + b".",
    "a deep tuple as a key": b"\x80\x02}" + DEEP + b"K\x01s.",
    "a deep tuple as a type of numpy": b"\x80\x02cnumpy\ndtype\n" + DEEP + b"\x85R.",
    "a deep tuple as a device": b"\x80\x02ctorch\ndevice\n" + DEEP + b"\x85R.",
    "a deep tuple as a storage": b"\x80\x02" + DEEP + b"Q.",
    "a call of no function": b"\x80\x02)" + DEEP + b"R.",
    "too little on the stack": b"\x80\x02}s.",
    "no mark": b"\x80\x02}u.",
    "an absent memo": b"\x80\x02h\x07.",
    "an unknown opcode": b"\x80\x02\xff.",
    "half a text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a memo far away": b"\x80\x02}r\xff\xff\xff\x7f"
    + b"X\x01\x00\x00\x00aK\x01s"
    + b"j\xff\xff\xff\x7e.",
    "to append to a dict": b"\x80\x02}K\x01a.",
    "an odd number of items": b"\x80\x02}(K\x01u.",
    "no end": b"\x80\x02}",
    "nothing": b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_pickles_cost_little_and_are_refused(what: str, tmp_path: Path) -> None:
    refused_in_both(tmp_path, HOSTILE[what])


def storage(
    key: str = "0", kind: str = "FloatStorage", n_elements: bytes = b"K\x04", view: bytes = b""
) -> bytes:
    name = text("storage") + b"ctorch\n" + kind.encode() + b"\n"
    return b"(" + name + text(key) + text("cpu") + n_elements + view + b"tQ"


def tensor(
    stored: bytes,
    offset: bytes = b"K\x00",
    size: bytes = b"K\x04\x85",
    stride: bytes = b"K\x01\x85",
) -> bytes:
    return b"\x80\x02ctorch._utils\n_rebuild_tensor\n(" + stored + offset + size + stride + b"tR."


LARGE = b"J\xff\xff\xff\x7f"  # 2^31 - 1
UNFIT = {
    "a storage larger than the file": tensor(storage(n_elements=LARGE)),
    "a storage of negative size": tensor(storage(n_elements=b"J\xff\xff\xff\xff")),
    "a storage smaller than its record": tensor(storage(n_elements=b"K\x03"), size=b"K\x03\x85"),
    "a storage of another type": tensor(storage(kind="DoubleStorage")),
    "a part of a storage": tensor(storage(view=b"K\x01")),
    "a class that is none": tensor(storage(kind="device")),
    "an absent storage": tensor(storage("7")),
    "a tensor larger than its storage": tensor(storage(), size=b"K\x05\x85"),
    "a tensor far larger": tensor(storage(), size=LARGE + b"\x85", stride=b"K\x00\x85"),
    "a tensor before its storage": tensor(storage(), offset=b"J\xff\xff\xff\xff"),
    "a tensor behind its storage": tensor(storage(), offset=b"K\x01"),
    "a negative size": tensor(storage(), size=b"J\xff\xff\xff\xff\x85"),
    "a negative stride": tensor(storage(), stride=b"J\xff\xff\xff\xff\x85"),
    "a stride beyond its storage": tensor(storage(), stride=b"K\x02\x85"),
    "too many sizes": tensor(
        storage(), size=b"(" + b"K\x01" * 20 + b"t", stride=b"(" + b"K\x01" * 20 + b"t"
    ),
    "a tensor of no storage": tensor(b"K\x04"),
}


def write_both(folder: Path, pickled: bytes) -> list[Path]:
    """The pickle with one storage, 0, of four float32."""
    numbers = struct.pack("<4f", 0, 1, 2, 3)
    old = write_old(folder / "old", pickled, pickle.dumps(["0"], 2), struct.pack("<q", 4) + numbers)
    return [write_zip(folder / "new", pickled, **{"data/0": numbers}), old]


@pytest.mark.parametrize("what", UNFIT)
def test_a_tensor_that_does_not_fit_its_storage(what: str, tmp_path: Path) -> None:
    for path in write_both(tmp_path, tensor(storage())):
        assert same(load_foreign(path, "model"), torch.arange(4.0))
    for path in write_both(tmp_path, UNFIT[what]):
        refused(path)


def test_old_files_whose_parts_do_not_belong_together(tmp_path: Path) -> None:
    pickled, size, numbers = tensor(storage()), struct.pack("<q", 4), struct.pack("<4f", 0, 1, 2, 3)
    keys = pickle.dumps(["0"], 2)
    whole = write_old(tmp_path / "a", pickled, keys, size + numbers).read_bytes()
    for n_bytes in range(0, len(whole) - 1, 7):
        (tmp_path / "a").write_bytes(whole[:n_bytes])
        refused(tmp_path / "a")
    refused(
        write_old(tmp_path / "a", pickled, keys, size + numbers, little_endian=False), "big-endian"
    )
    refused(
        write_old(tmp_path / "a", pickled, keys, struct.pack("<q", 2**60) + numbers),
        "size of its record",
    )
    refused(write_old(tmp_path / "a", pickled, b"\x80\x02].", size + numbers), "keys")
    refused(write_old(tmp_path / "a", pickled, b"\x80\x02]" + DEEP + b"a.", size + numbers), "keys")
    (tmp_path / "a").write_bytes(whole.replace(pickle.dumps(PROTOCOL, 2), TRIPLES + b"."))
    refused(tmp_path / "a", "protocol")


def test_a_big_endian_archive(tmp_path: Path) -> None:
    pickled, numbers = tensor(storage()), struct.pack(">4f", 0, 1, 2, 3)
    refused(
        write_zip(tmp_path / "a", pickled, **{"data/0": numbers, "byteorder": b"big"}), "big-endian"
    )


def test_what_is_no_file_or_no_archive(tmp_path: Path) -> None:
    refused(tmp_path, "no regular file")
    (tmp_path / "a").write_bytes(b"material_id,band_gap\n")
    refused(tmp_path / "a", "is not a model")
