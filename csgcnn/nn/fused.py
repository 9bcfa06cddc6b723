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
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from csgcnn import distributed
from csgcnn.data.batch import GraphBatch


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


class GatedSumFunction(torch.autograd.Function):
    r"""Sum of the gated messages over the neighbors of each atom, with batch-normalized messages.

    .. math:: \sum_j w_{ij} \, \sigma(y_{ij}^f) \, g(y_{ij}^s), \quad
              [y^f_{ij}, y^s_{ij}] = BN(W [x_i, x_j, e_{ij}] + c)

    with g the softplus and w the multiplicity of the edge. Called as `GatedSumFunction.apply(x,
    edge_attr, W, c, a, b, eps, p, graph)` with a and b the weight and the bias of the norm.

    Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim], W [2 hidden, 2 hidden + edge_dim],
    c, a and b [2 hidden], p [n_edges] -> sums [n_atoms, hidden], mean and variance [2 hidden]. Mean
    and variance have no gradient.

    How passes are saved:

    - The norm removes c, so c is added to the mean only; its gradient is 0.
    - The sign of y^s is flipped: with u = \sigma(-y^s), softplus(y^s) = -log u, so one sigmoid over
      all 2 hidden columns serves both halves. It is faster than `softplus` on a CPU. The minus
      sign is applied to the sum. Where u underflows, -log u is replaced by y^s, which it equals.
    - Derivatives follow from these values: \sigma' = \sigma (1 - \sigma), softplus' = 1 - u.
    - The factor a r of whole columns is applied to the small products of the gradient with x and
      edge_attr, not to the gradient [n_edges, 2 hidden] itself.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        edge_attr: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        p: Tensor,
        graph: GraphBatch,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = x.shape[1]
        ctx.graph = graph
        of_ends, of_edge = split_pair(weight, hidden)
        of_atoms = F.linear(x, of_ends).view(2 * len(x), 2 * hidden)
        z = graph.ends_of_edge.sum(of_atoms).addmm_(edge_attr, of_edge.t())
        z = z.to(norm_weight.dtype)

        mean = weighted_mean(p, z)
        centered = z.sub_(mean)
        squared = centered.square()
        var = weighted_mean(p, squared)
        rstd = torch.rsqrt(var + eps)
        sign = torch.ones_like(norm_weight)
        sign[hidden:] = -1
        scale = norm_weight * rstd * sign

        normed = torch.addcmul(norm_bias * sign, centered, scale, out=squared)
        sigmoids = normed.sigmoid()
        gate, closed = sigmoids[:, :hidden], sigmoids[:, hidden:]
        core = closed.clamp(min=torch.finfo(closed.dtype).tiny).log_()
        core = torch.minimum(core, normed[:, hidden:], out=core)
        message = core.mul_(gate)
        mean = mean + bias
        ctx.save_for_backward(
            x, edge_attr, of_ends, of_edge, centered, sigmoids, message, p, rstd, sign, scale
        )
        ctx.mark_non_differentiable(mean, var)
        return graph.edges_of_center.sum(message).neg_(), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to the arguments of `forward`.

        Args:
            ctx: Tensors that `forward` saved.
            grad: Gradient with respect to the first output.
            _: Gradients with respect to the other outputs, which have none.
        """
        x, edge_attr, of_ends, of_edge, centered, sigmoids, message, p, rstd, sign, scale = (
            ctx.saved_tensors
        )
        hidden = x.shape[1]
        gate, closed = sigmoids[:, :hidden], sigmoids[:, hidden:]
        by_message = ctx.graph.center_of_edge.sum(-grad)
        by_normed = torch.empty_like(sigmoids)
        by_gate = torch.mul(by_message, message, out=by_normed[:, :hidden])
        by_gate.addcmul_(by_gate, gate, value=-1)
        by_core = by_message.mul_(gate)
        torch.addcmul(by_core, by_core, closed, value=-1, out=by_normed[:, hidden:])

        unscaled, grad_weight, grad_bias = norm_backward(by_normed, centered, p, rstd)
        by_ends = ctx.graph.edges_of_end.sum(unscaled).mul_(scale)
        by_ends = by_ends.view(len(x), 4 * hidden).to(x.dtype)
        unscaled, scale = unscaled.to(x.dtype), scale.unsqueeze(1).to(x.dtype)
        by_weight = join_pair(by_ends.t() @ x, (edge_attr.t() @ unscaled).t() * scale)
        by_edge = unscaled @ (of_edge * scale) if ctx.needs_input_grad[1] else None
        by_norm = torch.zeros_like(grad_bias), grad_weight * sign, grad_bias * sign
        return by_ends @ of_ends, by_edge, by_weight, *by_norm, None, None, None


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
