"""The files of a graph store.

A store is a folder with:

- `NAME.npy`: one file per array of `CrystalGraphs`, mapped into memory rather than read.
- `rows.jsonl`: lines `{"ids": [...], "columns": {name: [...]}}`, one per part that was merged.
- `meta.json`: `{"format": 7, "settings": {...}, "crc32": {file: checksum}}`.

Loading checks the CRC-32 of every file, and that types and shapes of the arrays fit each other.
"""

import io
import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.crystals.fingerprints import N_HASHES
from csgcnn.crystals.graphs import LAYOUT, CrystalGraphs, Layout, joined_axis
from csgcnn.crystals.records import Scalar
from csgcnn.crystals.site_features.potential import n_site_features
from csgcnn.io import read_json

# 2: global_features; 3: checksums; 4: rows.jsonl; 5: truncate as in CGCNN; 6: no edge vectors;
# 7: warnings.json, fingerprints for any cell
FORMAT = 7
FORMAT_WITHOUT_WARNINGS = 6
# Formats of the folders that are opened; other folders have to be built again.
READABLE = (FORMAT_WITHOUT_WARNINGS, FORMAT)
# Values that are written at once.
PIECE = 2**20

Array = NDArray[Any]
# Graphs, ids, columns and settings of a store.
StoreContent = tuple[CrystalGraphs, list[str], dict[str, list[Scalar]], GraphSettings]

# Format 6 had one hash of each crystal, which recognizes duplicates in the same cell only.
_LAYOUT_6: dict[str, Layout] = {"fingerprint": ("uint64", ("n_graphs",))}


def is_store(path: Path) -> bool:
    """Return whether a folder holds a store of any format, judged by its meta.json."""
    try:
        meta = read_json(path / "meta.json")
    except (OSError, ValueError):
        return False
    return isinstance(meta, dict) and {"format", "settings"} <= meta.keys()


def save_content(content: StoreContent, folder: Path) -> None:
    """Write a store into an existing folder.

    Args:
        content: What to write.
        folder: The folder; the checksums of other files in it are recorded, too.
    """
    graphs, ids, columns, settings = content
    sums = {
        f"{name}.npy": _write_array(folder / f"{name}.npy", [getattr(graphs, name)])
        for name in _layout(settings)
    }
    line = json.dumps({"ids": ids, "columns": columns}) + "\n"
    sums["rows.jsonl"] = write_pieces(folder / "rows.jsonl", [line.encode()])
    _write_meta(folder, asdict(settings), sums)


def merge_stores(parts: Sequence[Path], folder: Path) -> None:
    """Write several stores as one, in little memory.

    Args:
        parts: Folders of the stores, which have the same settings.
        folder: An existing folder; the checksums of other files in it are recorded, too.
    """
    sums = {}
    meta = read_json(parts[0] / "meta.json")
    for name in _layout(GraphSettings(**meta["settings"])):
        file = f"{name}.npy"
        arrays = [np.load(part / file, mmap_mode="r", allow_pickle=False) for part in parts]
        sums[file] = _write_array(folder / file, arrays)
    rows = ((part / "rows.jsonl").read_bytes() for part in parts)
    sums["rows.jsonl"] = write_pieces(folder / "rows.jsonl", rows)
    _write_meta(folder, meta["settings"], sums)


def load_content(folder: Path) -> StoreContent:
    """Load a store; its arrays stay in their files.

    Args:
        folder: Folder of the store.

    Raises:
        ValueError: A file is missing, damaged or of another format; the message names it.
    """
    with reading(folder / "meta.json") as path:
        meta = read_json(path)
        if meta["format"] not in READABLE:
            raise ValueError(f"format {meta['format']!r:.20}, expected {FORMAT}")
        settings, sums = GraphSettings(**meta["settings"]), dict(meta["crc32"])
        layout = _layout(settings) | (_LAYOUT_6 if meta["format"] != FORMAT else {})
    required = {"rows.jsonl", *(f"{name}.npy" for name in layout)}
    for name in sorted(required | (sums.keys() & set(os.listdir(folder)))):
        with reading(folder / name) as path:
            if sums.get(name) != _checksum(path):
                raise ValueError("the checksum differs")
    with reading(folder / "rows.jsonl") as path:
        ids, columns = _read_rows(path)
    return _map_graphs(folder, len(ids), settings, layout), ids, columns, settings


def release(array: Array) -> None:
    """Return the memory of a mapped array to the system; it is read again when needed."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def write_pieces(path: Path, content: Iterable[bytes]) -> int:
    """Write a file piece by piece.

    Args:
        path: The file.
        content: Its pieces.

    Returns:
        The CRC-32 of the file.
    """
    total = 0
    with open(path, "wb") as file:
        for piece in content:
            file.write(piece)
            total = crc32(piece, total)
    return total


@contextmanager
def reading(path: Path) -> Iterator[Path]:
    """Turn any error while a file is read into a ValueError that names the file.

    Args:
        path: The file.

    Yields:
        The same path, which is a regular file.

    Raises:
        ValueError: The file is missing, or the block failed.
    """
    try:
        if not path.is_file():
            raise ValueError("no such file")
        yield path
    except Exception as error:
        raise ValueError(f"{path}: {error}") from error


def _layout(settings: GraphSettings) -> dict[str, Layout]:
    """Return type and shape of each array of a store."""
    left_out = () if settings.site_features else ("site_features",)
    return {name: of_array for name, of_array in LAYOUT.items() if name not in left_out}


def _map_graphs(
    folder: Path, n_graphs: int, settings: GraphSettings, layout: Mapping[str, Layout]
) -> CrystalGraphs:
    with reading(folder / "meta.json"):
        sizes: dict[str | int, int] = {
            "n_graphs": n_graphs,
            "n_global": len(descriptor_names(settings.global_features)),
            "n_site_features": n_site_features(settings),
        }
    arrays: dict[str, Array] = {}
    for name, (dtype, shape) in layout.items():
        with reading(folder / f"{name}.npy") as path:
            # Copy on write, because torch expects writable memory; nothing writes to it.
            array = np.load(path, mmap_mode="c", allow_pickle=False)
            expected = tuple(sizes.get(size, size) for size in shape)
            found = (getattr(array, "dtype", None), getattr(array, "shape", None))
            if found != (np.dtype(dtype), expected):
                raise ValueError(f"expected {dtype} {list(expected)}")
        if name in ("n_atoms", "n_edges", "n_sites"):
            sizes[name] = int(array.sum(dtype=np.int64))
        arrays[name] = array
    if arrays["fingerprint"].ndim == 1:
        arrays["fingerprint"] = np.repeat(arrays["fingerprint"][:, None], N_HASHES, axis=1)
    if "site_features" not in layout:
        arrays["site_features"] = np.empty((sizes["n_atoms"], 0), np.float16)
    return CrystalGraphs(**arrays)


def _write_array(path: Path, arrays: Sequence[Array]) -> int:
    """Write the concatenated arrays into an npy file and return its CRC-32."""
    axis = joined_axis(path.stem)
    shape = list(arrays[0].shape)
    shape[axis] = sum(array.shape[axis] for array in arrays)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": arrays[0].dtype.str, "fortran_order": False, "shape": tuple(shape)}
    )
    rows = zip(*arrays, strict=True) if axis else [arrays]
    content = (piece.tobytes() for row in rows for array in row for piece in _pieces(array))
    return write_pieces(path, chain([header.getvalue()], content))


def _pieces(array: Array) -> Iterator[Array]:
    """Yield flat slices of an array in C order, and release the memory of each."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, PIECE):
        yield flat[start : start + PIECE]
        release(array)


def _write_meta(folder: Path, settings: dict[str, Any], sums: dict[str, int]) -> None:
    others = (path for path in folder.iterdir() if path.name not in sums)
    meta = {
        "format": FORMAT,
        "settings": settings,
        "crc32": sums | {path.name: _checksum(path) for path in others},
    }
    write_pieces(folder / "meta.json", [json.dumps(meta).encode()])


def _read_rows(path: Path) -> tuple[list[str], dict[str, list[Scalar]]]:
    ids: list[str] = []
    columns: dict[str, list[Scalar]] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            part = json.loads(line)
            n_before, n_new = len(ids), len(part["ids"])
            ids += part["ids"]
            for name in dict.fromkeys([*columns, *part["columns"]]):
                column = columns.setdefault(name, [None] * n_before)
                column += part["columns"].get(name, [None] * n_new)
                if len(column) != len(ids):
                    raise ValueError(f"column {name!r:.60} has another length than the ids")
    return ids, columns


def _checksum(path: Path) -> int:
    total = 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            total = crc32(piece, total)
    return total
