"""Node features, which implement `csgcnn.nn.interfaces.NodeFeature`."""

from collections.abc import Mapping
from typing import Annotated, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csgcnn.config.settings import Setting
from csgcnn.nn.interfaces import NodeFeature


class ElementTable(nn.Module):
    """Look up features in a table of the elements.

    Shapes: table [n_elements, n_features], row = atomic number; [n_atoms] int64 -> [n_atoms, dim].
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

    def forward(self, atomic_number: Tensor) -> Tensor:
        return self.table.index_select(0, atomic_number)


class LearnedEmbedding(nn.Module):
    """A trained vector for each element, Z = 1 to 100, with random initial values.

    A small initial standard deviation, beside other features, keeps the random vectors of rare
    elements from dominating.

    Shapes: [n_atoms] int64 -> [n_atoms, dim].
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

    def forward(self, atomic_number: Tensor) -> Tensor:
        return self.embedding.weight.index_select(0, atomic_number)


class NodeFeatures(nn.Module):
    """Concatenate node features, given by name.

    Shapes: [n_atoms] int64 -> [n_atoms, dim], dim = sum of the dims of the parts.
    """

    def __init__(self, parts: Mapping[str, NodeFeature]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(cast("Mapping[str, nn.Module]", parts))
        self.dim = sum(part.dim for part in parts.values())

    def forward(self, atomic_number: Tensor) -> Tensor:
        return torch.cat([part(atomic_number) for part in self.parts.values()], dim=1)
