"""Files of torch.save, of any version: plain data or a line that says why not.

Nothing is executed, and memory and time are proportional to the file.
"""

import io
import os
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refusal, same

from csgcnn.errors import UserError
from csgcnn.predictor import Predictor
from csgcnn.runs.legacy_archives import MAGIC, PROTOCOL, load_legacy
from csgcnn.runs.untrusted import Limits

pytestmark = pytest.mark.usefixtures("little_memory")

STORED = Path(__file__).with_name("format_1.ckpt")
WHOLE = STORED.read_bytes()
load = partial(load_legacy, kind="model")


def members(content: Any) -> dict[str, bytes]:
    """The members of the archive that torch.save makes."""
    buffer = io.BytesIO(content) if isinstance(content, bytes) else io.BytesIO()
    if not isinstance(content, bytes):
        torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, pickled: bytes, **others: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": pickled, **others}.items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_old(
    path: Path, pickled: bytes, keys: bytes = b"\x80\x02].", storages: bytes = b"", **system: Any
) -> Path:
    """A file as torch before 1.6 wrote it."""
    head = pickle.dumps(PROTOCOL, 2), pickle.dumps({"little_endian": True, **system}, 2)
    path.write_bytes(b"".join([MAGIC, *head, pickled, keys, storages]))
    return path


def refused(path: Path, *parts: str) -> None:
    message = refusal(load, path)
    assert all(part in message for part in parts), message


def refused_in_both(folder: Path, pickled: bytes, *parts: str) -> None:
    refused(write_zip(folder / "new", pickled), *parts)
    refused(write_old(folder / "old", pickled), *parts)


SHARED = torch.arange(12.0)
PLAIN: dict[str, Any] = {
    "numbers": [0, -1, 255, 65536, 2**40, -(2**70), 0.5, -0.0, float("inf"), True, False, None],
    "texts": ["", "Å × σ", "a\nb", "x" * 70_000],
    "empty": [{}, [], (), "", OrderedDict(), torch.empty(0), torch.empty(3, 0)],
    "tuples": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((1, [2]), {"a": (3,)})],
    "dicts": {"a": {1: "one", -2: {"b": {}}}, "": OrderedDict(z=1, a=OrderedDict())},
    "a state dict": torch.nn.BatchNorm1d(3).state_dict(),  # an OrderedDict with an attribute
    "scalars": [torch.tensor(3.5), torch.tensor(7), torch.tensor(True)],
    "views": [SHARED.view(3, 4).t(), SHARED[2:9:3], SHARED[:1].expand(5), SHARED, SHARED],
    "dtypes": [
        torch.tensor([0, 1, 1]).to(dtype)
        for dtype in (
            *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
            *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
        )
    ],
    "shared parts": [[1, 2]] * 3,
    "many": [str(i) for i in range(3000)],
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("kind", PLAIN)
def test_plain_data_come_back(kind: str, is_zip: bool, tmp_path: Path) -> None:
    torch.save({"content": PLAIN[kind]}, tmp_path / "a", _use_new_zipfile_serialization=is_zip)
    assert same(load(tmp_path / "a"), {"content": PLAIN[kind]})


@pytest.mark.parametrize("is_zip", [True, False])
def test_scalars_of_numpy_and_devices_become_plain(is_zip: bool, tmp_path: Path) -> None:
    values = [np.float64(0.1), np.float32(0.5), torch.device("cpu"), torch.device("cuda", 3)]
    torch.save(values, tmp_path / "a", _use_new_zipfile_serialization=is_zip)
    assert same(load(tmp_path / "a"), [0.1, 0.5, "cpu:0", "cuda:3"])
    before_numpy_2 = pickle.dumps(values[0], 2).replace(b"numpy._core.", b"numpy.core.")
    assert load(write_old(tmp_path / "b", before_numpy_2)) == 0.1


def test_a_state_dict_loses_its_attributes_and_a_tensor_its_gradient(tmp_path: Path) -> None:
    saved = [torch.nn.Linear(2, 3).state_dict(), torch.ones(2, requires_grad=True)]
    torch.save(saved, tmp_path / "a")
    state, tensor = load(tmp_path / "a")
    assert type(state) is dict
    assert not tensor.requires_grad


class Call:
    """Is pickled as the call of a function."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


# Pickles that create the folder `trap` when they are trusted, and by what name they are refused.
CALLS = {
    "REDUCE": (lambda trap: pickle.dumps(Call(os.mkdir, (trap,)), 2), "posix.mkdir"),
    "REDUCE in a key": (
        lambda trap: pickle.dumps({(Call(os.mkdir, (trap,)),): 1}, 2),
        "posix.mkdir",
    ),
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
    refused_in_both(tmp_path, pickled, "is refused", "nothing was executed", name)
    assert not trap.exists()
    pickle.loads(pickled)
    assert trap.exists(), "the trap works where pickles are trusted"


def test_torch_load_is_not_called(tmp_path: Path) -> None:
    pickled = pickle.dumps(Call(torch.load, (str(tmp_path / "a.pt"), None, None)), 2)
    refused_in_both(tmp_path, pickled, "nothing was executed", "torch.serialization.load")


@pytest.mark.parametrize("part", range(4))
def test_calls_are_refused_in_every_part_of_an_old_file(part: int, tmp_path: Path) -> None:
    parts = [pickle.dumps(part, 2) for part in (PROTOCOL, {"little_endian": True}, {}, [])]
    trap = tmp_path / "sprung"
    parts[part] = pickle.dumps(Call(os.mkdir, (str(trap),)), 2)
    (tmp_path / "a").write_bytes(MAGIC + b"".join(parts))
    refused(tmp_path / "a", "posix.mkdir")
    assert not trap.exists()


class Appending:
    """Is pickled as a dict to which an item is appended."""

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), None, iter([1])


NOT_PLAIN: dict[str, Any] = {
    "a set": {1, 2},
    "bytes": b"abc",
    "a complex number": 1j,
    "an array": torch.arange(3).numpy(),
    "a text of numpy": np.str_("abc"),
    "a path": Path("a"),
    "a dtype": torch.float32,
    "a size": torch.Size([1]),
    "a parameter": torch.nn.Parameter(torch.ones(1)),
    "a sparse tensor": torch.eye(2).to_sparse(),
    "a complex tensor": torch.ones(1, dtype=torch.complex64),
    "a module": torch.nn.Linear(1, 1),
    "an OrderedDict with content": Call(OrderedDict, ([("a", 1)],)),
    "items appended to a dict": Appending(),
    "a device without a text": Call(torch.device, (("cpu",),)),
    "a key that is a tuple": {(1, 2): 3},
    "a key that is None": {None: 3},
    "a key that is a number": {0.5: 3},
    "a key that is a boolean": {True: 3},
    "a type of numpy": np.dtype("f8"),
    "a long integer": 2**3000,
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("what", NOT_PLAIN)
def test_other_objects_are_refused(what: str, is_zip: bool, tmp_path: Path) -> None:
    torch.save({"a": [NOT_PLAIN[what]]}, tmp_path / "a", _use_new_zipfile_serialization=is_zip)
    refused(tmp_path / "a", "is refused, nothing was executed")


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
ENDLESS = {
    "parts shared over and over": pickle.dumps(laughs(9), 2),
    "a circle": pickle.dumps(circle(), 2),
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples": b"\x80\x02" + DEEP + b".",
    "tuples shared over and over": TRIPLES + b".",
    "a deep tuple as a key": b"\x80\x02}" + DEEP + b"K\x01s.",
}
BROKEN = {
    "a deep tuple as a type of numpy": b"\x80\x02cnumpy\ndtype\n" + DEEP + b"\x85R.",
    "a deep tuple as a device": b"\x80\x02ctorch\ndevice\n" + DEEP + b"\x85R.",
    "a deep tuple as a storage": b"\x80\x02" + DEEP + b"Q.",
    "an empty storage": b"\x80\x02)Q.",
    "a call of a tuple": b"\x80\x02)" + DEEP + b"R.",
    "a call of a storage": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "attributes without an object": b"\x80\x02}b.",
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


@pytest.mark.parametrize("what", ENDLESS)
def test_endless_pickles_are_refused(what: str, tmp_path: Path) -> None:
    refused_in_both(tmp_path, ENDLESS[what], "is refused, nothing was executed")


@pytest.mark.parametrize("what", BROKEN)
def test_broken_pickles_are_refused(what: str, tmp_path: Path) -> None:
    refused_in_both(tmp_path, BROKEN[what])


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


def test_nesting_is_limited(tmp_path: Path) -> None:
    for depth in (50, 51):
        torch.save(nested(depth), tmp_path / f"{depth}")
    assert load(tmp_path / "50") == nested(50)
    refused(tmp_path / "51", "nested too deeply")


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


def overlapping() -> bytes:
    """Of two members the directory says that they are the same bytes of the file."""
    pickled = tensor(storage("1"))
    inside = {"data.pkl": pickled, "version": b"3", "data/0": bytes(16), "data/1": bytes(16)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in inside.items():
            archive.writestr(f"archive/{name}", content)
        archive.infolist()[3].header_offset = archive.infolist()[2].header_offset
    return buffer.getvalue()


def zipped(*names: str, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as archive:
        warnings.simplefilter("ignore")  # two members of the same name
        for name in names:
            archive.writestr(name, bytes(10_000))
    return buffer.getvalue()


TENSOR_BYTES = members(WHOLE)["data/0"]
FILES = {
    "empty": (b"", "truncated"),
    "text": (b"material_id,band_gap\n", "is not a model"),
    "another archive": (zipped("hello.txt"), "is not a model"),
    "an empty archive": (zipped(), "is not a model"),
    "half": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "the last byte missing": (WHOLE[:-1], "truncated"),
    "a byte of a tensor": (WHOLE.replace(TENSOR_BYTES, TENSOR_BYTES[::-1]), "CRC"),
    "compressed": (zipped("a/data.pkl", compression=zipfile.ZIP_DEFLATED), "compressed"),
    "two of a name": (zipped("a/data.pkl", "a/data.pkl"), "two of the same name"),
    "overlapping": (overlapping(), "truncated"),
    "of terminal codes": (zipped("a/data.pkl\x1b[31m\n"), "is not a model"),
}


@pytest.mark.parametrize("what", FILES)
def test_other_files_are_refused(what: str, tmp_path: Path) -> None:
    content, part = FILES[what]
    (tmp_path / "a").write_bytes(content)
    refused(tmp_path / "a", part)


def test_a_directory_and_a_pipe_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "is a directory; did you mean")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is not a regular file")
    refused(tmp_path / "absent", "is not a regular file")


@pytest.mark.parametrize(
    ("limits", "part"),
    [
        (Limits(file_bytes=len(WHOLE) - 1), "expected at most"),
        (Limits(members=3), "members"),
        (Limits(depth=1), "nested too deeply"),
    ],
)
def test_limits(limits: Limits, part: str) -> None:
    load(STORED)
    assert part in refusal(partial(load, limits=limits), STORED)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert"]), st.integers(0), st.integers(0, 255)),
    min_size=1,
)


def changed(content: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    for change, position, byte in changes[:5]:
        i = position % (len(content) + 1)
        end = {"flip": i + 1, "cut": i + 1 + byte * 20, "insert": i}[change]
        content = content[:i] + (b"" if change == "cut" else bytes([byte])) + content[end:]
    return content


def fuzz(function: Callable[..., None]) -> Callable[..., None]:
    """Sixty cases that never change."""
    check = settings(
        max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return check(given(changes=CHANGES)(function))


@fuzz
def test_a_damaged_file_reads_as_before_or_is_refused(
    changes: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(changed(WHOLE, changes))
    with suppress(UserError):
        assert same(load(tmp_path / "a"), load(STORED))


@fuzz
def test_a_forged_file_is_a_model_or_refused(
    changes: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    inside = members(WHOLE)
    pickled = changed(inside.pop("data.pkl"), changes)
    with suppress(UserError):
        Predictor.load(write_zip(tmp_path / "a", pickled, **inside))
