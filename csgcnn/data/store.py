"""Graphs packed into a few tensors, from which a batch is index arithmetic."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from csgcnn.crystals.graphs import CrystalGraphs, GraphSettings
from csgcnn.data.batch import GraphBatch, ranges

FORMAT = 2  # 2: global_features, edge_vector
Scalar = float | int | str | bool | None


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
            **{name: torch.from_numpy(getattr(graphs, name)) for name in _ATOM_FIELDS + _EDGE_FIELDS + _GRAPH_FIELDS},
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
        """Write the store into an existing empty folder, every file flushed to the disk."""
        sizes = {}
        for field in fields(CrystalGraphs):
            with open(folder / f"{field.name}.npy", "wb") as file:
                np.save(file, getattr(self.graphs, field.name), allow_pickle=False)
                _flush(file)
            sizes[field.name] = (folder / f"{field.name}.npy").stat().st_size
        meta = {"format": FORMAT, "settings": asdict(self.settings), "sizes": sizes}
        with open(folder / "meta.json", "w", encoding="utf-8") as file:
            json.dump(meta | {"ids": self.ids, "columns": self.columns}, file)
            _flush(file)

    @classmethod
    def load(cls, folder: Path) -> "GraphStore":
        """Read a store that `save` wrote.

        Raises:
            ValueError: a file is missing, truncated or of another format; the message names it.
        """
        path = folder / "meta.json"
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']}, expected {FORMAT}")
            settings, arrays = GraphSettings(**meta["settings"]), {}
            for name, size in meta["sizes"].items():
                path = folder / f"{name}.npy"
                if (found := path.stat().st_size) != size:
                    raise ValueError(f"{found} bytes, expected {size}")
                arrays[name] = np.load(path, allow_pickle=False)
            return cls(CrystalGraphs(**arrays), meta["ids"], meta["columns"], settings)
        except (OSError, KeyError, TypeError, EOFError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


_ATOM_FIELDS = ("atomic_number", "atom_multiplicity")
_EDGE_FIELDS = ("edge_index", "distance", "edge_multiplicity", "edge_vector")
_GRAPH_FIELDS = ("global_features",)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
