"""Descriptors of the whole crystal as features of the network."""

import torch
from torch import Tensor, nn

NEGLIGIBLE_STD = 1e-5  # relative to 1 + |mean|: 90.00001° and 90° are the same angle


class GlobalFeatures(nn.Module):
    """Standardize descriptors and mix them linearly: W (u - mean) / std + b.

    Mean and std are those of the training rows; the std of a constant descriptor is 1. The linear
    map keeps the activation of the head from cutting off single descriptors. The result is
    concatenated with the pooled vector, like the global state u of MEGNet (Chen et al., Chem.
    Mater. 31, 3564, 2019).

    Shapes: [n_graphs, n_global] -> [n_graphs, n_global].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_global: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_global))
        self.register_buffer("std", torch.ones(n_global))
        self.linear = nn.Linear(n_global, n_global)

    def fit(self, values: Tensor) -> None:
        """Set mean and standard deviation to those of the training rows [n_rows, n_global]."""
        std, mean = torch.std_mean(values.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > NEGLIGIBLE_STD * (1 + mean.abs()), std, 1.0))

    def forward(self, values: Tensor) -> Tensor:
        return self.linear((values - self.mean) / self.std)
