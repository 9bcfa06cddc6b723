"""Normalization of atoms and edges that count with multiplicities."""

import torch
from torch import Tensor, nn

from csgcnn import distributed
from csgcnn.nn.fused import BatchNormFunction


class WeightedBatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy, ICML 2015) in which row k counts `weight[k]` times.

    With integer weights it equals `BatchNorm1d` on rows repeated as often, so a compressed graph
    gives the statistics, outputs and gradients of the full one. In training the statistics are
    those of the batch over all ranks; in evaluation the running statistics are used, so that a
    prediction does not depend on its batch.

    Shapes: x [n_rows, size], weight [n_rows] -> [n_rows, size].
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, size: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        if not self.training:
            scale = self.weight * torch.rsqrt(self.running_var + self.eps)
            return torch.addcmul(self.bias - self.running_mean * scale, x, scale)
        total = self.total(weight)
        # Statistics stay in float32.
        with torch.autocast(x.device.type, enabled=False):
            out, mean, var = BatchNormFunction.apply(
                x.to(self.weight.dtype), weight / total, self.weight, self.bias, self.eps
            )
        self.track(mean, var, total)
        return out

    def total(self, weight: Tensor) -> Tensor:
        """Return the sum of the weights [n_rows] over all ranks, a scalar."""
        return distributed.sum_over_ranks(weight.sum())

    @torch.no_grad()
    def track(self, mean: Tensor, var: Tensor, total: Tensor) -> None:
        """Move the running statistics toward those of a batch; the variance is the unbiased one.

        Args:
            mean: Mean of the batch [size].
            var: Biased variance of the batch [size].
            total: Sum of the weights of the batch, a scalar. A batch of no rows changes nothing.
        """
        momentum = self.momentum * (total > 0)
        unbiased = var * (total / (total - 1).clamp(min=1)).to(var.dtype)
        self.running_mean.lerp_(mean, momentum.to(mean.dtype))
        self.running_var.lerp_(unbiased, momentum.to(var.dtype))


class LayerNorm(nn.LayerNorm):
    """Layer normalization (Ba, Kiros & Hinton, arXiv 1607.06450), which ignores the weights.

    Shapes: x [n_rows, size], weight [n_rows] -> [n_rows, size].
    """

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class NoNorm(nn.Module):
    """Identity with the interface of a norm.

    Shapes: x [n_rows, size], weight [n_rows] -> [n_rows, size].
    """

    def __init__(self, size: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x


NORMS: dict[str, type[nn.Module]] = {"batch": WeightedBatchNorm, "layer": LayerNorm, "none": NoNorm}


def make_norm(name: str, size: int) -> nn.Module:
    """Build a normalization layer.

    Args:
        name: batch, layer or none.
        size: Features per row.

    Returns:
        A module with forward(x [n_rows, size], weight [n_rows]) -> [n_rows, size], where row k
        counts `weight[k]` times.

    Raises:
        ValueError: The name is unknown.
    """
    if name not in NORMS:
        raise ValueError(f"norm={name}: expected one of {', '.join(NORMS)}")
    return NORMS[name](size)
