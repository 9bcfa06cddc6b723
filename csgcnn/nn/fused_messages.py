r"""Message passing whose gradients are written in closed form, for training.

All functions begin with batch-normalized linear maps of [x_i, x_j, e_ij] for every edge i <- j,

.. math:: y_{ij} = BN(W [x_i, x_j, e_{ij}] + c)

and are called as `apply(x, edge_attr, W, c, a, b, eps, p, graph, ...)`, with a and b the weight and
the bias of the norm and p the weights of the edges in its statistics; `fused` does so with the
layers of a network. They return their result, and the mean and the variance of what is normalized,
which have no gradient.

Shapes: x [n_atoms, hidden], edge_attr [n_edges, edge_dim], W [size, 2 hidden + edge_dim], c, a and
b [size], p [n_edges] -> the result, mean and variance [size].

How passes over [n_edges, size] arrays are saved:

- The norm removes c, so c is added to the mean only; its gradient is 0.
- The factor a r of whole columns is applied to the small products of the gradient with x and
  edge_attr, not to the gradient [n_edges, size] itself.
- Only W [x_i, x_j, e_ij] minus its mean is kept for the backward pass, and what costs more than one
  pass to compute again.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from csgcnn.data.batch import GraphBatch
from csgcnn.nn.fused import join_pair, norm_backward, split_pair, weighted_mean
from csgcnn.nn.norms import WeightedBatchNorm


def fused(
    function: type[torch.autograd.Function],
    linear: nn.Linear,
    norm: WeightedBatchNorm,
    x: Tensor,
    edge_attr: Tensor,
    graph: GraphBatch,
    *parameters: Tensor,
) -> Tensor:
    """Apply a function of this module, and track the statistics of its norm.

    Args:
        function: The function.
        linear: The linear map of [x_i, x_j, e_ij].
        norm: The norm of its result.
        x: [n_atoms, hidden].
        edge_attr: [n_edges, edge_dim].
        graph: The edges.
        parameters: Further arguments of the function.

    Returns:
        The result of the function.
    """
    kind, total = x.device.type, norm.total(graph.edge_count)
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    # Statistics, and what follows from them, stay in float32.
    with torch.autocast(kind, enabled=False):
        result, mean, var = function.apply(
            x.to(dtype),
            edge_attr.to(dtype),
            linear.weight.to(dtype),
            linear.bias,
            norm.weight,
            norm.bias,
            norm.eps,
            graph.edge_count / total,
            graph,
            *parameters,
        )
    norm.track(mean, var, total)
    return result


class Pairs(NamedTuple):
    """W [x_i, x_j, e_ij] minus its mean, and what its gradients need."""

    x: Tensor
    edge_attr: Tensor
    # The parts of W, see `split_pair`.
    of_ends: Tensor
    of_edge: Tensor
    p: Tensor
    # [n_edges, size]
    centered: Tensor
    # [size]: reciprocal standard deviations
    rstd: Tensor

    def backward(
        self, by_normed: Tensor, scale: Tensor, graph: GraphBatch, edge_needs_grad: bool
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the linear map and the norm.

        Args:
            by_normed: Gradient with respect to y [n_edges, size], overwritten.
            scale: a r [size].
            graph: The edges.
            edge_needs_grad: Whether the gradient with respect to edge_attr is computed.

        Returns:
            The gradients with respect to x, edge_attr, W, c, a and b.
        """
        x, edge_attr, dtype = self.x, self.edge_attr, self.x.dtype
        unscaled, by_scale, by_shift = norm_backward(by_normed, self.centered, self.p, self.rstd)
        by_ends = graph.edges_of_end.sum(unscaled).mul_(scale)
        by_ends = by_ends.view(len(x), 2 * len(scale)).to(dtype)
        unscaled, column = unscaled.to(dtype), scale.unsqueeze(1).to(dtype)
        by_weight = join_pair(by_ends.t() @ x, (edge_attr.t() @ unscaled).t() * column)
        by_edge = unscaled @ (self.of_edge * column) if edge_needs_grad else None
        return (
            by_ends @ self.of_ends,
            by_edge,
            by_weight,
            torch.zeros_like(by_shift),
            by_scale,
            by_shift,
        )


def linear_pairs(
    x: Tensor,
    edge_attr: Tensor,
    weight: Tensor,
    p: Tensor,
    graph: GraphBatch,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Pairs, Tensor, Tensor, Tensor]:
    """Compute W [x_i, x_j, e_ij] minus its mean.

    Args:
        x: [n_atoms, hidden].
        edge_attr: [n_edges, edge_dim].
        weight: W [size, 2 hidden + edge_dim].
        p: Weights of the edges in the statistics [n_edges].
        graph: The edges.
        eps: Added to the variance.
        dtype: Type of the result.

    Returns:
        The result; its mean and variance [size]; an array [n_edges, size] that may be overwritten.
    """
    of_ends, of_edge = split_pair(weight, x.shape[1])
    of_atoms = F.linear(x, of_ends).view(2 * len(x), len(weight))
    z = graph.ends_of_edge.sum(of_atoms).addmm_(edge_attr, of_edge.t()).to(dtype)
    mean = weighted_mean(p, z)
    centered = z.sub_(mean)
    squared = centered.square()
    var = weighted_mean(p, squared)
    rstd = torch.rsqrt(var + eps)
    return Pairs(x, edge_attr, of_ends, of_edge, p, centered, rstd), mean, var, squared


class GatedSumFunction(torch.autograd.Function):
    r"""Sum of gated messages over the neighbors of each atom.

    .. math:: \sum_j w_{ij} \, \sigma(y_{ij}^f) \, g(y_{ij}^s), \quad [y^f_{ij}, y^s_{ij}] = y_{ij}

    with g the softplus and w the multiplicity of the edge.

    Shapes: see the module; the result is [n_atoms, hidden], and size is 2 hidden.

    - The sign of y^s is flipped: with u = \sigma(-y^s), softplus(y^s) = -log u, so one sigmoid over
      all 2 hidden columns serves both halves. It is faster than `softplus` on a CPU. The minus
      sign is applied to the sum. Where u underflows, -log u is replaced by y^s, which it equals.
    - Derivatives follow from these values: \sigma' = \sigma (1 - \sigma), softplus' = 1 - u.
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
        pairs, mean, var, buffer = linear_pairs(
            x, edge_attr, weight, p, graph, eps, norm_weight.dtype
        )
        sign = torch.ones_like(norm_weight)
        sign[hidden:] = -1
        scale = norm_weight * pairs.rstd * sign

        normed = torch.addcmul(norm_bias * sign, pairs.centered, scale, out=buffer)
        sigmoids = normed.sigmoid()
        gate, closed = sigmoids[:, :hidden], sigmoids[:, hidden:]
        core = closed.clamp(min=torch.finfo(closed.dtype).tiny).log_()
        core = torch.minimum(core, normed[:, hidden:], out=core)
        message = core.mul_(gate)
        mean = mean + bias
        ctx.graph = graph
        ctx.save_for_backward(sigmoids, message, sign, scale, *pairs)
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
        sigmoids, message, sign, scale, *saved = ctx.saved_tensors
        hidden = grad.shape[1]
        gate, closed = sigmoids[:, :hidden], sigmoids[:, hidden:]
        by_message = ctx.graph.center_of_edge.sum(-grad)
        by_normed = torch.empty_like(sigmoids)
        by_gate = torch.mul(by_message, message, out=by_normed[:, :hidden])
        by_gate.addcmul_(by_gate, gate, value=-1)
        by_core = by_message.mul_(gate)
        torch.addcmul(by_core, by_core, closed, value=-1, out=by_normed[:, hidden:])

        *gradients, by_scale, by_shift = Pairs(*saved).backward(
            by_normed, scale, ctx.graph, ctx.needs_input_grad[1]
        )
        return *gradients, by_scale * sign, by_shift * sign, None, None, None
