"""Graphs packed into a few tensors, in memory or in mapped files, from which a batch is index arithmetic."""

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.crystals.records import Scalar
from csgcnn.data.batch import GraphBatch
from csgcnn.data.collate import collate, collate_padded
from csgcnn.data.store_files import (
    load_graphs,
    merge_graphs,
    naming,
    release,
    save_graphs,
    write_pieces,
)
from csgcnn.errors import UserError

FORMAT = (
    6  # 2: global_features; 3: checksums; 4: rows.jsonl; 5: CGCNN's truncate; 6: no edge_vector
)
BLOCK = 1024  # crystals that lie next to each other in the files, and are read together
WINDOW = 64  # blocks that are shuffled together
AHEAD = 2  # batches that are read from files while the GPU computes
HELD = 2**26  # bytes that batches read from the files before their memory is given back

_PACKED = (
    "atomic_number",
    "atom_multiplicity",
    "edge_index",
    "distance",
    "edge_multiplicity",
)
_LARGEST = 1e300  # of a column's integers: they become floats


class GraphStore:
    """Many crystal graphs with their ids and data columns.

    Geometry lies in packed tensors on one device (`to` moves them), or stays in memory-mapped files; ids and columns
    stay on the host. `batch` picks any crystals without a Python loop over them; `store[i]` is a plain PyG `Data`.
    """

    def __init__(
        self,
        graphs: CrystalGraphs,
        ids: Sequence[str],
        columns: dict[str, list[Scalar]],
        settings: GraphSettings,
    ) -> None:
        self.ids = list(ids)
        self.columns = columns
        self.settings = settings
        self.graphs = graphs
        self.device = torch.device("cpu")
        self.is_resident = True
        self._n_bytes_held = 0
        self._n_atoms, self._n_edges = (
            torch.from_numpy(n.astype(np.int64)) for n in (graphs.n_atoms, graphs.n_edges)
        )
        self._tensors: dict[str, Tensor] = {
            "n_atoms": self._n_atoms,
            "n_edges": self._n_edges,
            "first_atom": self._n_atoms.cumsum(0) - self._n_atoms,
            "first_edge": self._n_edges.cumsum(0) - self._n_edges,
            **{
                name: torch.from_numpy(getattr(graphs, name))
                for name in (*_PACKED, "global_features")
            },
        }

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_bytes(self) -> int:
        """Size of the packed tensors."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def to(self, device: torch.device | str, resident: bool = True) -> "GraphStore":
        """Have batches made on a device, in place.

        `resident`: of tensors that are moved there; otherwise they stay where they are, in files if they were loaded,
        and only batches move.
        """
        self.device, self.is_resident = torch.device(device), resident
        if resident:
            is_mapped = isinstance(
                self.graphs.distance, np.memmap
            )  # files may change or vanish, memory does not
            self._tensors = {
                name: tensor.to(self.device, copy=is_mapped)
                for name, tensor in self._tensors.items()
            }
        return self

    def shuffled(self, rows: Tensor) -> Tensor:
        """The `rows` [n_rows] in random order.

        Of a store that is not resident, windows are shuffled: blocks of 1024 neighboring crystals come in random
        order, and the crystals of 64 of them are mixed, so that at any time few parts of the files are read.
        """
        if self.is_resident:
            return rows[torch.randperm(len(rows))]
        block = rows // BLOCK
        n_blocks = -(-len(self) // BLOCK)
        window = torch.randperm(n_blocks)[block] // WINDOW
        return rows[(window + torch.rand(len(rows), dtype=torch.float64)).argsort()]

    def batches(self, parts: Iterable[Tensor]) -> Iterator[GraphBatch]:
        """A batch for each of `parts`; those of files are read for a GPU while it computes."""
        if self.is_resident or self.device.type == "cpu":
            yield from map(self.batch, parts)
            return
        with ThreadPoolExecutor(1) as reader:
            waiting = deque[Future[GraphBatch]]()
            for part in parts:
                waiting.append(reader.submit(self.batch, part))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def size(self, index: Tensor | None = None) -> tuple[int, int]:
        """Atoms and edges of the crystals `index` (on the host) in all; of the whole store without."""
        of_atoms, of_edges = self._n_atoms, self._n_edges
        if index is not None:
            of_atoms, of_edges = of_atoms[index], of_edges[index]
        return int(of_atoms.sum()), int(of_edges.sum())

    def batch(self, index: Tensor) -> GraphBatch:
        """Assemble the crystals `index` [n_graphs] (int64, on the host) into one batch on the store's device."""
        here = self._tensors["n_atoms"].device
        batch = collate(self._tensors, index.to(here, non_blocking=True), *self.size(index))
        return batch if self.is_resident else self._moved(batch)

    def padded(self, index: Tensor, n_atoms: int, n_edges: int) -> GraphBatch:
        """Assemble crystals into a batch of that many atoms and edges; `index` lies where a resident store does."""
        return collate_padded(self._tensors, index, n_atoms, n_edges)

    def _moved(self, batch: GraphBatch) -> GraphBatch:
        """A batch from files, on the device; now and then their pages are given back to the system."""
        self._n_bytes_held += 16 * len(batch.distance) + 5 * len(batch.atomic_number)
        if self._n_bytes_held > HELD:
            self._n_bytes_held = 0
            self.release()
        return batch.to(self.device)

    def release(self) -> None:
        """Give the memory of graphs that lie in files back to the system."""
        for field in fields(CrystalGraphs):
            release(getattr(self.graphs, field.name))

    def blocks(self) -> Iterator[CrystalGraphs]:
        """The graphs block by block, in order, so that those in files need little memory."""
        for block in self.graphs.blocks():
            yield block
            self.release()

    def __getitem__(self, i: int) -> Data:
        """One crystal as a PyG `Data`: z, edge_index, distance, multiplicities, lattice, global_features, id."""
        batch = self.batch(torch.tensor([range(len(self))[i]]))
        return Data(
            z=batch.atomic_number,
            edge_index=batch.edge_index,
            distance=batch.distance,
            atom_multiplicity=batch.atom_multiplicity,
            edge_multiplicity=batch.edge_multiplicity,
            lattice=torch.from_numpy(self.graphs.lattice[i][None]),
            global_features=batch.global_features,
            id=self.ids[i],
            num_nodes=len(batch.atomic_number),
        )

    def site_values(self, values: Tensor, i: int) -> Tensor:
        """Hand per-node values [n_atoms, ...] of crystal `i` back to its sites as they were read: [n_sites, ...]."""
        first = int(self.graphs.n_sites[:i].sum())
        node = self.graphs.site_node[first : first + self.graphs.n_sites[i]]
        return values.index_select(0, torch.from_numpy(node.astype(np.int64)).to(values.device))

    @cached_property
    def elements(self) -> list[set[int]]:
        """Atomic numbers that occur in each crystal."""
        bounds = np.cumsum(self.graphs.n_atoms)[:-1]
        return [set(z.tolist()) for z in np.split(self.graphs.atomic_number, bounds)]

    def elements_of(self, rows: Tensor) -> set[int]:
        """Atomic numbers that occur in the crystals `rows` [n_rows]."""
        chosen = np.zeros(len(self), dtype=bool)
        chosen[rows.numpy()] = True
        found, start = set[int](), 0
        for block in self.blocks():
            of_atom = np.repeat(chosen[start : start + len(block)], block.n_atoms)
            found.update(np.unique(block.atomic_number[of_atom]).tolist())
            start += len(block)
        return found

    def numbers(self, names: Sequence[str]) -> Tensor:
        """Columns as numbers: [n_graphs, n_columns] float64, NaN where a value is missing."""
        values = [[np.nan if v is None else float(v) for v in self.columns[name]] for name in names]
        return torch.tensor(values, dtype=torch.float64).T.contiguous()

    def save(self, folder: Path) -> None:
        """Write the store into an existing folder, with the checksum of every file in it."""
        sums = save_graphs(self.graphs, folder)
        line = json.dumps({"ids": self.ids, "columns": self.columns}) + "\n"
        sums["rows.jsonl"] = write_pieces(folder / "rows.jsonl", [line.encode()])
        _write_meta(folder, asdict(self.settings), sums)

    @classmethod
    def load(cls, folder: Path) -> "GraphStore":
        """Read a store that `save` wrote, and believe nothing that was not checked.

        Raises:
            ValueError: a file is missing, damaged, of another format or holds what no store does; the message names it.
        """
        with naming(folder / "meta.json") as path:
            meta = json.loads(path.read_text(encoding="utf-8"))
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']!r:.20}, expected {FORMAT}")
            settings, sums = GraphSettings(**meta["settings"]), dict(meta["crc32"])
        with naming(folder / "rows.jsonl") as path:
            ids, columns = _read_rows(path)
        graphs = load_graphs(folder, len(ids), settings)
        own = {"rows.jsonl", *(f"{field.name}.npy" for field in fields(CrystalGraphs))}
        for name in sorted(own | (sums.keys() & {*os.listdir(folder)})):
            with naming(folder / name) as path:
                if sums.get(name) != _checksum(path):
                    raise ValueError("its checksum is another one")
        return cls(graphs, ids, columns, settings)


def is_store(path: Path) -> bool:
    """Whether a folder holds a store, by its meta.json."""
    try:
        content = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "settings"} <= content.keys()


def open_store(folder: Path) -> GraphStore:
    """Open a store that a user made.

    Raises:
        UserError: it is damaged, or of another format.
    """
    try:
        return GraphStore.load(folder)
    except ValueError as error:
        raise UserError(f"these graphs cannot be used, build them again ({error})") from error


def merge_stores(parts: Sequence[Path], folder: Path) -> None:
    """Write the stores that lie in the folders `parts` as one into an existing folder, in little memory."""
    sums = merge_graphs(parts, folder)
    rows = ((part / "rows.jsonl").read_bytes() for part in parts)
    sums["rows.jsonl"] = write_pieces(folder / "rows.jsonl", rows)
    meta = json.loads((parts[0] / "meta.json").read_text(encoding="utf-8"))
    _write_meta(folder, meta["settings"], sums)


def _write_meta(folder: Path, settings: dict[str, Any], sums: dict[str, int]) -> None:
    sums |= {path.name: _checksum(path) for path in folder.iterdir() if path.name not in sums}
    meta = {"format": FORMAT, "settings": settings, "crc32": sums}
    write_pieces(folder / "meta.json", [json.dumps(meta).encode()])


def _read_rows(path: Path) -> tuple[list[str], dict[str, list[Scalar]]]:
    """Ids and columns from a file, checked."""
    ids: list[str] = []
    columns: dict[str, list[Scalar]] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            more_ids, more = _rows(json.loads(line))
            columns |= {name: [None] * len(ids) for name in more if name not in columns}
            for name, column in columns.items():
                column += more.get(name, [None] * len(more_ids))
            ids += more_ids
    return ids, columns


def _rows(content: dict[str, Any]) -> tuple[list[str], dict[str, list[Scalar]]]:
    """Ids and columns from a file, checked."""
    ids, columns = content["ids"], content["columns"]
    if not isinstance(ids, list) or not isinstance(columns, dict) or {*map(type, ids)} - {str}:
        raise ValueError("ids or columns are of the wrong type")
    for name, column in columns.items():
        if not isinstance(column, list) or {*map(type, column)} - {float, int, str, bool, NoneType}:
            raise ValueError(f"column {name!r:.60} holds other than numbers, texts, true and false")
        if max((abs(value) for value in column if type(value) is int), default=0) > _LARGEST:
            raise ValueError(f"column {name!r:.60} holds an integer beyond {_LARGEST:g}")
        if len(column) != len(ids):
            raise ValueError(f"column {name!r:.60} has {len(column)} values for {len(ids)} ids")
    return ids, columns


def _checksum(path: Path) -> int:
    """CRC-32 of a file, read in pieces."""
    total = 0
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            total = crc32(piece, total)
    return total
