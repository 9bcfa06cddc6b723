"""Descriptors of the whole crystal as features of the network."""

import torch
from torch import Tensor, nn

from csgcnn.data.domain import widened

NEGLIGIBLE_STD = 1e-5  # relative to 1 + |mean|: 90.00001° and 90° are the same angle
# Ends of the range before `fit`, and of models that were trained before ranges were stored. Not
# infinite: weights must be finite, and a moving average of infinite numbers is NaN.
UNLIMITED = torch.finfo(torch.float32).max


class GlobalFeatures(nn.Module):
    """Standardize descriptors and mix them linearly: W (clamp(u, low, high) - mean) / std + b.

    Mean and std are those of the training rows; the std of a constant descriptor is 1. Low and high
    are the ends of their range, widened by 10 % of its width, so that no descriptor far outside the
    training range is extrapolated. The linear map keeps the activation of the head from cutting off
    single descriptors. The result is concatenated with the pooled vector, like the global state u
    of MEGNet (Chen et al., Chem. Mater. 31, 3564, 2019).

    Shapes: [n_graphs, n_global] -> [n_graphs, n_global].
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, n_global: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_global))
        self.register_buffer("std", torch.ones(n_global))
        self.register_buffer("low", torch.full((n_global,), -UNLIMITED))
        self.register_buffer("high", torch.full((n_global,), UNLIMITED))
        self.linear = nn.Linear(n_global, n_global)

    def fit(self, values: Tensor) -> None:
        """Set mean, standard deviation and range to those of the training rows.

        Shapes: [n_rows, n_global].
        """
        std, mean = torch.std_mean(values.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > NEGLIGIBLE_STD * (1 + mean.abs()), std, 1.0))
        low, high = widened(*values.double().aminmax(dim=0))
        self.low.copy_(low)
        self.high.copy_(high)

    def standardize(self, values: Tensor) -> Tensor:
        """Return descriptors within the training range, with mean 0 and standard deviation 1."""
        return (values.clamp(self.low, self.high) - self.mean) / self.std

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(self.standardize(values))
