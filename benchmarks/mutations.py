"""Hostile files: real ones with a few changes, and payloads that would create a marker if anything executed them."""

import copy
import json
import os
import pickle
import random
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure

from csgcnn.crystals.crystal import to_crystal
from csgcnn.crystals.datasets import read_records

DATA = Path(__file__).parents[1] / "data"
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
NUMBERS = [
    b"nan",
    b"inf",
    b"-inf",
    b"1e308",
    b"-1e308",
    b"-0",
    b"0",
    b"1e-308",
    b"9" * 30,
    b"-1",
    b"1e7",
    b"0x10",
    b"1_0",
]
TEXTS = [
    "\ud800".encode("utf-8", "surrogatepass"),
    "Å∞٣".encode(),
    b"\0",
    b"\x1b[2J",
    b"\xff\xfe",
    b"\r",
    b"'",
    b'"',
    b"#",
]
OPENINGS = [b"[", b"{", b"(", b"\n", b" ", b"loop_\n", b"data_x\n", b'{"a":']
VALUES: list[Any] = [
    None, True, -1, 0, 2**70, 10**400, 1e308, float("nan"), float("inf"), -0.0, "", "x" * 5000, "\ud800", "../../x",
    [], {}, [[[[]]]], {"a": {"b": []}}, "Fe", "1e999",
]  # fmt: skip


class Payload:
    """Unpickled, it makes a folder; the same as text in the ways of JSON, YAML, CIF and Python."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)

    def __deepcopy__(self, memo: object) -> "Payload":
        return self  # copied the usual way, it would go off

    @property
    def bytes(self) -> bytes:
        return pickle.dumps(self)

    @property
    def texts(self) -> list[bytes]:
        make = f'__import__("os").mkdir("{self.marker}")'
        hidden = (
            "a,b,[d for d in ().__class__.__mro__[1].__getattribute__ ( *[().__class__.__mro__[1]]+"
            '["__sub" + "classes__"]) () if d.__name__ == "BuiltinImporter"][0].load_module '
            f'("os").mkdir ("{self.marker}")'
        )
        return [
            make.encode(),
            f"!!python/object/apply:os.mkdir ['{self.marker}']\n".encode(),
            f"_space_group_magn.transform_BNS_Pp_abc '{hidden};0,0,0'\n_space_group_magn.number_BNS 62.448\n".encode(),
            f"_space_group_magn.transform_BNS_Pp_abc '9**9**9**9,{make},c;0,0,0'\n".encode(),
            f"'{make}'\n".encode(),
            f"$(mkdir {self.marker})`mkdir {self.marker}`\n".encode(),
        ]

    @property
    def values(self) -> list[Any]:
        return [
            {"@module": "os", "@class": "mkdir", "path": self.marker, "@version": None},
            {"@module": "subprocess", "@class": "Popen", "args": ["mkdir", self.marker]},
            {"@module": "os", "@callable": "mkdir", "@bound": None},
            {"_target_": "os.mkdir", "path": self.marker},
            {"py/reduce": [{"py/type": "os.mkdir"}, {"py/tuple": [self.marker]}]},
            f'${{oc.env:HOME}}$(mkdir {self.marker})__import__("os").mkdir("{self.marker}")',
        ]


class Mutator:
    """Changes bytes and nested values at random; `others` are files of other formats to take pieces from."""

    def __init__(
        self, rng: random.Random, others: list[bytes], payload: Payload, more_values: list[Any]
    ) -> None:
        self.rng = rng
        self.others = others
        self.payload = payload
        self.values = VALUES + more_values

    def bytes(self, content: bytes) -> bytes:
        """One to four changes of some bytes."""
        changes = [
            self._flip, self._delete, self._duplicate, self._swap, self._number, self._number, self._number,
            self._truncate, self._insert, self._splice,
        ]  # fmt: skip
        for _ in range(self.rng.randint(1, 4)):
            content = self.rng.choice(changes)(content)
        return content

    def tree(self, value: Any) -> Any:
        """One to three changes of values, keys and lengths in nested dicts and lists."""
        value = copy.deepcopy(value)
        for _ in range(self.rng.randint(1, 3)):
            place, key, above = value, None, None
            while (
                isinstance(place, dict | list)
                and place
                and (key is None or self.rng.random() > 0.15)
            ):
                above = place
                key = self.rng.choice(list(above) if isinstance(above, dict) else range(len(above)))
                place = above[key]
            if key is not None:
                self._change(above, key)
        return value

    def _change(self, above: Any, key: Any) -> None:
        choice = self.rng.randrange(6)
        if choice == 0:
            del above[key]
        elif choice == 1 and isinstance(above, list):
            above.insert(key, copy.deepcopy(self.rng.choice(above)))
        elif choice == 2:
            above[key] = self.rng.choice(self.payload.values)
        elif choice == 3:
            above[key] = json.loads("[" * (depth := self.rng.choice([5, 100, 800])) + "]" * depth)
        else:
            above[key] = copy.deepcopy(self.rng.choice(self.values))

    def _span(self, content: bytes) -> slice:
        start = self.rng.randrange(len(content) + 1)
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
        a, b, c, d = sorted(self.rng.randrange(len(content) + 1) for _ in range(4))
        return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]

    def _number(self, content: bytes) -> bytes:
        found = list(NUMBER.finditer(content))
        chosen = self.rng.sample(found, min(len(found), self.rng.choice([1, 1, 2, 9])))
        for match in sorted(chosen, key=lambda match: -match.start()):
            content = content[: match.start()] + self.rng.choice(NUMBERS) + content[match.end() :]
        return content

    def _truncate(self, content: bytes) -> bytes:
        return content[: self.rng.randrange(len(content) + 1)]

    def _insert(self, content: bytes) -> bytes:
        at = self.rng.randrange(len(content) + 1)
        new = self.rng.choice(
            [
                self.rng.choice(TEXTS) * self.rng.choice([1, 1, 40, 20_000]),
                self.rng.choice(self.payload.texts),
                self.payload.bytes,
                self.rng.choice(OPENINGS) * self.rng.choice([3, 500, 100_000]),
            ]
        )
        return content[:at] + new + content[at:]

    def _splice(self, content: bytes) -> bytes:
        at, other = self.rng.randrange(len(content) + 1), self.rng.choice(self.others)
        return content[:at] + other[self._span(other)] + content[at:]


@contextmanager
def deep() -> Iterator[None]:
    """Allow what is nested deeply to be made and written; it is read under the usual limit."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    yield
    sys.setrecursionlimit(usual)


def structures(n: int) -> list[Structure]:
    """Small real crystals of the three included sets."""
    chosen = []
    for name in ("dielectric", "elastic", "formation_energy"):
        records = read_records(DATA / f"{name}.json.gz")
        for record in records[:: len(records) * 3 // n]:
            crystal = to_crystal(record.source)
            if len(crystal.atomic_number) <= 12:
                chosen.append(
                    Structure(crystal.lattice, crystal.atomic_number.tolist(), crystal.frac_coords)
                )
    return chosen


def spoil_array(path: Path, mutator: Mutator) -> None:
    """Change what a .npy file declares or holds."""
    rng, array = mutator.rng, np.load(path)
    choice = rng.randrange(6)
    if choice == 0:
        array = array.astype(
            rng.choice(["float16", "float64", "int8", "int64", "uint64", "S3", "complex64", "bool"])
        )
    elif choice == 1:
        array = rng.choice(
            [
                array[:-1],
                array[None],
                array.reshape(-1),
                array[..., :0],
                np.concatenate([array, array]),
            ]
        )
    elif choice == 2:
        array = array.astype(object)
        array.reshape(-1)[:1] = mutator.payload
    elif choice == 3:
        old = path.read_bytes()
        shape = re.search(rb"\(.*?\)", old[:128])
        assert shape is not None
        new = rng.choice(
            [
                b"(99999999999,)",
                b"(-1,)",
                b"(4, 99999999999)",
                b"(((((",
                b"(1.5,)",
                b"__import__('os')",
            ]
        )
        path.write_bytes(old[: shape.start()] + new + old[shape.end() :])
        return
    elif choice == 4:
        path.write_bytes(
            path.read_bytes().replace(b"'fortran_order': False", b"'fortran_order': True ")
        )
        return
    else:
        flat = array.reshape(-1)
        for _ in range(rng.randint(1, 3) if flat.size else 0):
            new = rng.choice(
                [
                    0,
                    1,
                    7,
                    101,
                    255,
                    2**31 - 1,
                    -1,
                    float("nan"),
                    float("inf"),
                    -float("inf"),
                    1e-40,
                    3e38,
                ]
            )
            with np.errstate(all="ignore"):
                flat[rng.randrange(flat.size)] = np.array(new).astype(array.dtype)
    np.save(path, array, allow_pickle=True)
