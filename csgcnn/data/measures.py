"""Quantities of crystals and atoms whose ranges describe a training set."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.descriptors import descriptor_names
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore

# Crystals that are measured at once, which bounds memory.
CRYSTALS_AT_ONCE = 4096
VOLUME = "volume_per_atom [Å3]"
# Of each atom: distance of its nearest and its farthest neighbor in the graph, number of neighbors.
SITE_MEASURES = ("nearest_neighbor [Å]", "farthest_neighbor [Å]", "coordination")

Range = tuple[float, float]


class Measured(NamedTuple):
    """Measured values of a batch.

    Attributes:
        crystals: Volume per atom and global features [n_graphs, 1 + n_global].
        sites: The `SITE_MEASURES` [n_atoms, 3].
        is_isolated: Whether an atom has no neighbor [n_atoms]; its `sites` mean nothing.
    """

    crystals: Tensor
    sites: Tensor
    is_isolated: Tensor


class Ends(NamedTuple):
    """Lowest and highest values of the columns of several groups, both [n_groups, n_columns]."""

    low: Tensor
    high: Tensor

    @classmethod
    def empty(cls, n_groups: int, n_columns: int) -> "Ends":
        """Return groups without values.

        Args:
            n_groups: Number of groups.
            n_columns: Number of columns.
        """
        low = torch.full((n_groups, n_columns), torch.inf)
        return cls(low, -low)

    def add(self, values: Tensor, group: Tensor) -> None:
        """Add values to groups, in place.

        Args:
            values: [n_rows, n_columns].
            group: Group of each row [n_rows].
        """
        values, group = values.cpu(), group.cpu()[:, None].expand(values.shape)
        self.low.scatter_reduce_(0, group, values, "amin")
        self.high.scatter_reduce_(0, group, values, "amax")

    def of(self, group: int) -> list[Range | None]:
        """Return the range of each column of a group, None without values."""
        ends = zip(self.low[group].tolist(), self.high[group].tolist(), strict=True)
        return [(low, high) if low <= high else None for low, high in ends]


def crystal_measures(settings: GraphSettings) -> list[str]:
    """Return the names of the columns of `Measured.crystals`, with units."""
    return [VOLUME, *descriptor_names(settings.global_features)]


def measured_batches(store: GraphStore, rows: Tensor) -> Iterator[tuple[GraphBatch, Measured]]:
    """Yield batches with their measured values, in order.

    Args:
        store: Graphs.
        rows: Rows [n_rows] int64, on the host.
    """
    for part in rows.split(CRYSTALS_AT_ONCE):
        if len(part):
            batch = store.batch(part)
            lattice = torch.from_numpy(store.graphs.lattice[part.numpy()])
            yield batch, _measure(batch, lattice.double().det().abs())


def _measure(batch: GraphBatch, volume: Tensor) -> Measured:
    center, n_atoms = batch.edge_index[1], len(batch.atomic_number)
    nearest = batch.distance.new_full((n_atoms,), torch.inf)
    nearest.scatter_reduce_(0, center, batch.distance, "amin")
    farthest = batch.distance.new_zeros(n_atoms)
    farthest.scatter_reduce_(0, center, batch.distance, "amax")
    n_neighbors = batch.distance.new_zeros(n_atoms).index_add(0, center, batch.edge_multiplicity)
    volume_per_atom = volume.to(batch.n_sites) / batch.n_sites
    return Measured(
        torch.cat([volume_per_atom[:, None], batch.global_features], dim=1),
        torch.stack([nearest, farthest, n_neighbors], dim=1),
        n_neighbors == 0,
    )
