"""Inputs beside the structure as features of the network: temperature, pressure, functional."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.global_features import NEGLIGIBLE_STD

InputsAt = Annotated[
    str,
    Setting(
        "Where dataset.inputs enter: beside the crystal vector (head), or added to the atoms "
        "before each convolution (state).",
        choices=("head", "state"),
    ),
]


class InputFeatures(nn.Module):
    r"""Map the columns of `dataset.inputs` to a vector of each crystal.

    .. math:: u = W z + b + \sum_c E_c

    z are the numbers, with mean 0 and standard deviation 1 on the training rows. E_c is the learned
    vector of the category of column c.

    Shapes: GraphBatch -> [n_graphs, dim].

    Args:
        sizes: Number of categories of each column; 0: it holds numbers.
        dim: Size of the vector.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, sizes: Sequence[int], dim: int) -> None:
        super().__init__()
        self.n_inputs = len(sizes)
        self.numbers = [i for i, size in enumerate(sizes) if not size]
        self.categories = [i for i, size in enumerate(sizes) if size]
        self.register_buffer("mean", torch.zeros(len(self.numbers)))
        self.register_buffer("std", torch.ones(len(self.numbers)))
        self.linear = nn.Linear(len(self.numbers), dim) if self.numbers else None
        self.embeddings = nn.ModuleList(nn.Embedding(size, dim) for size in sizes if size)

    def fit(self, store: GraphStore, rows: Tensor) -> None:
        """Set mean and standard deviation of the numbers to those of the training rows.

        Args:
            store: The graphs, with inputs.
            rows: Training rows [n_rows] int64, on the host.
        """
        if store.inputs is None or not self.numbers:
            return
        values = store.inputs[rows, -self.n_inputs :][:, self.numbers].double()
        std, mean = torch.std_mean(values, dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > NEGLIGIBLE_STD * mean.abs(), std, 1.0))

    def forward(self, graph: GraphBatch) -> Tensor:
        if graph.inputs is None:
            raise ValueError("the batch has no inputs")
        inputs = graph.inputs[:, -self.n_inputs :]  # behind the column of dataset.delta
        parts = [
            embedding(inputs[:, column].long())
            for column, embedding in zip(self.categories, self.embeddings, strict=True)
        ]
        if self.linear is not None:
            # An index tensor would be copied to a GPU in each step, which a CUDA graph cannot.
            numbers = torch.stack([inputs[:, column] for column in self.numbers], dim=1)
            parts.append(self.linear((numbers - self.mean) / self.std))
        return torch.stack(parts).sum(0)


class GlobalState(nn.Module):
    r"""Add a vector of each crystal to its atoms, before each convolution.

    .. math:: x_i \leftarrow x_i + S_k u

    u is the vector of `InputFeatures`, and S_k a matrix of block k. The state of MEGNet (Chen et
    al., Chem. Mater. 31, 3564, 2019) enters its blocks in this place; here it is not updated.

    Args:
        features: Computes u.
        dim: Size of u, and features per atom.
        n_blocks: Number of convolutions.
    """

    def __init__(self, features: InputFeatures, dim: int, n_blocks: int) -> None:
        super().__init__()
        self.features = features
        self.maps = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(n_blocks))

    def fit(self, store: GraphStore, rows: Tensor) -> None:
        """Fit the features to the training rows.

        Args:
            store: The graphs, with inputs.
            rows: Training rows [n_rows] int64, on the host.
        """
        self.features.fit(store, rows)

    def forward(self, graph: GraphBatch) -> list[Tensor]:
        """Return what is added to the atoms, for each block: [n_atoms, dim]."""
        state = self.features(graph)
        return [of_block(state).index_select(0, graph.graph_index) for of_block in self.maps]


def place_inputs(
    sizes: Sequence[int], where: str, dim: int, n_blocks: int
) -> tuple[InputFeatures | None, GlobalState | None]:
    """Build what reads the inputs at the head, or the state; neither without inputs.

    Args:
        sizes: Number of categories of each column; 0: it holds numbers.
        where: head or state.
        dim: Features per atom.
        n_blocks: Number of convolutions.
    """
    if not sizes:
        return None, None
    features = InputFeatures(sizes, dim)
    return (features, None) if where == "head" else (None, GlobalState(features, dim, n_blocks))
