"""Graphs packed into a few tensors, from which a batch is index arithmetic."""

import json
import os
from collections.abc import Sequence
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

from csgcnn.crystals.datasets import Scalar
from csgcnn.crystals.graphs import CrystalGraphs, GraphSettings
from csgcnn.data.batch import GraphBatch, ranges
from csgcnn.data.graph_files import flush, load_graphs, naming, save_graphs

FORMAT = 3  # 2: global_features, edge_vector; 3: checksums, rows.json

_PACKED = ("atomic_number", "atom_multiplicity", "edge_index", "distance", "edge_multiplicity", "edge_vector")
_LARGEST = 1e300  # of a column's integers: they become floats


class GraphStore:
    """Many crystal graphs with their ids and data columns.

    Geometry lies in packed tensors on one device (`to` moves them); ids and columns stay on the host. `batch` picks
    any crystals without a Python loop over them; `store[i]` is a plain PyG `Data`.
    """

    def __init__(
        self, graphs: CrystalGraphs, ids: Sequence[str], columns: dict[str, list[Scalar]], settings: GraphSettings
    ) -> None:
        self.ids = list(ids)
        self.columns = columns
        self.settings = settings
        self.graphs = graphs
        self.device = torch.device("cpu")
        self._n_atoms, self._n_edges = (torch.from_numpy(n.astype(np.int64)) for n in (graphs.n_atoms, graphs.n_edges))
        self._tensors: dict[str, Tensor] = {
            "n_atoms": self._n_atoms,
            "n_edges": self._n_edges,
            "first_atom": self._n_atoms.cumsum(0) - self._n_atoms,
            "first_edge": self._n_edges.cumsum(0) - self._n_edges,
            **{name: torch.from_numpy(getattr(graphs, name)) for name in (*_PACKED, "global_features")},
        }

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "GraphStore":
        """Move the packed tensors, in place."""
        self.device = torch.device(device)
        self._tensors = {name: tensor.to(self.device) for name, tensor in self._tensors.items()}
        return self

    def batch(self, index: Tensor) -> GraphBatch:
        """Assemble the crystals `index` [n_graphs] (int64, on the host) into one batch on the store's device."""
        packed = self._tensors
        total_atoms, total_edges = int(self._n_atoms[index].sum()), int(self._n_edges[index].sum())
        index = index.to(self.device, non_blocking=True)
        n_atoms, n_edges = packed["n_atoms"].index_select(0, index), packed["n_edges"].index_select(0, index)
        atoms, graph_index = ranges(packed["first_atom"].index_select(0, index), n_atoms, total_atoms)
        edges, graph_of_edge = ranges(packed["first_edge"].index_select(0, index), n_edges, total_edges)
        first_atom = (n_atoms.cumsum(0) - n_atoms).index_select(0, graph_of_edge)
        return GraphBatch(
            atomic_number=packed["atomic_number"].index_select(0, atoms).long(),
            atom_multiplicity=packed["atom_multiplicity"].index_select(0, atoms),
            graph_index=graph_index,
            edge_index=packed["edge_index"].index_select(1, edges) + first_atom,
            distance=packed["distance"].index_select(0, edges),
            edge_multiplicity=packed["edge_multiplicity"].index_select(0, edges),
            edge_vector=packed["edge_vector"].index_select(0, edges),
            global_features=packed["global_features"].index_select(0, index),
            n_graphs=len(index),
        )

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

    def numbers(self, names: Sequence[str]) -> Tensor:
        """Columns as numbers: [n_graphs, n_columns] float64, NaN where a value is missing."""
        values = [[np.nan if v is None else float(v) for v in self.columns[name]] for name in names]
        return torch.tensor(values, dtype=torch.float64).T.contiguous()

    def save(self, folder: Path) -> None:
        """Write the store into an existing folder, flushed to the disk, with the checksum of every file in it."""
        save_graphs(self.graphs, folder)
        _write_json(folder / "rows.json", {"ids": self.ids, "columns": self.columns})
        sums = {path.name: _checksum(path) for path in folder.iterdir()}
        _write_json(folder / "meta.json", {"format": FORMAT, "settings": asdict(self.settings), "crc32": sums})

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
        with naming(folder / "rows.json") as path:
            ids, columns = _rows(json.loads(path.read_text(encoding="utf-8")))
        graphs = load_graphs(folder, len(ids), settings)
        own = {"rows.json", *(f"{field.name}.npy" for field in fields(CrystalGraphs))}
        for name in sorted(own | (sums.keys() & {*os.listdir(folder)})):
            with naming(folder / name) as path:
                if sums.get(name) != _checksum(path):
                    raise ValueError("its checksum is another one")
        return cls(graphs, ids, columns, settings)


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


def _write_json(path: Path, content: object) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)
        flush(file)


def _checksum(path: Path) -> int:
    """CRC-32 of a file, read in pieces."""
    total = 0
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            total = crc32(piece, total)
    return total
