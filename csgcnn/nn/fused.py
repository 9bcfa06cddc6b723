r"""Operations whose gradients are written in closed form, because training spends most time here.

Autograd would keep every intermediate result and pass over the [n_edges, size] arrays once per
elementary operation. The functions below need fewer passes and less memory; the tests compare them
with autograd and with `torch.nn.BatchNorm1d`.

Notation: row k counts p_k, with p the multiplicities divided by their sum over all ranks, so that

.. math:: \mu = \sum_k p_k z_k, \quad v = \sum_k p_k (z_k - \mu)^2, \quad r = (v + \epsilon)^{-1/2}

and y = (z - \mu) r a + b is the batch norm of z with weight a and bias b. With G the gradient of
the loss with respect to y, C = z - \mu, and sums over the rows of all ranks:

.. math:: \partial z = a r \, \big[ G - p \, (\textstyle\sum G + C r^2 \sum G C) \big], \quad
          \partial a = r \textstyle\sum G C, \quad \partial b = \sum G
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from csgcnn import distributed


class BatchNormFunction(torch.autograd.Function):
    """Normalize rows with the statistics of the batch, row k weighted by p[k].

    Called as `BatchNormFunction.apply(x, p, weight, bias, eps)`.

    Shapes: x [n_rows, size], p [n_rows], weight and bias [size] -> y [n_rows, size], mean [size]
    and variance [size]. Mean and variance have no gradient.
    """

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
        """Return the gradients with respect to the arguments of `forward`.

        Args:
            ctx: Tensors that `forward` saved.
            grad: Gradient with respect to the first output.
            _: Gradients with respect to the other outputs, which have none.
        """
        centered, p, rstd, scale = ctx.saved_tensors
        unscaled, grad_weight, grad_bias = norm_backward(grad.clone(), centered, p, rstd)
        return unscaled.mul_(scale), None, grad_weight, grad_bias, None


def weighted_mean(p: Tensor, x: Tensor) -> Tensor:
    """Return the mean of the rows of all ranks, row k weighted by p[k].

    Args:
        p: Weights [n_rows], which sum to 1 over all ranks.
        x: Values [n_rows, size].

    Returns:
        The mean [size].
    """
    return distributed.sum_over_ranks(p @ x)


def norm_backward(
    grad: Tensor, centered: Tensor, p: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a batch norm by the formula at the top of this module.

    Args:
        grad: Gradient with respect to the output [n_rows, size], overwritten.
        centered: Input minus its mean [n_rows, size].
        p: Weights of the rows [n_rows].
        rstd: Reciprocal standard deviations [size].

    Returns:
        The gradients with respect to the input, divided by a r, [n_rows, size]; to the weight
        [size]; to the bias [size]. The last two are sums over the rows of this rank.
    """
    product = grad * centered
    sums = torch.stack([grad.sum(0), product.sum(0)])
    by_bias, by_weight = distributed.sum_over_ranks(sums)
    through_statistics = torch.addcmul(by_bias, centered, by_weight * rstd.square(), out=product)
    return grad.addcmul_(through_statistics, p.unsqueeze(1), value=-1), sums[1] * rstd, sums[0]


def split_pair(weight: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
    """Split the weight of a linear map of [x_i, x_j, e_ij] into its parts.

    Args:
        weight: [out, 2 hidden + edge_dim].
        hidden: Features per atom.

    Returns:
        The part for atoms [2 out, hidden], as centers above and as neighbors below; the part for
        edges [out, edge_dim].
    """
    of_center_and_neighbor = weight[:, : 2 * hidden].unflatten(1, (2, -1))
    return of_center_and_neighbor.transpose(0, 1).flatten(0, 1), weight[:, 2 * hidden :]


def join_pair(of_ends: Tensor, of_edge: Tensor) -> Tensor:
    """Return the weight whose parts `split_pair` returns.

    Args:
        of_ends: Part for atoms [2 out, hidden].
        of_edge: Part for edges [out, edge_dim].

    Returns:
        The weight [out, 2 hidden + edge_dim].
    """
    return torch.cat([*of_ends.chunk(2), of_edge], dim=1)
