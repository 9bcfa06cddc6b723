"""A pooling, which implements `csgcnn.nn.interfaces.Pooling`."""

import torch
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.pooling import MaxPooling, MeanPooling


class MeanMaxPooling(nn.Module):
    """Mean and maximum over the sites of each crystal.

    Shapes: x [n_atoms, hidden] -> [n_graphs, 2 hidden].
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dim = 2 * hidden
        self.parts = nn.ModuleList([MeanPooling(hidden), MaxPooling(hidden)])

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        """Return the vectors of the crystals."""
        return torch.cat([part(x, graph) for part in self.parts], dim=1)
