"""Crystal graphs in memory-mapped files, a packed array each, and the checks without which none of them is believed."""

import io
import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.crystals.limits import MAX_SITES

AT_ONCE = 2**20  # values that are looked at before their memory is given back
_LEAST, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)

# What each array holds: type, shape, least and greatest value; sizes before what they count.
_EXPECTED: dict[str, tuple[str, tuple[str | int, ...], float, float]] = {
    "n_atoms": ("int32", ("n_graphs",), 1, MAX_SITES),
    "n_edges": ("int32", ("n_graphs",), 0, np.inf),
    "n_sites": ("int32", ("n_graphs",), 1, MAX_SITES),
    "lattice": ("float32", ("n_graphs", 3, 3), -_MOST, _MOST),
    "fingerprint": ("uint64", ("n_graphs",), 0, np.inf),
    "atomic_number": ("uint8", ("n_atoms",), 1, MAX_ATOMIC_NUMBER),
    "atom_multiplicity": ("float32", ("n_atoms",), 1, MAX_SITES),
    "site_node": ("int32", ("n_sites",), 0, MAX_SITES),
    "edge_index": ("int32", (2, "n_edges"), 0, MAX_SITES),
    "distance": ("float32", ("n_edges",), _LEAST, _MOST),
    "edge_multiplicity": ("float32", ("n_edges",), _LEAST, _MOST),
    "global_features": ("float32", ("n_graphs", "n_global"), -_MOST, _MOST),
}

Array = NDArray[Any]


def save_graphs(graphs: CrystalGraphs, folder: Path) -> dict[str, int]:
    """Write each array into a file of its name; returns the CRC-32 of each file."""
    names = [field.name for field in fields(CrystalGraphs)]
    return {
        f"{name}.npy": _write_array(folder / f"{name}.npy", [getattr(graphs, name)])
        for name in names
    }


def merge_graphs(parts: Sequence[Path], folder: Path) -> dict[str, int]:
    """Write the graphs that lie in the folders `parts` end to end, as `save_graphs` does, in little memory."""
    names = [f"{field.name}.npy" for field in fields(CrystalGraphs)]
    return {
        name: _write_array(
            folder / name,
            [np.load(part / name, mmap_mode="r", allow_pickle=False) for part in parts],
        )
        for name in names
    }


def _write_array(path: Path, arrays: Sequence[Array]) -> int:
    """Write the concatenated arrays into an npy file; its CRC-32."""
    along = 1 if path.stem == "edge_index" else 0
    shape = list(arrays[0].shape)
    shape[along] = sum(array.shape[along] for array in arrays)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": arrays[0].dtype.str, "fortran_order": False, "shape": tuple(shape)}
    )
    rows = zip(*arrays, strict=True) if along else [arrays]
    content = (piece.tobytes() for row in rows for array in row for piece in pieces(array))
    return write_pieces(path, chain([header.getvalue()], content))


def write_pieces(path: Path, content: Iterable[bytes]) -> int:
    """Write a file piece by piece; its CRC-32."""
    total = 0
    with open(path, "wb") as file:
        for piece in content:
            file.write(piece)
            total = crc32(piece, total)
    return total


def pieces(array: Array) -> Iterator[Array]:
    """Flat slices of an array in C order; the memory of what was looked at is given back."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, AT_ONCE):
        yield flat[start : start + AT_ONCE]
        release(array)


def release(array: Array) -> None:
    """Give the memory of an array that lies in a file back to the system; it is read again where it is needed."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def load_graphs(folder: Path, n_graphs: int, settings: GraphSettings) -> CrystalGraphs:
    """Map what `save_graphs` wrote; nothing is allocated before the sizes and values are known to be right.

    Raises:
        ValueError: a file holds no such array; the message names it.
    """
    sizes: dict[str | int, int] = {
        "n_graphs": n_graphs,
        "n_global": len(descriptor_names(settings.global_features)),
    }
    arrays: dict[str, Array] = {}
    for name, (dtype, shape, least, most) in _EXPECTED.items():
        with naming(folder / f"{name}.npy") as path:
            # copy on write: torch wants arrays that it may change, though no one does
            array = np.load(path, mmap_mode="c", allow_pickle=False)
            expected = tuple(sizes.get(size, size) for size in shape)
            if not isinstance(array, np.ndarray) or (array.dtype, array.shape) != (
                np.dtype(dtype),
                expected,
            ):
                raise ValueError(f"expected {dtype} {list(expected)}")
            if not all(
                least <= piece.min() and piece.max() <= most for piece in pieces(array)
            ):  # no NaN is
                raise ValueError(f"values beyond {least:g} to {most:g}")
            if name in ("n_atoms", "n_edges", "n_sites"):
                sizes[name] = int(array.sum(dtype=np.int64))
            arrays[name] = array
    graphs = CrystalGraphs(**arrays)
    for block in graphs.blocks():
        for name, count in (("site_node", block.n_sites), ("edge_index", block.n_edges)):
            with naming(folder / f"{name}.npy"):
                _check_nodes(getattr(block, name), count, block.n_atoms)
            release(arrays[name])
    return graphs


@contextmanager
def naming(path: Path) -> Iterator[Path]:
    """Read a regular file; turn whatever a damaged one leads to into a ValueError that names it."""
    try:
        if not path.is_file():
            raise ValueError("no such file")
        yield path
    except Exception as error:
        raise ValueError(f"{path}: {error}") from error


def _check_nodes(nodes: Array, count: Array, n_atoms: Array) -> None:
    """Refuse numbers [..., total] of nodes that a crystal does not have; `count` of them belong to each crystal."""
    some = count > 0
    first = np.cumsum(count, dtype=np.int64) - count
    if (np.maximum.reduceat(nodes, first[some], axis=-1) >= n_atoms[some]).any():
        raise ValueError("a node that its crystal does not have")
