"""Crystal vector in, targets out."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from csgcnn.nn.layers import activation_function


class Head(nn.Module):
    """CGCNN's head: activation on the pooled vector, `n_layers` layers with activation, a linear map to the targets.

    Shapes: [n_graphs, hidden] -> [n_graphs, n_targets], standardised.
    """

    def __init__(
        self,
        hidden: int,
        head_hidden: int,
        n_layers: int,
        n_targets: int,
        activation: str = "softplus",
        dropout: float = 0,
    ) -> None:
        super().__init__()
        widths = [hidden] + [head_hidden] * n_layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation_function(activation)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(widths[-1], n_targets)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(x)
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.out(self.dropout(x))


class TargetScaler(nn.Module):
    """Standardises targets with statistics of the training rows; part of the model, which answers in physical units.

    Shapes: [n_graphs, n_targets] -> [n_graphs, n_targets].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_targets: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_targets))
        self.register_buffer("std", torch.ones(n_targets))

    def fit(self, targets: Tensor) -> None:
        """Take mean and standard deviation of training targets [n_graphs, n_targets]; NaN means missing."""
        known = targets.isfinite()
        mean = targets.nanmean(0)
        var = torch.where(known, targets - mean, 0.0).square().sum(0) / known.sum(0)
        std = var.sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-8 * (1 + mean.abs()), std, 1.0))  # a constant target: learn its offset only

    def standardize(self, targets: Tensor) -> Tensor:
        """Physical units -> mean 0, standard deviation 1."""
        return (targets - self.mean) / self.std

    def forward(self, standardized: Tensor) -> Tensor:
        """Back to physical units."""
        return standardized * self.std + self.mean
