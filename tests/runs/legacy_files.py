"""Helpers of tests of files that torch.save wrote."""

import io
import pickle
import struct
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from refusals import refusal

from csgcnn.runs.legacy_archives import MAGIC, PROTOCOL, load_legacy

STORED = Path(__file__).with_name("format_1.ckpt")
WHOLE = STORED.read_bytes()
load = partial(load_legacy, kind="model")


def members(content: Any) -> dict[str, bytes]:
    """Return the members of the archive that torch.save makes."""
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
    """Write a file in the format of torch before 1.6."""
    head = pickle.dumps(PROTOCOL, 2), pickle.dumps({"little_endian": True, **system}, 2)
    path.write_bytes(b"".join([MAGIC, *head, pickled, keys, storages]))
    return path


def refused(path: Path, *parts: str) -> None:
    message = refusal(load, path)
    assert all(part in message for part in parts), message


def refused_in_both(folder: Path, pickled: bytes, *parts: str) -> None:
    refused(write_zip(folder / "new", pickled), *parts)
    refused(write_old(folder / "old", pickled), *parts)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


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


TRIPLES = b"\x80\x02)" + b"".join(b"q%c" % i + b"h%c" % i * 3 + b"\x87" for i in range(100))
DEEP = b")" + b"\x85" * 200_000
