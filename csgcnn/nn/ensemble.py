"""Ensembles of networks."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.network import CrystalGraphNetwork


class Ensemble(nn.Module):
    """Average the predictions of several networks for the same targets.

    Deep ensembles (Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017). The standard deviations are
    multiplied by `std_scale`, which `csgcnn.evaluation.calibration` determines on validation rows.

    Shapes: GraphBatch -> [n_graphs, sum of n_outputs].

    Args:
        members: The networks.
        has_std: Whether standard deviations are reported.
    """

    std_scale: Tensor

    def __init__(self, members: Sequence[CrystalGraphNetwork], has_std: bool = True) -> None:
        super().__init__()
        self.has_std = has_std
        self.members = nn.ModuleList(members)
        self.register_buffer("std_scale", torch.ones(sum(members[0].scaler.n_outputs)))

    def forward(self, graph: GraphBatch) -> Tensor:
        """Return mean values and mean class probabilities [n_graphs, sum of n_outputs]."""
        return torch.stack([member(graph) for member in self.members]).mean(0)

    def pooled(self, graph: GraphBatch) -> Tensor:
        """Return the embedding of each crystal by the first member [n_graphs, n_features]."""
        return cast(CrystalGraphNetwork, self.members[0]).pooled(graph)

    def with_std(self, graph: GraphBatch, pooled: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of the predictions.

        Args:
            graph: The crystals.
            pooled: What `pooled` returns, if it is known.

        Returns:
            Mean and standard deviation, both [n_graphs, sum of n_outputs]. The variance is that of
            the members' predictions (with n - 1) plus the mean of the variances they predict.
        """
        return self.combine(*self.by_member(graph, pooled))

    def by_member(self, graph: GraphBatch, pooled: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what each member predicts.

        Args:
            graph: The crystals.
            pooled: What `pooled` returns, if it is known.

        Returns:
            Predictions and standard deviations, NaN where a member predicts none, both [n_members,
            n_graphs, sum of n_outputs].
        """
        first, *others = cast("Iterable[CrystalGraphNetwork]", self.members)
        predicted = [first.with_std(graph, pooled), *(one.with_std(graph) for one in others)]
        values, std = (torch.stack(parts) for parts in zip(*predicted, strict=True))
        return values, std

    def combine(self, values: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Return `with_std` from what `by_member` returns.

        Args:
            values: Predictions of the members.
            std: Their standard deviations.
        """
        variance = values.var(0) + std.square().mean(0).nan_to_num(0.0)
        return values.mean(0), variance.sqrt() * self.std_scale
