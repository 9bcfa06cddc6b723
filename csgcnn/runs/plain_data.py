"""Archives of `torch.save` that strangers made: plain data or nothing, for memory and time in proportion to the file.

`torch.load(weights_only=True)` calls nothing foreign, but a kilobyte can make it unpack or allocate gigabytes, or hash
a million nested tuples, which brings the interpreter down. So the archive and its pickle are looked through before.
"""

import io
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from csgcnn.errors import UserError, first_line

LARGEST = 4 * 2**30  # bytes of a file
MOST_MEMBERS = 100_000
DEEPEST = 50  # containers within containers
MOST_SHARED = 10  # how often a byte may be declared by tensors that share it

_WANTED = re.compile(
    r"data\.pkl|byteorder|version|data/\d+"
)  # members of the archive that torch.load needs
_REBUILD, _ORDERED = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
_STORAGES = {  # and the bytes of a number in them
    **{
        "torch DoubleStorage": 8,
        "torch LongStorage": 8,
        "torch FloatStorage": 4,
        "torch IntStorage": 4,
    },
    **{"torch HalfStorage": 2, "torch BFloat16Storage": 2, "torch ShortStorage": 2},
    **{"torch CharStorage": 1, "torch ByteStorage": 1, "torch BoolStorage": 1},
}
_GLOBALS = {_REBUILD, _ORDERED, *_STORAGES}
_KEYS = ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1")
_VALUES = {
    **dict.fromkeys(_KEYS, "key"),
    **dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT"), "value"),
    **{"EMPTY_DICT": "dict", "EMPTY_LIST": "list", "EMPTY_TUPLE": "flat"},
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class NotPlainError(Exception):
    """The file holds what plain data does not need."""


def load_plain(path: Path) -> Any:
    """Read what `torch.save` wrote: dicts, lists, tuples, strings, numbers, booleans, None and tensors.

    Raises:
        UserError: there is no such file, or it is truncated, damaged, too large, or holds anything else.
    """
    if not path.exists():
        raise UserError(f"ckpt={path}: there is no such file")
    with reading(path, "csgcnn checkpoint") as size:
        pickled, sizes, archive = unpack(path, size)
        _look_through(pickled, sizes)
        content = torch.load(archive, map_location="cpu", weights_only=True)
        return Copier(len(pickled), size).copy(content)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[int]:
    """Around the reading of a file that should be a `kind`: gives its size, and turns what goes wrong into a line.

    Raises:
        UserError: it is no file or too large, or the block raised any error.
    """
    if not path.is_file():
        raise UserError(f"{path} is no regular file")
    size = path.stat().st_size
    if size > LARGEST:
        raise UserError(f"{path} has {size:,} bytes and is no {kind}; expected at most {LARGEST:,}")
    try:
        yield size
    except NotPlainError as error:
        raise UserError(
            f"{path} holds something other than plain data and was refused, nothing was executed: {first_line(error)}"
        ) from error
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is not a {kind}, or it is truncated ({size} bytes): {first_line(error)}"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (
        Exception
    ) as error:  # zipfile, pickletools and torch raise many kinds for a damaged archive
        raise UserError(f"{path} is damaged and cannot be read: {first_line(error)}") from error


def unpack(path: Path, size: int) -> tuple[bytes, dict[str, int], io.BytesIO]:
    """The pickle, the sizes of members, and a new archive of them: torch's zip reader sees what was checked here.

    Raises:
        NotPlainError: the archive is none that `torch.save` writes.
    """
    buffer, sizes = io.BytesIO(), dict[str, int]()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(buffer, "w") as copy:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS or len({member.filename for member in members}) < len(
            members
        ):
            raise NotPlainError(f"it has {len(members)} members, or two of the same name")
        if any(
            member.compress_type or member.compress_size != member.file_size for member in members
        ):
            raise NotPlainError("it is compressed, which a checkpoint never is")
        if sum(member.file_size for member in members) > size:
            raise NotPlainError("its members overlap")
        root = members[0].filename.partition("/")[0] if members else ""
        for member in members:
            folder, _, name = member.filename.partition("/")
            if folder == root and _WANTED.fullmatch(name):
                copy.writestr(f"checkpoint/{name}", archive.read(member))
                sizes[name] = member.file_size
        pickled = archive.read(f"{root}/data.pkl")
    buffer.seek(0)
    return pickled, sizes, buffer


class _Kind(str):
    """What is on the stack: its kind, and of a key its value, of a flat tuple its items."""

    content: Any

    def __new__(cls, kind: str, content: Any = None) -> "_Kind":
        self = super().__new__(cls, kind)
        self.content = content
        return self


def _look_through(pickled: bytes, sizes: Mapping[str, int]) -> None:
    """Check that a pickle builds nothing but plain data, with strings and integers for keys of dicts.

    It follows the kinds of the values on the stack: `key` (string, integer), `value` (other number, None), `flat`
    (tuple of those), `dict`, `list`, `storage`, `other`, or the name of a global. `sizes` are those of the storages.
    """
    stack: list[_Kind] = []
    below: list[list[_Kind]] = []
    memo: dict[Any, _Kind] = {}
    for opcode, argument, _ in pickletools.genops(pickled):
        name = opcode.name
        if name in _VALUES:
            stack.append(_Kind(_VALUES[name], argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, below.pop()
            _collect(name, items, stack)
        elif name in _TUPLES or name in ("APPEND", "SETITEM"):
            n_items = _TUPLES.get(name, 1 if name == "APPEND" else 2)
            items = [stack.pop() for _ in range(n_items)][::-1]
            _collect(name, items, stack)
        elif name == "GLOBAL" and argument in _GLOBALS:
            stack.append(_Kind(argument))
        elif name in ("BINPERSID", "REDUCE", "BUILD"):
            _call(name, stack.pop(), stack, sizes)
        elif not (name == "STOP" or (name == "PROTO" and argument == 2)):
            raise NotPlainError(
                name if argument is None else f"{name} {argument}".replace(" ", ".")
            )


def _collect(name: str, items: list[_Kind], stack: list[_Kind]) -> None:
    """What TUPLE, APPENDS or SETITEMS does with `items`."""
    if name.startswith("TUPLE"):
        is_flat = all(item in ("key", "value", "storage") or item in _GLOBALS for item in items)
        stack.append(_Kind("flat", items) if is_flat else _Kind("other"))
    elif stack[-1] != ("list" if name.startswith("APPEND") else "dict"):
        raise NotPlainError(f"{name} to what is none")
    elif name.startswith("SETITEM") and any(key != "key" for key in items[::2]):
        raise NotPlainError("a dict whose keys are neither strings nor integers")


def _call(name: str, argument: _Kind, stack: list[_Kind], sizes: Mapping[str, int]) -> None:
    """What BINPERSID (a storage), REDUCE (a function's result) or BUILD (attributes, not kept) does with `argument`."""
    function = "" if name == "BINPERSID" else stack.pop()
    results = {
        ("BINPERSID", "", "flat"): "storage",
        ("REDUCE", _ORDERED, "flat"): "dict",
        ("REDUCE", _REBUILD, "other"): "other",
        ("BUILD", "dict", "dict"): "dict",
    }
    if (name, function, argument) not in results:
        raise NotPlainError(f"{name} of {argument} with {function or 'nothing'}")
    if name == "BINPERSID":
        _check_storage(argument.content, sizes)
    stack.append(_Kind(results[name, function, argument]))


def _check_storage(described: Sequence[_Kind], sizes: Mapping[str, int]) -> None:
    """Check the size of a storage: torch before 2.10 reads beyond its record (pytorch/pytorch#165553)."""
    _, class_name, key, _, n_elements = described
    if sizes.get(f"data/{key.content}") != n_elements.content * _STORAGES[class_name]:
        raise NotPlainError("a storage that has not the size of its record")


class Copier:
    """Copies a tree, without attributes of dicts and tensors, and counts: a part that is shared, each time it is met.

    A pickle of `n_bytes` makes no more nodes than that, unless parts are shared, over and over or in a circle.
    """

    def __init__(self, n_bytes: int, file_size: int) -> None:
        self.nodes_left = n_bytes
        self.bytes_left = MOST_SHARED * file_size

    def copy(self, node: Any, depth: int = 0) -> Any:
        """Copy `node`, which lies `depth` containers deep.

        Raises:
            NotPlainError: it holds what is no plain data, or has no end.
        """
        self.nodes_left -= 1
        if self.nodes_left < 0 or depth > DEEPEST:
            raise NotPlainError(
                "its parts are nested too deeply, or refer to each other over and over"
            )
        kind = type(node)
        if kind in (str, int, float, bool) or node is None:
            return node
        if kind is dict or kind is OrderedDict:
            return {key: self.copy(item, depth + 1) for key, item in dict.items(node)}
        if kind is list or kind is tuple:
            return kind(self.copy(item, depth + 1) for item in node)
        if kind is torch.Tensor:
            return self._tensor(node)
        raise NotPlainError(f"a {kind.__name__}")

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.numel() * tensor.element_size()
        self.bytes_left -= size
        if size > tensor.untyped_storage().nbytes() or self.bytes_left < 0:
            raise NotPlainError(f"tensors {list(tensor.shape)} larger than the file")
        return tensor.detach()
