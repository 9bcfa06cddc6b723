"""Graphs packed into a few tensors, from which a batch is collated by index arithmetic."""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.descriptors import length_powers
from csgcnn.crystals.graphs import LAYOUT, CrystalGraphs
from csgcnn.crystals.records import Scalar
from csgcnn.data.batch import GraphBatch
from csgcnn.data.collate import collate, collate_padded
from csgcnn.data.store_files import load_content, release, save_content
from csgcnn.errors import UserError

if TYPE_CHECKING:
    from torch_geometric.data import Data

BLOCK = 1024  # crystals that are neighbors in the files, and are read together
WINDOW = 64  # blocks that are shuffled together
AHEAD = 2  # batches that are read from files while the GPU computes
MAPPED_BYTES = 2**26  # that batches read from files before the system gets their memory back

# Arrays of nodes and edges, which batches hold.
_PACKED = [name for name, (_, shape) in LAYOUT.items() if {"n_atoms", "n_edges"} & {*shape}]


class GraphStore:
    """Crystal graphs with their ids and data columns.

    The graphs are packed tensors on one device (`to` moves them), or stay in memory-mapped files.
    Ids and columns stay on the host. `batch` collates any crystals; `store[i]` is a PyG `Data`.

    Args:
        graphs: The graphs.
        ids: Id of each graph.
        columns: Values of each graph, by column; None where missing.
        settings: How the graphs were made.

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
        # Columns in the batches, and why rows lack one of them: see `csgcnn.data.inputs`.
        self.inputs_key: Hashable = None
        self.inputs: Tensor | None = None
        self.lacking: dict[int, str] = {}
        self.device = torch.device("cpu")
        self.is_resident = True
        self._mapped_bytes, self._max_mapped_bytes = 0, MAPPED_BYTES
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
            "length_powers": torch.tensor([*map(float, length_powers(settings.global_features))]),
        }

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_bytes(self) -> int:
        """Size of the packed tensors."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def set_inputs(self, key: Hashable, inputs: Tensor, lacking: dict[int, str]) -> None:
        """Add columns to the batches.

        Args:
            key: What they are.
            inputs: [n_graphs, n_inputs] float32, NaN where a value is lacking.
            lacking: Reasons, by row.
        """
        self.inputs_key, self.inputs, self.lacking = key, inputs, lacking
        self._tensors["inputs"] = inputs.to(self._tensors["n_atoms"].device)

    def to(
        self,
        device: torch.device | str,
        resident: bool = True,
        max_mapped_bytes: int = MAPPED_BYTES,
    ) -> "GraphStore":
        """Set the device of the batches, in place.

        Args:
            device: The device.
            resident: Whether the packed tensors are moved to the device. Otherwise they stay where
                they are (in files, if they were loaded), and only batches are moved.
            max_mapped_bytes: Bytes that batches read from files before their memory is returned to
                the system.

        Returns:
            The store itself.
        """
        self.device, self.is_resident = torch.device(device), resident
        self._max_mapped_bytes = max_mapped_bytes
        if resident:
            # Files may change or vanish, so mapped arrays are copied even to the CPU.
            is_mapped = isinstance(self.graphs.distance, np.memmap)
            self._tensors = {
                name: tensor.to(self.device, copy=is_mapped)
                for name, tensor in self._tensors.items()
            }
        return self

    def shuffled(self, rows: Tensor, block: int = BLOCK, window: int = WINDOW) -> Tensor:
        """Return rows in random order.

        A store in files is shuffled in windows, so that few parts of the files are needed at any
        time: the blocks come in random order, and the crystals of a window of blocks are mixed.

        Args:
            rows: [n_rows] int64.
            block: Number of crystals per block, which are neighbors in the files.
            window: Number of blocks per window.

        Returns:
            [n_rows] int64.
        """
        if self.is_resident:
            return rows[torch.randperm(len(rows))]
        n_blocks = -(-len(self) // block)
        window_of_row = torch.randperm(n_blocks)[rows // block] // window
        return rows[(window_of_row + torch.rand(len(rows), dtype=torch.float64)).argsort()]

    def batches(self, parts: Iterable[Tensor]) -> Iterator[GraphBatch]:
        """Yield a batch for each part, reading ahead from files for a GPU.

        Args:
            parts: Crystals of each batch: [n_graphs] int64, on the host.
        """
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
        """Return the total numbers of nodes and edges.

        Args:
            index: Crystals [n_graphs], on the host; None for all.
        """
        atoms, edges = self._n_atoms, self._n_edges
        if index is not None:
            atoms, edges = atoms[index], edges[index]
        return int(atoms.sum()), int(edges.sum())

    def batch(self, index: Tensor) -> GraphBatch:
        """Collate crystals to a batch on the device of the store.

        Args:
            index: [n_graphs] int64, on the host.
        """
        source = self._tensors["n_atoms"].device
        batch = collate(self._tensors, index.to(source, non_blocking=True), *self.size(index))
        if self.is_resident:
            return batch
        # Bytes per edge and per node in the files.
        per_atom = 5 + batch.site_features.shape[1] * batch.site_features.itemsize
        self._mapped_bytes += 16 * len(batch.distance) + per_atom * len(batch.atomic_number)
        if self._mapped_bytes > self._max_mapped_bytes:
            self._mapped_bytes = 0
            self.release()
        return batch.to(self.device)

    def padded(self, index: Tensor, n_atoms: int, n_edges: int) -> GraphBatch:
        """Collate crystals to a batch of a given size, see `collate_padded`.

        Args:
            index: [n_graphs] int64, on the device of the store, which must be resident.
            n_atoms: Number of nodes, more than those of the crystals.
            n_edges: Number of edges, at least those of the crystals.
        """
        return collate_padded(self._tensors, index, n_atoms, n_edges)

    def release(self) -> None:
        """Return the memory of graphs in files to the system."""
        for name in LAYOUT:
            release(getattr(self.graphs, name))

    def blocks(self) -> Iterator[CrystalGraphs]:
        """Yield the graphs block by block, in order; those in files need little memory."""
        for block in self.graphs.blocks():
            yield block
            self.release()

    def __getitem__(self, i: int) -> "Data":
        """Return one crystal as a PyG `Data`."""
        from torch_geometric.data import Data  # its import takes almost 2 s

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
        """Expand values of the nodes of a crystal to its sites.

        Args:
            values: [n_atoms, ...].
            i: The crystal.

        Returns:
            [n_sites, ...], in the order in which the sites were read.
        """
        first = int(self.graphs.n_sites[:i].sum())
        node = self.graphs.site_node[first : first + self.graphs.n_sites[i]]
        return values.index_select(0, torch.from_numpy(node.astype(np.int64)).to(values.device))

    @cached_property
    def elements(self) -> list[set[int]]:
        """Atomic numbers of each crystal."""
        bounds = np.cumsum(self.graphs.n_atoms)[:-1]
        return [set(z.tolist()) for z in np.split(self.graphs.atomic_number, bounds)]

    def numbers(self, names: Sequence[str]) -> Tensor:
        """Return columns as numbers: [n_graphs, n_columns] float64, NaN where missing."""
        values = [[np.nan if v is None else float(v) for v in self.columns[name]] for name in names]
        return torch.tensor(values, dtype=torch.float64).T.contiguous()

    def save(self, folder: Path) -> None:
        """Write the store into an existing folder."""
        save_content((self.graphs, self.ids, self.columns, self.settings), folder)

    @classmethod
    def load(cls, folder: Path) -> "GraphStore":
        """Load a store that `save` wrote; its graphs stay in their files.

        Raises:
            ValueError: A file is missing, damaged or of another format; the message names it.
        """
        return cls(*load_content(folder))


def open_store(folder: Path) -> GraphStore:
    """Load a store that a user made.

    Args:
        folder: Folder of the store.

    Raises:
        UserError: The store is damaged or of another format.
    """
    with made_by_user():
        return GraphStore.load(folder)


@contextmanager
def made_by_user() -> Iterator[None]:
    """Turn the error of a damaged store into one that tells the user to build it again.

    Raises:
        UserError: The block raised a ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise UserError(f"{error}; build these graphs again with csgcnn build") from error
