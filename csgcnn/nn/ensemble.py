"""Several networks that answer together."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.network import CrystalGraphNetwork


class Ensemble(nn.Module):
    """The mean of several networks of the same targets, of classes the mean probability, and how far they differ.

    Deep ensembles: Lakshminarayanan, Pritzel & Blundell, NeurIPS 30, 2017. `std_scale` is what the deviations are
    multiplied by to be those of unseen crystals, see `csgcnn.evaluation.calibration`.

    Shapes: GraphBatch -> [n_graphs, sum of n_outputs].
    """

    std_scale: Tensor
    has_std = True

    def __init__(self, members: Sequence[CrystalGraphNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("std_scale", torch.ones(sum(members[0].scaler.n_outputs)))

    def forward(self, graph: GraphBatch) -> Tensor:
        return torch.stack([member(graph) for member in self.members]).mean(0)

    def with_std(self, graph: GraphBatch) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation: [n_graphs, sum of n_outputs].

        The variance is that of the members (with n - 1), and the mean of those that they predict, if they do.
        """
        members = cast("Iterable[CrystalGraphNetwork]", self.members)
        values, std = map(
            torch.stack, zip(*(member.with_std(graph) for member in members), strict=True)
        )
        variance = values.var(0) + std.square().mean(0).nan_to_num(0.0)
        return values.mean(0), variance.sqrt() * self.std_scale
