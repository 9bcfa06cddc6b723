"""Separate a tree of plain data into a JSON text and named tensors, and join them again.

Dicts with strings for keys, lists, strings, integers, finite floats, booleans and None are
written as JSON. Anything else is an object with one key, a tag:

    {"$tensor": "state_dict.embedding.weight"}   the tensor of that name
    {"$strings": "split.train"}                  a long list of strings, as a tensor of UTF-8 bytes
    {"$tuple": [1, 2]}                           a tuple
    {"$dict": [[0, "a"], [1, "b"]]}              a dict with other keys than plain strings
    {"$float": "nan"}                            nan, inf or -inf

The join gives equal values of the same types, bit for bit; tensors are on the CPU and contiguous.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

LONG = 256  # items from which a list of strings is stored as a tensor


def split_tree(tree: Any, long: int = LONG) -> tuple[str, dict[str, Tensor]]:
    """Separate a tree into a JSON text and its tensors.

    Args:
        tree: Dicts, lists, tuples, strings, numbers, None and tensors.
        long: Items from which a list of strings is stored as a tensor.

    Returns:
        The text, in ASCII, and the tensors by their paths in the tree. A tensor that occurs
        several times is stored once.

    Raises:
        TypeError: The tree holds anything else; the message gives its path.
    """
    writer = _Writer(long)
    description = writer.describe(tree, "")
    return json.dumps(description, allow_nan=False, separators=(",", ":")), writer.tensors


class _Writer:
    def __init__(self, long: int) -> None:
        self.long = long
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}

    def describe(self, node: Any, path: str) -> Any:
        if node is None or isinstance(node, str | int):
            return node
        if isinstance(node, float):
            return node if math.isfinite(node) else {"$float": str(float(node))}
        if isinstance(node, Tensor):
            return {"$tensor": self._name_of(node, path)}
        if isinstance(node, Mapping):
            return self._describe_dict(node, path)
        if isinstance(node, list | tuple):
            return self._describe_items(node, path)
        raise TypeError(f"{path}: a checkpoint cannot hold an object of {type(node).__name__}")

    def _describe_dict(self, node: Mapping[Any, Any], path: str) -> dict[str, Any]:
        items = [(key, self.describe(item, _below(path, key))) for key, item in node.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$dict": [[self.describe(key, path), item] for key, item in items]}

    def _describe_items(self, node: list[Any] | tuple[Any, ...], path: str) -> Any:
        if isinstance(node, list) and (encoded := _encoded(node, self.long)) is not None:
            return {"$strings": self._add(encoded, path)}
        items = [self.describe(item, _below(path, number)) for number, item in enumerate(node)]
        return {"$tuple": items} if isinstance(node, tuple) else items

    def _name_of(self, tensor: Tensor, path: str) -> str:
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and memory in self._names:
            return self._names[memory]
        copy = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        self._names[memory] = self._add(copy, path)
        return self._names[memory]

    def _add(self, tensor: Tensor, path: str) -> str:
        name, number = path, 1
        while name in self.tensors:
            name, number = f"{path}#{number}", number + 1
        self.tensors[name] = tensor
        return name


def _below(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _encoded(items: list[Any], long: int) -> Tensor | None:
    """Return a long list of strings as bytes, separated by null characters, or None."""
    if len(items) < long or not all(type(item) is str and "\0" not in item for item in items):
        return None
    content = "\0".join(items).encode("utf-8", "surrogatepass")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def join_tree(text: str | bytes, tensors: Mapping[str, Tensor]) -> Any:
    """Join what `split_tree` separated.

    Args:
        text: The JSON text, which may be untrusted.
        tensors: The tensors by their names.

    Raises:
        ValueError: The text is not JSON or does not fit the tensors.
        RecursionError: It is nested too deeply.
    """
    left = dict(tensors)
    tags: dict[str, Callable[[Any], Any]] = {
        "$tensor": lambda name: tensors[name],
        # each is read once only, so that a name that is repeated does not fill the memory
        "$strings": lambda name: _decoded(left.pop(name)),
        "$tuple": tuple,
        "$dict": _dict_of,
        "$float": float,
    }

    def restored(node: dict[str, Any]) -> Any:
        tag = next(iter(node), "")
        if not tag.startswith("$"):
            return node
        try:
            return tags[tag](*node.values())
        except (LookupError, TypeError) as error:
            raise ValueError(f"its part {tag} cannot be read") from error

    return json.loads(text, object_hook=restored)


def _decoded(tensor: Tensor) -> list[str]:
    if tensor.dtype is not torch.uint8 or tensor.dim() != 1:
        raise TypeError("expected bytes")
    return tensor.numpy().tobytes().decode("utf-8", "surrogatepass").split("\0")


def _dict_of(pairs: list[list[Any]]) -> dict[Any, Any]:
    if not all(type(key) in (str, int, bool, float) for key, _ in pairs):
        raise TypeError("expected strings and numbers for keys")
    return {key: item for key, item in pairs}  # noqa: C416 -- checks that these are pairs
