"""Node features, which implement `csgcnn.nn.interfaces.NodeFeature`."""

from collections.abc import Iterable, Mapping
from typing import Annotated, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.interfaces import NodeFeature

# Of a channel that is the same at all training sites; float16 numbers have 3 digits.
NEGLIGIBLE_STD = 1e-3
# Crystals whose features are summed at once.
FIT_ROWS = 1024


class ElementTable(nn.Module):
    """Look up features in a table of the elements.

    Shapes: table [n_elements, n_features], row = atomic number; GraphBatch -> [n_atoms, dim].
    """

    table: Tensor

    def __init__(
        self,
        table: NDArray[np.float32],
        trainable: Annotated[
            bool, Setting("Train the features, starting from the table.", body=False)
        ] = False,
    ) -> None:
        super().__init__()
        values = torch.tensor(table, dtype=torch.float32)
        self.dim = values.shape[1]
        if trainable:
            self.table = nn.Parameter(values)
        else:
            self.register_buffer("table", values)

    def forward(self, graph: GraphBatch) -> Tensor:
        return self.table.index_select(0, graph.atomic_number)


class LearnedEmbedding(nn.Module):
    """A trained vector for each element, Z = 1 to 100, with random initial values.

    A small initial standard deviation, beside other features, keeps the random vectors of rare
    elements from dominating.

    Shapes: GraphBatch -> [n_atoms, dim].
    """

    def __init__(
        self,
        dim: Annotated[int, Setting("Features per element.", at_least=1, at_most=10_000)] = 64,
        std: Annotated[
            float,
            Setting(
                "Standard deviation of the initial values.", at_least=0.001, at_most=100, body=False
            ),
        ] = 0.1,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.embedding = nn.Embedding(101, dim)
        with torch.no_grad():
            self.embedding.weight.mul_(std)

    def forward(self, graph: GraphBatch) -> Tensor:
        return self.embedding.weight.index_select(0, graph.atomic_number)


class SiteFeatures(nn.Module):
    """Project the site features of a pretrained potential, standardized on the training sites.

    The potential's layers see the surroundings of a site as far as the energies and forces it was
    trained on depend on them. A narrow projection and dropout keep a network that is trained on
    few crystals from fitting them: W dropout((f - mean) / std) + b.

    Shapes: GraphBatch -> [n_atoms, dim].

    Args:
        columns: Columns of the potential in `GraphBatch.site_features`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        columns: slice,
        potential: Annotated[str, Setting("Potential, which is added to graph.site_features.")],
        dim: Annotated[
            int, Setting("Features per atom after projection.", at_least=1, at_most=10_000)
        ] = 128,
        dropout: Annotated[
            float,
            Setting("Dropout probability of the features.", at_least=0, below=1, body=False),
        ] = 0.0,
    ) -> None:
        super().__init__()
        self.potential, self.columns, self.dim = potential, columns, dim
        n_features = columns.stop - columns.start
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("std", torch.ones(n_features))
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(n_features, dim)

    def fit(self, graphs: Iterable[GraphBatch]) -> None:
        """Set mean and standard deviation to those of the sites of training crystals."""
        moments = torch.zeros(3, len(self.mean), dtype=torch.float64, device=self.mean.device)
        for graph in graphs:
            own = graph.site_features[:, self.columns].double()
            weight = graph.atom_multiplicity.double()
            powers = torch.stack([torch.ones_like(own), own, own.square()])
            moments += torch.einsum("pac,a->pc", powers, weight)
        mean, mean_square = moments[1:] / moments[0]
        variance = (mean_square - mean.square()).clamp(min=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(variance.sqrt() > NEGLIGIBLE_STD, variance.sqrt(), 1.0))

    def forward(self, graph: GraphBatch) -> Tensor:
        own = graph.site_features[:, self.columns].to(self.mean.dtype)
        return self.projection(self.dropout((own - self.mean) / self.std))


class NodeFeatures(nn.Module):
    """Concatenate node features, given by name.

    Shapes: GraphBatch -> [n_atoms, dim], dim = sum of the dims of the parts.
    """

    def __init__(self, parts: Mapping[str, NodeFeature]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(cast("Mapping[str, nn.Module]", parts))
        self.dim = sum(part.dim for part in parts.values())

    def fit(self, store: GraphStore, rows: Tensor) -> None:
        """Fit the parts that standardize stored features.

        Args:
            store: The graphs.
            rows: Training rows [n_rows] int64, on the host.
        """
        for part in self.parts.values():
            if isinstance(part, SiteFeatures):
                part.fit(store.batches(rows.split(FIT_ROWS)))

    def forward(self, graph: GraphBatch) -> Tensor:
        return torch.cat([part(graph) for part in self.parts.values()], dim=1)
