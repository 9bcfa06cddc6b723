"""Test reading files of torch.save of any version: plain data, or an error message.

Nothing is executed, and memory and time are proportional to the size of the file.
"""

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from legacy_files import (
    DEEP,
    TRIPLES,
    load,
    refused,
    refused_in_both,
    text,
    write_old,
)
from refusals import same

from csgcnn.runs.legacy_archives import MAGIC, PROTOCOL

pytestmark = pytest.mark.usefixtures("little_memory")

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


@pytest.mark.slow
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
