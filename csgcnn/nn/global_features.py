"""Descriptors of the whole crystal in, columns of the crystal vector out."""

import torch
from torch import Tensor, nn


class GlobalFeatures(nn.Module):
    """Standardized descriptors, mixed by a linear map so that the head's activation loses none of them.

    W (u - mean) / std + b, with the statistics of the training rows; of a descriptor that is constant there, std is 1.
    Concatenated with the pooled vector, as the global state u of MEGNet is (Chen et al., Chem. Mater. 31, 3564, 2019).

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
        """Take mean and standard deviation of the descriptors of the training rows [n_rows, n_global]."""
        std, mean = torch.std_mean(values.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(
            torch.where(std > 1e-5 * (1 + mean.abs()), std, 1.0)
        )  # 90.00001 degrees are 90 degrees

    def forward(self, values: Tensor) -> Tensor:
        return self.linear((values - self.mean) / self.std)
