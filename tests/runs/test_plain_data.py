"""Archives of torch.save by strangers: plain data or a line that says why not; nothing is executed or made large."""

import io
import os
import pickle
import pickletools
import resource
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from csgcnn.errors import UserError
from csgcnn.predictor import Predictor
from csgcnn.runs import plain_data
from csgcnn.runs.plain_data import load_plain

STORED = Path(__file__).with_name("format_1.ckpt")


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


def members(content: Any) -> dict[str, bytes]:
    """The members of the archive that torch.save makes."""
    buffer = io.BytesIO(content) if isinstance(content, bytes) else io.BytesIO()
    if not isinstance(content, bytes):
        torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, inside: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in inside.items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_pickle(path: Path, pickled: bytes) -> Path:
    """An archive of a pickle, with the other members that torch wants."""
    return write(path, members(torch.arange(4)) | {"data.pkl": pickled})


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_plain(path)
    message = str(caught.value)
    assert str(path) in message
    assert all(word in message for word in words), message
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400


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
    "numbers": [0, -1, 255, 65536, 2**40, -(2**70), 0.5, -0.0, float("inf"), True, False, None],
    "texts": ["", "Å × σ", "a\nb", "x" * 70_000],
    "empty": [{}, [], (), "", OrderedDict(), torch.empty(0), torch.empty(3, 0)],
    "tuples": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((1, [2]), {"a": (3,)})],
    "dicts": {"a": {1: "one", -2: {"b": {}}}, "": OrderedDict(z=1, a=2)},
    "state dict": torch.nn.Linear(2, 3).state_dict(),  # an OrderedDict with an attribute
    "scalars": [torch.tensor(3.5), torch.tensor(7), torch.tensor(True)],
    "views": [SHARED.view(3, 4).t(), SHARED[2:9:3], SHARED[:1].expand(5), SHARED, SHARED],
    "dtypes": [
        torch.tensor([0, 1, 1]).to(getattr(torch, name))
        for name in [
            "float32",
            "float64",
            "float16",
            "bfloat16",
            "int64",
            "int32",
            "int16",
            "int8",
            "uint8",
            "bool",
        ]
    ],
    "shared parts": [[1, 2]] * 3,
    "many": [str(i) for i in range(3000)],
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_plain_data_come_back(kind: str, tmp_path: Path) -> None:
    torch.save({"content": ORDINARY[kind]}, tmp_path / "a.ckpt")
    assert same(load_plain(tmp_path / "a.ckpt"), {"content": ORDINARY[kind]})


def test_a_state_dict_loses_its_attributes_and_a_tensor_its_gradient(tmp_path: Path) -> None:
    torch.save(
        [torch.nn.Linear(2, 3).state_dict(keep_vars=False), torch.ones(2, requires_grad=True)],
        tmp_path / "a",
    )
    state, tensor = load_plain(tmp_path / "a")
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


# Pickles that create the folder TRAP when they are trusted, each by other means.
CALLS = {
    "REDUCE": lambda trap: pickle.dumps(Call(os.mkdir, (trap,)), 2),
    "REDUCE in a key": lambda trap: pickle.dumps({(Call(os.mkdir, (trap,)),): 1}, 2),
    "STACK_GLOBAL": lambda trap: pickle.dumps(Call(os.mkdir, (trap,)), 4),
    "protocol 0": lambda trap: pickle.dumps(Call(os.mkdir, (trap,)), 0),
    "INST": lambda trap: b"(" + text(trap) + b"iposix\nmkdir\n.",
    "OBJ": lambda trap: b"(cposix\nmkdir\n" + text(trap) + b"o.",
    "eval": lambda trap: pickle.dumps(Call(eval, (f"__import__('os').mkdir({trap!r})",)), 2),
    "torch.load": lambda trap: pickle.dumps(Call(torch.load, (trap + ".pt", None, None)), 2),
}


@pytest.mark.parametrize("way", CALLS)
def test_calls_are_refused_and_not_made(way: str, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    torch.save(Call(os.mkdir, (str(trap),)), f"{trap}.pt")
    pickled = CALLS[way](str(trap))
    refused(
        write_pickle(tmp_path / "a.ckpt", pickled),
        "something other than plain data",
        "nothing was executed",
    )
    assert not trap.exists()
    if way != "torch.load":  # it trusts nothing by itself
        pickle.loads(pickled)
        assert trap.exists(), "the trap works where pickles are trusted"


NOT_PLAIN: dict[str, Any] = {
    "a set": {1, 2},
    "bytes": b"abc",
    "a complex number": 1j,
    "an array": torch.arange(3).numpy(),
    "a path": Path("a"),
    "a device": torch.device("cpu"),
    "a dtype": torch.float32,
    "a size": torch.Size([1]),
    "a parameter": torch.nn.Parameter(torch.ones(1)),
    "a sparse tensor": torch.eye(2).to_sparse(),
    "a complex tensor": torch.ones(1, dtype=torch.complex64),
    "a module": torch.nn.Linear(1, 1),
    "an OrderedDict of what is no flat tuple": Call(OrderedDict, ([("a", 1)],)),
    "attributes of what is no dict": Call(OrderedDict, (), None, iter([1])),
    "a key that is a tuple": {(1, 2): 3},
    "a key that is None": {None: 3},
    "a key that is a number": {0.5: 3},
    "a long integer": 2**3000,
}


@pytest.mark.parametrize("what", NOT_PLAIN)
def test_what_is_not_plain_is_refused(what: str, tmp_path: Path) -> None:
    torch.save({"a": [NOT_PLAIN[what]]}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "something other than plain data")


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


def test_nesting(tmp_path: Path) -> None:
    for depth in (plain_data.DEEPEST, plain_data.DEEPEST + 1):
        torch.save(nested(depth), tmp_path / f"{depth}.ckpt")
    assert load_plain(tmp_path / f"{plain_data.DEEPEST}.ckpt") == nested(plain_data.DEEPEST)
    refused(tmp_path / f"{plain_data.DEEPEST + 1}.ckpt", "nested too deeply")


def laughs(n: int) -> list[Any]:
    part: list[Any] = ["ha"]
    for _ in range(n):
        part = [part] * 10
    return part


def circle() -> dict[str, Any]:
    around: dict[str, Any] = {}
    around["around"] = [around]
    return around


TRIPLES = b"\x80\x02)" + b"".join(b"q%c" % i + b"h%c" % i * 3 + b"\x87" for i in range(100)) + b"."
ENDLESS = {
    "parts shared over and over": laughs(9),
    "a circle": circle(),
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
    "tuples shared over and over": TRIPLES,
    "a deep tuple as a key": b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_refused(what: str, tmp_path: Path) -> None:
    content = ENDLESS[what]
    pickled = content if isinstance(content, bytes) else members(content)["data.pkl"]
    refused(write_pickle(tmp_path / "a.ckpt", pickled), "was refused, nothing was executed")


BROKEN_PICKLES = {
    "empty": b"",
    "no end": b"\x80\x02}",
    "too little on the stack": b"\x80\x02}s.",
    "no mark": b"\x80\x02}u.",
    "an absent memo": b"\x80\x02h\x07.",
    "an unknown opcode": b"\x80\x02\xff.",
    "half a text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "an absent storage": b"\x80\x02("
    + text("storage")
    + b"ctorch\nByteStorage\n"
    + text("7")
    + b"NK\x01tQ.",
    "a storage without a name": b"\x80\x02)Q.",
}


@pytest.mark.parametrize("what", BROKEN_PICKLES)
def test_a_broken_pickle(what: str, tmp_path: Path) -> None:
    refused(write_pickle(tmp_path / "a.ckpt", BROKEN_PICKLES[what]))


# A tensor of 4 numbers of 8 bytes, and what may not take the place of a part of it.
TENSOR = pickletools.optimize(members(torch.arange(4))["data.pkl"])
LARGE = b"J\x00\x00\x00\x10"  # 2^28
UNFIT = {
    "a storage larger than its record": (b"K\x04t", LARGE + b"t"),
    "a storage smaller than its record": (b"K\x04t", b"K\x03t"),
    "a storage of another type": (b"LongStorage", b"IntStorage"),
    "a tensor larger than its storage": (b"K\x04\x85", LARGE + b"\x85"),
    "a tensor before its storage": (b"QK\x00", b"QJ\xff\xff\xff\xff"),
    "a tensor behind its storage": (b"QK\x00", b"QK\x01"),
    "a negative size": (b"K\x04\x85", b"J\xff\xff\xff\xff\x85"),
    "a negative stride": (b"K\x01\x85", b"J\xff\xff\xff\xff\x85"),
    "a stride beyond its storage": (b"K\x01\x85", LARGE + b"\x85"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_tensor_that_does_not_fit_its_storage(what: str, tmp_path: Path) -> None:
    assert same(load_plain(write_pickle(tmp_path / "a.ckpt", TENSOR)), torch.arange(4))
    old, new = UNFIT[what]
    assert TENSOR.count(old) == 1
    words = (
        ["size of its record"] if "storage" in what.partition("its")[0] else []
    )  # torch < 2.10 reads beyond it
    refused(write_pickle(tmp_path / "a.ckpt", TENSOR.replace(old, new)), *words)


def test_tensors_that_declare_more_than_the_file(tmp_path: Path) -> None:
    torch.save(torch.ones(1).expand(2**15, 2**15), tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "[32768, 32768]", "larger than the file")
    tensor = torch.ones(10_000)
    torch.save([tensor[i:] for i in range(plain_data.MOST_SHARED)], tmp_path / "a.ckpt")
    assert len(load_plain(tmp_path / "a.ckpt")) == plain_data.MOST_SHARED
    torch.save([tensor[i:] for i in range(2 * plain_data.MOST_SHARED)], tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "larger than the file")


WHOLE = STORED.read_bytes()
TENSOR_BYTES = members(WHOLE)["data/0"]


def overlapping() -> bytes:
    """Of two members the directory says that they are the same bytes of the file."""
    inside = {"data.pkl": b"\x80\x02}.", "version": b"3", "data/0": bytes(64), "data/1": bytes(64)}
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


FILES = {
    "empty": (b"", "truncated"),
    "text": (b"material_id,band_gap\n", "truncated"),
    "another archive": (zipped("hello.txt"), "damaged"),
    "an empty archive": (zipped(), "damaged"),
    "half": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "the last byte missing": (WHOLE[:-1], "truncated"),
    "a byte of a tensor": (WHOLE.replace(TENSOR_BYTES, TENSOR_BYTES[::-1]), "CRC"),
    "compressed": (zipped("a/data.pkl", compression=zipfile.ZIP_DEFLATED), "compressed"),
    "two of a name": (zipped("a/data.pkl", "a/data.pkl"), "two of the same name"),
    "overlapping": (overlapping(), ""),
    "of terminal codes": (zipped("a/data.pkl\x1b[31m\n"), "damaged"),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_no_checkpoint(what: str, tmp_path: Path) -> None:
    content, word = FILES[what]
    (tmp_path / "a.ckpt").write_bytes(content)
    refused(tmp_path / "a.ckpt", word)


def test_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path, "no regular file")
    refused(tmp_path / "absent.ckpt", "no such file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "no regular file")


@pytest.mark.parametrize(
    ("limit", "value", "word"),
    [("LARGEST", len(WHOLE) - 1, "expected at most"), ("MOST_MEMBERS", 3, "members")],
)
def test_limits(limit: str, value: int, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load_plain(STORED)
    monkeypatch.setattr(plain_data, limit, value)
    refused(STORED, word)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert"]), st.integers(0), st.integers(0, 255)),
    min_size=1,
)


def changed(content: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    for change, place, byte in changes[:5]:
        i = place % (len(content) + 1)
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
def test_a_damaged_file_is_what_it_was_or_refused(
    changes: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    (tmp_path / "a.ckpt").write_bytes(changed(WHOLE, changes))
    with suppress(UserError):
        assert same(load_plain(tmp_path / "a.ckpt"), load_plain(STORED))


@fuzz
def test_a_forged_file_is_a_model_or_refused(
    changes: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    inside = members(WHOLE)
    path = write(tmp_path / "a.ckpt", inside | {"data.pkl": changed(inside["data.pkl"], changes)})
    with suppress(UserError):
        Predictor.load(path)
