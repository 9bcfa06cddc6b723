"""Atomic number in, node features out."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csgcnn.config.settings import Setting


class ElementTable(nn.Module):
    """Look features up in a table of the elements; `trainable` starts from the table and learns from there.

    Shapes: table [n_elements, n_features], row = atomic number; forward: [n_atoms] int64 -> [n_atoms, n_features].
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
    """A learned vector for each element, Z = 1 to 100, at first random with deviation `std`.

    Beside other features a small `std` keeps elements that training hardly sees, or never, from random vectors.

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
    """One or several featurizations, concatenated, by name.

    Shapes: [n_atoms] int64 -> [n_atoms, dim], dim = sum of the parts' dims.
    """

    def __init__(self, parts: Mapping[str, ElementTable | LearnedEmbedding]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.dim = sum(part.dim for part in parts.values())

    def forward(self, atomic_number: Tensor) -> Tensor:
        return torch.cat([part(atomic_number) for part in self.parts.values()], dim=1)
