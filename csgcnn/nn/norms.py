"""Normalization that knows what each row stands for."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from csgcnn import distributed


class WeightedBatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 2015) in which row i counts `weight[i]` times, wherever it lies.

    With integer weights it equals `BatchNorm1d` on rows repeated so often, so a compressed graph gives the statistics,
    outputs and gradients of the full one. In evaluation the running statistics are used: a prediction never depends on
    its batch. `shared`: a batch is that of all processes; else each takes the statistics of its own part.

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
        total, kind = self.total(weight), x.device.type
        with torch.autocast(kind, enabled=False):  # statistics stay in float32
            x = x.to(self.weight.dtype)
            out, mean, var = _WeightedNorm.apply(
                x, weight / total, self.weight, self.bias, self.eps
            )
        self.track(mean, var, total)
        return out

    def total(self, weight: Tensor) -> Tensor:
        """How many rows those of a batch stand for."""
        return distributed.sum_over_ranks(weight.sum())

    @torch.no_grad()
    def track(self, mean: Tensor, var: Tensor, total: Tensor) -> None:
        """Move the running statistics towards those of a batch of `total` rows (unbiased variance, as PyTorch's)."""
        momentum = self.momentum * (total > 0)  # a batch without edges says nothing
        self.running_mean.lerp_(mean, momentum.to(mean.dtype))
        self.running_var.lerp_(
            var * (total / (total - 1).clamp(min=1)).to(var.dtype), momentum.to(var.dtype)
        )


class LayerNorm(nn.LayerNorm):
    """Layer normalization (Ba, Kiros & Hinton 2016): each row by itself, so what it stands for does not matter."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class NoNorm(nn.Module):
    """No normalization."""

    def __init__(self, size: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x


NORMS: dict[str, type[nn.Module]] = {"batch": WeightedBatchNorm, "layer": LayerNorm, "none": NoNorm}


def make_norm(name: str, size: int) -> nn.Module:
    """One of batch, layer, none, with forward(x [n_rows, size], weight [n_rows]).

    Raises:
        ValueError: there is no such norm.
    """
    if name not in NORMS:
        raise ValueError(f"norm={name}: expected one of {', '.join(NORMS)}")
    return NORMS[name](size)


def weighted_mean(p: Tensor, x: Tensor) -> Tensor:
    """Mean of x [n_rows, size], row i weighted by p[i]: [size].

    `shared`: the rows of all processes count, and `p` sums to 1 over them all.
    """
    mean = p @ x
    return distributed.sum_over_ranks(mean)


def norm_backward(
    grad: Tensor, centered: Tensor, p: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight * rstd * centered + bias: by x, divided by weight * rstd, in place of `grad`; weight; bias."""
    product = grad * centered
    sums = torch.stack([grad.sum(0), product.sum(0)])
    by_bias, by_weight = distributed.sum_over_ranks(sums)
    through_statistics = torch.addcmul(by_bias, centered, by_weight * rstd.square(), out=product)
    return grad.addcmul_(through_statistics, p.unsqueeze(1), value=-1), sums[1] * rstd, sums[0]


class _WeightedNorm(torch.autograd.Function):
    """Normalize with the statistics of p-weighted rows; a closed-form gradient takes few passes over x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, p: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = weighted_mean(p, x)
        centered = x - mean
        var = weighted_mean(p, centered.square())
        rstd = torch.rsqrt(var + eps)
        scale = weight * rstd
        ctx.save_for_backward(centered, p, rstd, scale)
        ctx.mark_non_differentiable(mean, var)
        return torch.addcmul(bias, centered, scale), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        centered, p, rstd, scale = ctx.saved_tensors
        unscaled, grad_weight, grad_bias = norm_backward(grad.clone(), centered, p, rstd)
        return unscaled.mul_(scale), None, grad_weight, grad_bias, None
