"""Files of `torch.save` of any age, by strangers, read without the pickle module.

`plain_data` reads what csgcnn writes; others keep numpy scalars and devices beside their tensors, and before torch 1.6
wrote no zip archive. Here some thirty opcodes make plain data; the few functions that they may name are not called but
imitated, and all else is refused by its name.
"""

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from csgcnn.runs.plain_data import Copier, NotPlainError, reading, unpack

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickled, as files before torch 1.6 begin
PROTOCOL = 1001

_DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch HalfStorage": torch.float16,
    "torch LongStorage": torch.int64,
}
_NUMPY = {"f8": "<d", "f4": "<f"}  # how `struct` names its scalars
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Global:
    """What a pickle calls by a name: a function, a class, or a type that such a call made."""

    name: str


def load_foreign(path: Path, kind: str) -> Any:
    """Read what `torch.save` wrote: dicts, lists, tuples, strings, numbers and tensors, on the CPU.

    `kind`: what the file should be, for messages.

    Raises:
        UserError: there is no such file, or it is truncated, damaged, too large, or holds anything else.
    """
    with reading(path, kind) as size, path.open("rb") as stream:
        is_old = stream.read(len(MAGIC)) == MAGIC
        content, n_bytes = _read_old(stream, size) if is_old else _read_zip(path, size)
        return Copier(n_bytes, size).copy(content)


def _read_zip(path: Path, size: int) -> tuple[Any, int]:
    """The content, its tensors filled, and the bytes of its pickle."""
    pickled, _, archive = unpack(path, size)
    storages = _Storages(size)
    content = _Reader(storages).read(io.BytesIO(pickled))
    with zipfile.ZipFile(archive) as members:
        _check_order(
            "checkpoint/byteorder" not in members.namelist()
            or members.read("checkpoint/byteorder") == b"little"
        )
        for key in storages.tensors:
            storages.fill(key, members.read(f"checkpoint/data/{key}"))
    return content, len(pickled)


def _read_old(stream: BinaryIO, size: int) -> tuple[Any, int]:
    """The same of a file from before torch 1.6: pickles of protocol, system, content and keys; then the storages."""
    storages = _Storages(size)
    protocol, system, content, keys = (_Reader(storages).read(stream) for _ in range(4))
    n_bytes = stream.tell()
    if protocol != PROTOCOL:
        raise NotPlainError(f"a protocol that is not {PROTOCOL}")
    _check_order(type(system) is dict and system.get("little_endian") is True)
    if (
        type(keys) is not list
        or any(type(key) is not str for key in keys)
        or set(keys) != storages.tensors.keys()
    ):
        raise NotPlainError("keys that are not those of its storages")
    for key in keys:
        (n_elements,) = struct.unpack("<q", stream.read(8))
        if n_elements != storages.tensors[key].numel():
            raise NotPlainError("a storage that has not the size of its record")
        storages.fill(key, stream.read(n_elements * storages.tensors[key].element_size()))
    return content, n_bytes


def _check_order(is_little: bool) -> None:
    if not is_little:
        raise NotPlainError("numbers of a big-endian machine")


class _Storages:
    """The storages of a file of `size` bytes, by key; they are filled when all are known."""

    def __init__(self, size: int) -> None:
        self.bytes_left = size
        self.tensors: dict[str, Tensor] = {}

    def get(self, described: Sequence[Any]) -> Tensor:
        """The storage that (word, class, key, device, number of elements[, part]) names, one-dimensional."""
        word, storage_class, key, _, n_elements, *part = described
        if (
            word != "storage"
            or type(key) is not str
            or type(n_elements) is not int
            or part not in ([], [None])
        ):
            raise NotPlainError("a persistent id that is no storage")
        name = storage_class.name if isinstance(storage_class, _Global) else ""
        if name not in _DTYPES:
            raise NotPlainError(f"a storage of {name or 'no class'}")
        if key not in self.tensors:
            self.bytes_left -= n_elements * _DTYPES[name].itemsize
            if n_elements < 0 or self.bytes_left < 0:
                raise NotPlainError("storages larger than the file")
            self.tensors[key] = torch.empty(n_elements, dtype=_DTYPES[name])
        elif (self.tensors[key].dtype, self.tensors[key].numel()) != (_DTYPES[name], n_elements):
            raise NotPlainError("a storage of two types or sizes")
        return self.tensors[key]

    def fill(self, key: str, content: bytes) -> None:
        tensor = self.tensors[key]
        if len(content) != tensor.numel() * tensor.element_size():
            raise NotPlainError("a storage that has not the size of its record")
        if content:
            tensor.copy_(torch.frombuffer(bytearray(content), dtype=tensor.dtype))


class _Reader:
    """Follows a pickle, opcode by opcode, with a stack of plain values."""

    def __init__(self, storages: _Storages) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def read(self, stream: BinaryIO) -> Any:
        """What the pickle describes that comes next in the stream."""
        for opcode, argument, _ in pickletools.genops(stream):
            self._follow(opcode.name, argument)
        return self.stack.pop()

    def _follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "GLOBAL":
            stack.append(_known(argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            self.stack = self.below.pop()
            self._collect(name, stack)
        elif name in _TUPLES or name in ("APPEND", "SETITEM"):
            n_items = _TUPLES.get(name, 1 if name == "APPEND" else 2)
            self._collect(name, [stack.pop() for _ in range(n_items)][::-1])
        elif name == "BINPERSID":
            stack.append(self.storages.get(stack.pop()))
        elif name in ("REDUCE", "BUILD"):
            argument = stack.pop()
            stack.append((_result if name == "REDUCE" else _built)(stack.pop(), argument))
        elif not (name == "STOP" or (name == "PROTO" and argument == 2)):
            raise NotPlainError(
                name if argument is None else f"{name} {argument}".replace(" ", ".")
            )

    def _collect(self, name: str, items: list[Any]) -> None:
        """What TUPLE, APPENDS or SETITEMS does with `items`."""
        if name.startswith("TUPLE"):
            self.stack.append(tuple(items))
            return
        to = self.stack[-1]
        if name.startswith("APPEND") and isinstance(to, list):
            to.extend(items)
        elif name.startswith("SETITEM") and isinstance(to, dict):
            if any(type(key) not in (str, int) for key in items[::2]):
                raise NotPlainError("a dict whose keys are neither strings nor integers")
            to.update(zip(items[::2], items[1::2], strict=True))
        else:
            raise NotPlainError(f"{name} to what is none")


def _known(called: str) -> _Global:
    name = called.replace("numpy._core.", "numpy.core.")  # its name since numpy 2
    if name not in _DTYPES and name not in _IMITATED:
        raise NotPlainError(f"it wants to call or make {called.replace(' ', '.')}")
    return _Global(name)


def _result(function: Any, arguments: Any) -> Any:
    """What the call of a known function would give."""
    if (
        not isinstance(function, _Global)
        or function.name not in _IMITATED
        or type(arguments) is not tuple
    ):
        raise NotPlainError("REDUCE of what is no known function")
    return _IMITATED[function.name](*arguments)


def _built(value: Any, state: Any) -> Any:
    """BUILD sets attributes; those of dicts and types say nothing that is needed here."""
    if not isinstance(value, dict | _Global):
        raise NotPlainError(f"attributes of a {type(value).__name__}")
    return value


def _tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    """A view of a storage; what else a call may say concerns gradients."""
    numbers = (offset, *size, *stride)
    are_usual = len(numbers) < 20 and all(type(n) is int and 0 <= n < 2**40 for n in numbers)
    if type(storage) is not Tensor or not are_usual or len(size) != len(stride):
        raise NotPlainError("a tensor of what is no storage, or of an odd size")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    n_elements = math.prod(list(size))
    if n_elements > storage.numel() or (n_elements and last >= storage.numel()):
        raise NotPlainError(f"a tensor {list(size)} larger than its storage")
    return storage.as_strided(size, stride, offset)


def _scalar(dtype: Any, content: Any) -> float:
    if not isinstance(dtype, _Global) or dtype.name not in _NUMPY or type(content) is not bytes:
        raise NotPlainError("a numpy scalar that is no number")
    (value,) = struct.unpack(_NUMPY[dtype.name], content)
    return float(value)


def _encoded(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise NotPlainError("bytes written as anything but latin1")
    return text.encode("latin1")


def _dtype(code: Any, *_: Any) -> _Global:
    if type(code) is not str or code not in _NUMPY:
        raise NotPlainError("a numpy type other than f4 and f8")
    return _Global(code)


def _device(kind: Any, index: Any = 0) -> str:
    if type(kind) is not str or type(index) is not int:
        raise NotPlainError("a device that is none")
    return f"{kind}:{index}"


def _dict() -> dict[Any, Any]:
    return {}


_IMITATED: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _dict,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch device": _device,
    "numpy.core.multiarray scalar": _scalar,
    "numpy dtype": _dtype,
    "_codecs encode": _encoded,
}
