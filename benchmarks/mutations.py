"""Random changes of files, and payloads that create a marker if anything executes them."""

import copy
import json
import os
import pickle
import random
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
NUMBERS = [*b"nan inf -inf 1e308 -1e308 -0 0 1e-308 -1 1e7 0x10 1_0".split(), b"9" * 30]
TEXTS = [
    "\ud800".encode("utf-8", "surrogatepass"),
    "Å∞٣".encode(),
    *(b"\0", b"\x1b[2J", b"\xff\xfe", b"\r", b"'", b'"', b"#"),
]
OPENINGS = [b"[", b"{", b"(", b"\n", b" ", b"loop_\n", b"data_x\n", b'{"a":']
VALUES: list[Any] = [
    *(None, True, -1, 0, 2**70, 10**400, 1e308, float("nan"), float("inf"), -0.0),
    *("", "x" * 5000, "\ud800", "../../x", "Fe", "1e999"),
    *([], {}, [[[[]]]], {"a": {"b": []}}),
]
# Values of arrays.
ELEMENTS = [0, 1, 7, 101, 255, 2**31 - 1, -1, np.nan, np.inf, -np.inf, 1e-40, 3e38]
DTYPES = ["float16", "float64", "int8", "int64", "uint64", "S3", "complex64", "bool"]
SHAPES = b"(99999999999,);(-1,);(4, 99999999999);(((((;(1.5,);__import__('os')".split(b";")


class Payload:
    """An object that creates a folder when it is unpickled, and the same as texts and values."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)

    def __deepcopy__(self, memo: object) -> "Payload":
        # The usual copy would execute __reduce__.
        return self

    @property
    def bytes(self) -> bytes:
        return pickle.dumps(self)

    @property
    def texts(self) -> list[bytes]:
        """The payload for readers of YAML, CIF, Python and shell."""
        make = f'__import__("os").mkdir("{self.marker}")'
        hidden = (
            "a,b,[d for d in ().__class__.__mro__[1].__getattribute__ ( *[().__class__.__mro__[1]]+"
            '["__sub" + "classes__"]) () if d.__name__ == "BuiltinImporter"][0].load_module '
            f'("os").mkdir ("{self.marker}")'
        )
        transform = "_space_group_magn.transform_BNS_Pp_abc"
        texts = [
            make,
            f"!!python/object/apply:os.mkdir ['{self.marker}']\n",
            f"{transform} '{hidden};0,0,0'\n_space_group_magn.number_BNS 62.448\n",
            f"{transform} '9**9**9**9,{make},c;0,0,0'\n",
            f"'{make}'\n",
            f"$(mkdir {self.marker})`mkdir {self.marker}`\n",
        ]
        return [text.encode() for text in texts]

    @property
    def values(self) -> list[Any]:
        """The payload for readers of JSON that build objects."""
        return [
            {"@module": "os", "@class": "mkdir", "path": self.marker, "@version": None},
            {"@module": "subprocess", "@class": "Popen", "args": ["mkdir", self.marker]},
            {"@module": "os", "@callable": "mkdir", "@bound": None},
            {"_target_": "os.mkdir", "path": self.marker},
            {"py/reduce": [{"py/type": "os.mkdir"}, {"py/tuple": [self.marker]}]},
            f'${{oc.env:HOME}}$(mkdir {self.marker})__import__("os").mkdir("{self.marker}")',
        ]


class Mutator:
    """Change bytes and nested values at random; pieces of `others` and the payload are inserted."""

    def __init__(
        self, rng: random.Random, others: list[bytes], payload: Payload, more_values: Sequence[Any]
    ) -> None:
        self.rng = rng
        self.others = others
        self.payload = payload
        self.values = [*VALUES, *more_values]

    def bytes(self, content: bytes) -> bytes:
        """Return bytes with one to four changes."""
        changes = [self._flip, self._delete, self._duplicate, self._swap, *[self._number] * 3]
        changes += [self._truncate, self._insert, self._splice]
        for _ in range(self.rng.randint(1, 4)):
            content = self.rng.choice(changes)(content)
        return content

    def tree(self, value: Any) -> Any:
        """Return nested dicts and lists with one to three changed values, keys or lengths."""
        value = copy.deepcopy(value)
        for _ in range(self.rng.randint(1, 3)):
            node, key, parent = value, None, None
            while isinstance(node, dict | list) and node:
                if key is not None and self.rng.random() <= 0.15:
                    break
                parent = node
                keys = list(parent) if isinstance(parent, dict) else range(len(parent))
                key = self.rng.choice(keys)
                node = parent[key]
            if key is not None:
                self._change(parent, key)
        return value

    def json(self, value: Any) -> bytes:
        """Return a changed value as JSON."""
        with deep_recursion():
            return json.dumps(self.tree(value), default=str).encode()

    def array(self, path: Path) -> None:
        """Change what a .npy file declares or contains."""
        rng, array, content = self.rng, np.load(path), path.read_bytes()
        choice = rng.randrange(6)
        if choice == 0:
            array = array.astype(rng.choice(DTYPES))
        elif choice == 1:
            cut = [array[:-1], array[None], array.reshape(-1), array[..., :0]]
            array = rng.choice([*cut, np.concatenate([array, array])])
        elif choice == 2:
            array = array.astype(object)
            array.reshape(-1)[:1] = self.payload
        elif choice == 3:
            shape = re.search(rb"\(.*?\)", content[:128])
            assert shape is not None
            start, end = content[: shape.start()], content[shape.end() :]
            path.write_bytes(start + rng.choice(SHAPES) + end)
            return
        elif choice == 4:
            order = b"'fortran_order': False", b"'fortran_order': True "
            path.write_bytes(content.replace(*order))
            return
        else:
            flat = array.reshape(-1)
            for _ in range(rng.randint(1, 3) if flat.size else 0):
                with np.errstate(all="ignore"):
                    new = np.array(rng.choice(ELEMENTS)).astype(array.dtype)
                flat[rng.randrange(flat.size)] = new
        np.save(path, array, allow_pickle=True)

    def _change(self, parent: Any, key: Any) -> None:
        choice = self.rng.randrange(6)
        if choice == 0:
            del parent[key]
        elif choice == 1 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(self.rng.choice(parent)))
        elif choice == 2:
            parent[key] = self.rng.choice(self.payload.values)
        elif choice == 3:
            depth = self.rng.choice([5, 100, 800])
            parent[key] = json.loads("[" * depth + "]" * depth)
        else:
            parent[key] = copy.deepcopy(self.rng.choice(self.values))

    def _position(self, content: bytes) -> int:
        return self.rng.randrange(len(content) + 1)

    def _span(self, content: bytes) -> slice:
        start = self._position(content)
        return slice(start, min(len(content), start + self.rng.choice([1, 3, 10, 50, 300, 3000])))

    def _flip(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self.rng.randint(1, 8) if content else 0):
            changed[self.rng.randrange(len(changed))] ^= 1 << self.rng.randrange(8)
        return bytes(changed)

    def _delete(self, content: bytes) -> bytes:
        span = self._span(content)
        return content[: span.start] + content[span.stop :]

    def _duplicate(self, content: bytes) -> bytes:
        span = self._span(content)
        times = self.rng.choice([2, 2, 2, 30, 3000]) if span.stop - span.start < 100 else 2
        return content[: span.start] + content[span] * times + content[span.stop :]

    def _swap(self, content: bytes) -> bytes:
        a, b, c, d = sorted(self._position(content) for _ in range(4))
        return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]

    def _number(self, content: bytes) -> bytes:
        found = list(NUMBER.finditer(content))
        chosen = self.rng.sample(found, min(len(found), self.rng.choice([1, 1, 2, 9])))
        for match in sorted(chosen, key=lambda match: -match.start()):
            content = content[: match.start()] + self.rng.choice(NUMBERS) + content[match.end() :]
        return content

    def _truncate(self, content: bytes) -> bytes:
        return content[: self._position(content)]

    def _insert(self, content: bytes) -> bytes:
        at, rng = self._position(content), self.rng
        choices = [
            rng.choice(TEXTS) * rng.choice([1, 1, 40, 20_000]),
            rng.choice(self.payload.texts),
            self.payload.bytes,
            rng.choice(OPENINGS) * rng.choice([3, 500, 100_000]),
        ]
        return content[:at] + rng.choice(choices) + content[at:]

    def _splice(self, content: bytes) -> bytes:
        at, other = self._position(content), self.rng.choice(self.others)
        return content[:at] + other[self._span(other)] + content[at:]


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Raise the recursion limit within the block, to write what is nested deeply."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
