"""Several networks that answer together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.models import CrystalGraphNetwork


class Ensemble(nn.Module):
    """The mean of several networks of the same targets, of classes the mean probability.

    Deep ensembles: Lakshminarayanan, Pritzel & Blundell, NeurIPS 30, 2017.

    Shapes: GraphBatch -> [n_graphs, sum of n_outputs].
    """

    def __init__(self, members: Sequence[CrystalGraphNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def each(self, graph: GraphBatch) -> Tensor:
        """What each member answers: [n_graphs, n_members, sum of n_outputs]."""
        return torch.stack([member(graph) for member in self.members], dim=1)

    def forward(self, graph: GraphBatch) -> Tensor:
        return self.each(graph).mean(1)
