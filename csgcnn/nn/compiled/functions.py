"""The functions of `csgcnn.nn.fused_messages` and `fused_attention` on compiled kernels.

They compute the same but for rounding. The messages before the norm are kept for the backward pass,
not the centered ones, which would be another pass over them.
"""

import os
from typing import Any, NamedTuple

import numba
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from csgcnn import distributed
from csgcnn.data.batch import GraphBatch
from csgcnn.nn.compiled import edges, messages
from csgcnn.nn.fused import pair_backward, split_pair
from csgcnn.nn.fused_messages import fused
from csgcnn.nn.norms import WeightedBatchNorm

# The process whose threads the kernels use.
PROCESS = os.getpid()


class Normed(NamedTuple):
    """Messages z before their norm y = z scale + shift, and their edges."""

    # [n_edges, size]
    z: Tensor
    # [size] each
    scale: Tensor
    shift: Tensor
    # [n_edges]: number of neighbors that each edge stands for
    multiplicity: Tensor
    # [n_atoms + 1]: first edge of each atom
    first: Tensor


class GatedSum:
    """The kernels of CSGCNN, see `csgcnn.nn.fused_messages.GatedSumFunction`."""

    @staticmethod
    def forward(normed: Normed) -> tuple[Tensor, ...]:
        """Return the result [n_atoms, hidden], and what else `backward` is given."""
        return (_run(messages.gated_sum, *normed),)

    @staticmethod
    def backward(
        grad: Tensor, results: tuple[Tensor, ...], normed: Normed, mean: Tensor
    ) -> tuple[Tensor, ...]:
        """Return gradients.

        Args:
            grad: Gradient with respect to the result.
            results: What `forward` returns.
            normed: Its arguments.
            mean: Mean of z [size].

        Returns:
            The gradient with respect to y [n_edges, size]; its sum over the edges, and that of its
            product with z - mean [2, size]; the gradients with respect to the parameters.
        """
        return _run(messages.gated_sum_backward, grad, *normed, mean)


class AttentionSum:
    """The kernels of CSGANN, see `csgcnn.nn.fused_attention.AttentionSumFunction`."""

    @staticmethod
    def forward(normed: Normed, attention: Tensor) -> tuple[Tensor, ...]:
        """Return the result [n_atoms, hidden], and what else `backward` is given.

        Args:
            normed: Queries and values.
            attention: Vectors of the heads [heads, hidden / heads].
        """
        return _run(messages.attention_sum, *normed, attention)

    @staticmethod
    def backward(
        grad: Tensor,
        results: tuple[Tensor, ...],
        normed: Normed,
        mean: Tensor,
        attention: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return gradients as `GatedSum.backward`.

        Args:
            grad: Gradient with respect to the result.
            results: What `forward` returns.
            normed: Queries and values.
            mean: Mean of z [size].
            attention: Vectors of the heads.
        """
        z, scale, shift, _, first = normed
        kernel = messages.attention_sum_backward
        return _run(kernel, grad, *results, z, scale, shift, first, mean, attention)


Kernels = type[GatedSum] | type[AttentionSum]


class _NormedSumFunction(torch.autograd.Function):
    """Called as the functions of `csgcnn.nn.fused_messages`, with the kernels behind the graph."""

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
        kernels: Any,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        z, sums = _linear_pairs(x, edge_attr, weight, graph, p)
        total, mean, square = distributed.sum_over_ranks(sums)
        # A batch without edges has the statistics 0.
        total = total.clamp(min=torch.finfo(x.dtype).tiny)
        mean, square = mean / total, square / total
        var = (square - mean.square()).clamp(min=0).to(x.dtype)
        mean, rstd = mean.to(x.dtype), torch.rsqrt(var + eps)
        scale = norm_weight * rstd
        normed = _normed(z, scale, norm_bias - mean * scale, graph)
        results = kernels.forward(normed, *parameters)
        ctx.graph, ctx.kernels = graph, kernels
        ctx.n_results, ctx.n_normed = len(results), len(normed)
        ctx.save_for_backward(x, edge_attr, weight, p, mean, rstd, *results, *normed, *parameters)
        mean = mean + bias
        ctx.mark_non_differentiable(mean, var)
        return results[0], mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to the arguments of `forward`.

        Args:
            ctx: Tensors that `forward` saved.
            grad: Gradient with respect to the first output.
            _: Gradients with respect to the other outputs, which have none.
        """
        x, edge_attr, weight, p, mean, rstd, *saved = ctx.saved_tensors
        results, saved = tuple(saved[: ctx.n_results]), saved[ctx.n_results :]
        normed, parameters = Normed(*saved[: ctx.n_normed]), saved[ctx.n_normed :]
        by_pairs, sums, *by_parameters = ctx.kernels.backward(
            grad, results, normed, mean, *parameters
        )
        by_shift, by_centered = distributed.sum_over_ranks(sums).to(x.dtype)
        by_row = by_centered * rstd.square()
        arguments = (by_pairs, normed.z, mean, by_shift, by_row, normed.first, p)
        of_center = _run(edges.norm_backward, *arguments)
        of_neighbor = ctx.graph.edges_of_neighbor.sum(by_pairs)
        gradients = pair_backward(
            torch.stack([of_center, of_neighbor], dim=1),
            by_pairs,
            x,
            edge_attr,
            split_pair(weight, x.shape[1]),
            normed.scale,
            ctx.needs_input_grad[1],
        )
        of_rank = sums.to(x.dtype)
        by_norm = (torch.zeros_like(mean), of_rank[1] * rstd, of_rank[0])
        return *gradients, *by_norm, None, None, None, None, *by_parameters


def normed_sum(
    kernels: Kernels,
    linear: nn.Linear,
    norm: WeightedBatchNorm,
    x: Tensor,
    edge_attr: Tensor,
    graph: GraphBatch,
    *parameters: Tensor,
) -> Tensor:
    """Sum messages over the neighbors of each atom.

    Args:
        kernels: Kernels of the messages.
        linear: The linear map of [x_i, x_j, e_ij].
        norm: The norm of its result.
        x: [n_atoms, hidden].
        edge_attr: [n_edges, edge_dim].
        graph: The edges.
        parameters: Further arguments of the kernels.

    Returns:
        The sums [n_atoms, hidden].
    """
    if norm.training:
        function = _NormedSumFunction
        return fused(function, linear, norm, x, edge_attr, graph, kernels, *parameters)
    z, _ = _linear_pairs(x, edge_attr, linear.weight, graph, graph.edge_multiplicity)
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias + (linear.bias - norm.running_mean) * scale
    return kernels.forward(_normed(z, scale, shift, graph), *parameters)[0]


def start_threads() -> None:
    """Start the threads of the kernels: those of torch, whose OpenMP library numba finds loaded.

    Raises:
        ValueError: numba has no layer for them on this machine.
    """
    config: Any = numba.config
    threads, layer = torch.get_num_threads(), config.THREADING_LAYER
    config.THREADING_LAYER = "omp"
    try:
        _run(edges.number_blocks)
    finally:
        config.THREADING_LAYER = layer  # for other code that uses numba
        torch.set_num_threads(threads)  # numba sets the number of cores


def _linear_pairs(
    x: Tensor, edge_attr: Tensor, weight: Tensor, graph: GraphBatch, p: Tensor
) -> tuple[Tensor, Tensor]:
    """Return W [x_i, x_j, e_ij], and weighted sums of 1, it and its square [3, size]."""
    of_ends, of_edge = split_pair(weight, x.shape[1])
    z = edge_attr @ of_edge.t()
    ends = F.linear(x, of_ends).view(2 * len(x), len(weight))
    return z, _run(edges.add_ends, z, ends, graph.edge_index[0], graph.first_edge, p)


def _normed(z: Tensor, scale: Tensor, shift: Tensor, graph: GraphBatch) -> Normed:
    return Normed(z, scale, shift, graph.edge_multiplicity, graph.first_edge)


def _run(kernel: Any, *tensors: Tensor) -> Any:
    """Run a kernel on as many threads as torch uses, with tensors as arguments and results."""
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(min(torch.get_num_threads(), most))
    found = kernel(*(tensor.detach().contiguous().numpy() for tensor in tensors))
    if isinstance(found, tuple):
        return tuple(map(torch.from_numpy, found))
    return torch.from_numpy(found)
