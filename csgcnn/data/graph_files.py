"""Crystal graphs in files, a packed array each, and the checks without which none of them is believed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER
from csgcnn.crystals.graphs import CrystalGraphs, GraphSettings
from csgcnn.crystals.structure_files import MAX_SITES

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
    "edge_vector": ("float32", ("n_edges", "n_directions"), -_MOST, _MOST),
    "global_features": ("float32", ("n_graphs", "n_global"), -_MOST, _MOST),
}

Array = NDArray[Any]


def save_graphs(graphs: CrystalGraphs, folder: Path) -> None:
    """Write each array into a file of its name, flushed to the disk."""
    for field in fields(CrystalGraphs):
        with open(folder / f"{field.name}.npy", "wb") as file:
            np.save(file, getattr(graphs, field.name), allow_pickle=False)
            flush(file)


def flush(file: IO[Any]) -> None:
    """Have what was written lie on the disk."""
    file.flush()
    os.fsync(file.fileno())


def load_graphs(folder: Path, n_graphs: int, settings: GraphSettings) -> CrystalGraphs:
    """Read what `save_graphs` wrote; nothing is allocated before the sizes and values are known to be right.

    Raises:
        ValueError: a file holds no such array; the message names it.
    """
    sizes: dict[str | int, int] = {
        "n_graphs": n_graphs,
        "n_global": len(descriptor_names(settings.global_features)),
        "n_directions": 3 if settings.vectors and not settings.compress else 0,
    }
    arrays: dict[str, Array] = {}
    for name, (dtype, shape, least, most) in _EXPECTED.items():
        with naming(folder / f"{name}.npy") as path:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            expected = tuple(sizes.get(size, size) for size in shape)
            if not isinstance(array, np.ndarray) or (array.dtype, array.shape) != (np.dtype(dtype), expected):
                raise ValueError(f"expected {dtype} {list(expected)}")
            if array.size and not (least <= array.min() and array.max() <= most):  # neither holds for NaN
                raise ValueError(f"values beyond {least:g} to {most:g}")
            if name in ("n_atoms", "n_edges", "n_sites"):
                sizes[name] = int(array.sum(dtype=np.int64))
            arrays[name] = array
    for name, count in (("site_node", "n_sites"), ("edge_index", "n_edges")):
        with naming(folder / f"{name}.npy"):
            _check_nodes(arrays[name], arrays[count], arrays["n_atoms"])
    return CrystalGraphs(**{name: np.array(array, order="C") for name, array in arrays.items()})


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
