"""Read files of `torch.save`, of any version of torch, without the pickle module.

Checkpoints of formats 1-3 and those of the original CGCNN are such files. Their pickle is followed
opcode by opcode. The few functions that it may name are imitated, not called; others are refused.
`torch.load(weights_only=True)` is not enough: a file of a kilobyte can make it allocate gigabytes,
or hash deeply nested tuples until the process dies.
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

from csgcnn.runs.untrusted import LIMITS, Limits, RefusedError, checked_tree, reading

ZIP_MAGIC = b"PK\x03\x04"
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickled; files before torch 1.6 begin with it
PROTOCOL = 1001
BIG_ENDIAN = "it was written on a big-endian machine"

_DTYPES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
_NUMPY_FORMATS = {"f8": "<d", "f4": "<f"}  # of scalars, for `struct`


def is_legacy_archive(start: bytes) -> bool:
    """Return whether these first bytes are those of a file of `torch.save`."""
    return start.startswith((ZIP_MAGIC, MAGIC))


def load_legacy(path: Path, kind: str, limits: Limits = LIMITS) -> Any:
    """Read dicts, lists, tuples, strings, numbers and tensors that `torch.save` wrote.

    Args:
        path: The file.
        kind: The expected content, for messages, such as "csgcnn checkpoint".
        limits: Largest sizes.

    Returns:
        The content; tensors are on the CPU, scalars of numpy are floats, devices are strings.

    Raises:
        UserError: The file is absent, truncated, damaged or too large, or holds anything else.
    """
    with reading(path, kind, limits) as size, path.open("rb") as stream:
        is_old = stream.read(len(MAGIC)) == MAGIC
        content, n_pickled = _read_old(stream, size) if is_old else _read_zip(path, size, limits)
        # without shared parts, a pickle makes at most one node of each of its bytes
        return checked_tree(content, n_pickled, size, limits)


def _read_zip(path: Path, size: int, limits: Limits) -> tuple[Any, int]:
    with zipfile.ZipFile(path) as archive:
        members = _members(archive, size, limits)
        if "data.pkl" not in members:
            raise zipfile.BadZipFile("it has no data.pkl")
        if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
            raise RefusedError(BIG_ENDIAN)
        pickled = archive.read(members["data.pkl"])
        storages = _Storages(size)
        content = _Interpreter(storages).read(io.BytesIO(pickled))
        for key in storages.tensors:
            if f"data/{key}" not in members:
                raise RefusedError("a storage has no record")
            storages.fill(key, archive.read(members[f"data/{key}"]))
    return content, len(pickled)


def _members(archive: zipfile.ZipFile, size: int, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    """Return the members of the archive's one folder by their names in it."""
    members = archive.infolist()
    if len(members) > limits.members or len({m.filename for m in members}) < len(members):
        raise RefusedError(f"it has {len(members)} members, or two of the same name")
    if any(m.compress_type or m.compress_size != m.file_size for m in members):
        raise RefusedError("it is compressed, and a checkpoint never is")
    if sum(member.file_size for member in members) > size:
        raise RefusedError("its members overlap")
    folder = members[0].filename.partition("/")[0] + "/" if members else ""
    return {m.filename[len(folder) :]: m for m in members if m.filename.startswith(folder)}


def _read_old(stream: BinaryIO, size: int) -> tuple[Any, int]:
    """Read pickles of protocol, system, content and keys, and then the storages."""
    storages = _Storages(size)
    protocol, system, content, keys = (_Interpreter(storages).read(stream) for _ in range(4))
    n_pickled = stream.tell()
    if protocol != PROTOCOL:
        raise RefusedError(f"its protocol is not {PROTOCOL}")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise RefusedError(BIG_ENDIAN)
    are_keys = type(keys) is list and all(type(key) is str for key in keys)
    if not are_keys or set(keys) != storages.tensors.keys():
        raise RefusedError("its keys are not those of its storages")
    for key in keys:
        (n_elements,) = struct.unpack("<q", stream.read(8))
        if n_elements != storages.tensors[key].numel():
            raise RefusedError("a storage does not have the size of its record")
        storages.fill(key, stream.read(n_elements * storages.tensors[key].element_size()))
    return content, n_pickled


class _Storages:
    """Storages of a file of `size` bytes by their keys; they are filled when all are known."""

    def __init__(self, size: int) -> None:
        self.bytes_left = size
        self.tensors: dict[str, Tensor] = {}

    def get(self, described: Sequence[Any]) -> Tensor:
        """Return the storage of ("storage", class, key, device, n_elements[, None]) as [n]."""
        tag, storage_class, key, _, n_elements, *view = described
        has_types = tag == "storage" and type(key) is str and type(n_elements) is int
        if not has_types or view not in ([], [None]):
            raise RefusedError("a persistent id is not a storage")
        name = storage_class.name if isinstance(storage_class, _Global) else ""
        if (dtype := _DTYPES.get(name)) is None:
            raise RefusedError(f"a storage of {name or 'no class'}")
        if key not in self.tensors:
            self.bytes_left -= n_elements * dtype.itemsize
            if n_elements < 0 or self.bytes_left < 0:
                raise RefusedError("its storages are larger than the file")
            self.tensors[key] = torch.empty(n_elements, dtype=dtype)
        elif (self.tensors[key].dtype, self.tensors[key].numel()) != (dtype, n_elements):
            raise RefusedError("a storage has two types or sizes")
        return self.tensors[key]

    def fill(self, key: str, content: bytes) -> None:
        """Copy the bytes of a record into its storage."""
        tensor = self.tensors[key]
        if len(content) != tensor.numel() * tensor.element_size():
            raise RefusedError("a storage does not have the size of its record")
        if content:
            tensor.copy_(torch.frombuffer(bytearray(content), dtype=tensor.dtype))


@dataclass(frozen=True)
class _Global:
    """A function or class that a pickle names, or the type that a call of one returned."""

    name: str


class _Interpreter:
    """Follow a pickle, opcode by opcode, with a stack of plain values."""

    def __init__(self, storages: _Storages) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        literals = ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
        self._operations: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(literals, self._push),
            "NONE": lambda _: self._push(None),
            "NEWTRUE": lambda _: self._push(True),
            "NEWFALSE": lambda _: self._push(False),
            "EMPTY_DICT": lambda _: self._push({}),
            "EMPTY_LIST": lambda _: self._push([]),
            "EMPTY_TUPLE": lambda _: self._push(()),
            "GLOBAL": lambda name: self._push(_known_global(name)),
            "BINPUT": lambda key: self.memo.update({key: self.stack[-1]}),
            "LONG_BINPUT": lambda key: self.memo.update({key: self.stack[-1]}),
            "BINGET": lambda key: self._push(self.memo[key]),
            "LONG_BINGET": lambda key: self._push(self.memo[key]),
            "MARK": self._mark,
            "TUPLE": lambda _: self._push(tuple(self._marked())),
            "TUPLE1": lambda _: self._push(tuple(self._popped(1))),
            "TUPLE2": lambda _: self._push(tuple(self._popped(2))),
            "TUPLE3": lambda _: self._push(tuple(self._popped(3))),
            "APPENDS": lambda _: self._extend(self._marked()),
            "APPEND": lambda _: self._extend(self._popped(1)),
            "SETITEMS": lambda _: self._update(self._marked()),
            "SETITEM": lambda _: self._update(self._popped(2)),
            "BINPERSID": lambda _: self._push(self.storages.get(self.stack.pop())),
            "REDUCE": lambda _: self._push(_result(*self._popped(2))),
            "BUILD": lambda _: self.stack.pop(),  # it sets attributes, and none is needed
            "STOP": lambda _: None,
        }

    def read(self, stream: BinaryIO) -> Any:
        """Return the value of the next pickle in the stream."""
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in self._operations:
                self._operations[opcode.name](argument)
            elif (opcode.name, argument) != ("PROTO", 2):
                name = opcode.name if argument is None else f"{opcode.name} {argument}"
                raise RefusedError(f"its pickle has the opcode {name.replace(' ', '.')}")
        return self.stack.pop()

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _popped(self, n: int) -> list[Any]:
        return [self.stack.pop() for _ in range(n)][::-1]

    def _mark(self, _: Any) -> None:
        self.outer_stacks.append(self.stack)
        self.stack = []

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self.outer_stacks.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise RefusedError("it appends to an object that is not a list")
        self.stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise RefusedError("it sets items of an object that is not a dict")
        if any(type(key) not in (str, int) for key in items[::2]):
            raise RefusedError("a dict has keys that are neither strings nor integers")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _known_global(called: str) -> _Global:
    name = called.replace("numpy._core.", "numpy.core.")  # its name since numpy 2
    if name not in _DTYPES and name not in _IMITATED:
        raise RefusedError(f"it names {called.replace(' ', '.')}, which a checkpoint does not need")
    return _Global(name)


def _result(function: Any, arguments: Any) -> Any:
    """Return the result that a call of the function would have."""
    if not isinstance(function, _Global) or type(arguments) is not tuple:
        raise RefusedError("it calls an object that is not a function")
    try:
        return _IMITATED[function.name](*arguments)
    except (KeyError, TypeError) as error:
        raise RefusedError(f"it calls {function.name} with other arguments") from error


def _tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    """Return a view of a storage; the other arguments concern gradients."""
    numbers = (offset, *size, *stride)
    are_sizes = len(numbers) < 20 and all(type(n) is int and 0 <= n < 2**40 for n in numbers)
    if type(storage) is not Tensor or not are_sizes or len(size) != len(stride):
        raise RefusedError("a tensor has no storage or no valid size")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    n_elements = math.prod(list(size))
    if n_elements > storage.numel() or (n_elements and last >= storage.numel()):
        raise RefusedError(f"a tensor {list(size)} is larger than its storage")
    return storage.as_strided(size, stride, offset)


def _scalar(dtype: Any, content: Any) -> float:
    is_number = isinstance(dtype, _Global) and dtype.name in _NUMPY_FORMATS
    if not is_number or type(content) is not bytes:
        raise RefusedError("a scalar of numpy is not a number")
    return float(struct.unpack(_NUMPY_FORMATS[dtype.name], content)[0])


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise RefusedError("bytes have another encoding than latin1")
    return text.encode("latin1")


def _dtype(code: Any, *_: Any) -> _Global:
    if type(code) is not str or code not in _NUMPY_FORMATS:
        raise RefusedError("a dtype of numpy is not f4 or f8")
    return _Global(code)


def _device(kind: Any, index: Any = 0) -> str:
    if type(kind) is not str or type(index) is not int:
        raise RefusedError("a device has no valid name")
    return f"{kind}:{index}"


_IMITATED: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": lambda: {},
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch device": _device,
    "numpy.core.multiarray scalar": _scalar,
    "numpy dtype": _dtype,
    "_codecs encode": _encode,
}
