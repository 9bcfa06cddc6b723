r"""Contributions of sites, and importances of edges, to the predictions of a network.

A pooling by mean or sum makes the crystal vector linear in the site vectors, :math:`c = \sum_i w_i
x_i` with w = 1/n or 1. What remains between them and the prediction is the head. Its change from a
reference to the prediction is divided among its inputs by integrated gradients (Sundararajan, Taly
& Yan, ICML 2017), along the straight path from the reference z' to the input z = [c, u]:

.. math:: f(z) - f(z') = \sum_k (z_k - z'_k) \, \bar g_k, \quad
          \bar g = \int_0^1 \nabla f(z' + t (z - z')) \, dt

so that site i contributes :math:`w_i x_i \cdot \bar g`. Of a linear head the gradient is constant,
and the contributions are the terms of its sum. The reference is the crystal vector 0, a crystal
whose sites have no features, with the global features u of the mean of the training rows: the
checkpoint defines it, and it is the same for all crystals. A mean over the sites of a crystal would
make all contributions add up to 0.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.errors import UserError
from csgcnn.nn.convolutions import AttentionConvolution
from csgcnn.nn.layers import Block
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.nn.pooling import MeanPooling, SumPooling

# Gauss-Legendre nodes in each interval of a path.
N_NODES = 8
# Error of the sum of contributions over an interval, relative to prediction minus reference.
TOLERANCE = 1e-6
SMALLEST_WIDTH = 1e-5


class Contributions(NamedTuple):
    """Contributions to what is trained: reference + sum of all sites + crystal = prediction.

    Attributes:
        sites: Of each site that a node stands for [n_atoms, n_outputs].
        crystal: Of the global features and inputs at the head [n_graphs, n_outputs]; None without.
        reference: Prediction of the reference [n_graphs, n_outputs].
    """

    sites: Tensor
    crystal: Tensor | None
    reference: Tensor


class EdgeWeights(NamedTuple):
    """What says how much an edge matters.

    Attributes:
        importance: Edge features times the gradient of the prediction [n_edges, n_outputs].
        attention: Attention weights of each block, the mean of its heads [n_edges, n_blocks]; None
            without attention.
    """

    importance: Tensor
    attention: Tensor | None


def check_explainable(network: CrystalGraphNetwork) -> None:
    """Check that predictions of a network are a function of a sum over sites.

    Raises:
        UserError: They are not; the message says what to do.
    """
    if head := network.kernel_head:
        raise UserError(
            f"head={head.option} predicts from distances to training crystals, not from a sum over "
            "sites; train with head=mlp to explain predictions"
        )
    if type(network.pooling) not in (MeanPooling, SumPooling):
        name = type(network.pooling).__name__.removesuffix("Pooling").lower()
        raise UserError(
            f"pooling={name} is not a sum over sites, whose contributions could be added; train "
            "with pooling=mean or pooling=sum to explain predictions"
        )


@torch.no_grad()
def contributions(network: CrystalGraphNetwork, graph: GraphBatch) -> Contributions:
    """Divide predictions, on the scale that is trained, among the sites and the global features.

    Args:
        network: A network that `check_explainable` accepts, in evaluation mode.
        graph: The crystals.
    """
    sites = network.atom_features(graph)[-1].double()
    size = sites.shape[1]
    end = network.pooling(sites, graph)
    start = torch.zeros_like(end)
    for features, of_crystal in _crystal_features(network, graph):
        end = torch.cat([end, of_crystal.double()], dim=1)
        # what the mean of the training rows is mapped to
        mean = torch.zeros_like(of_crystal) if features is None else features.bias
        start = torch.cat([start, mean.double().expand(len(end), -1)], dim=1)
    predict = nn.Sequential(deepcopy(network.head), deepcopy(network.scaler)).double()
    gradient = mean_gradient(predict, start, end)
    found = torch.einsum("nk,onk->no", sites, gradient[:, graph.graph_index, :size])
    if isinstance(network.pooling, MeanPooling):
        found = found / graph.n_sites[graph.graph_index].unsqueeze(1)
    reference = predict(start)
    if network.reference is not None:
        reference = reference + network.reference(graph).to(reference)
    step = (end - start)[:, size:]
    crystal = torch.einsum("nk,onk->no", step, gradient[:, :, size:]) if step.shape[1] else None
    return Contributions(found, crystal, reference)


def _crystal_features(
    network: CrystalGraphNetwork, graph: GraphBatch
) -> Iterator[tuple[nn.Linear | None, Tensor]]:
    """Yield the linear map of standardized numbers and the vector of what enters at the head."""
    if network.global_features is not None:
        yield network.global_features.linear, network.global_features(graph.global_features)
    if network.head_inputs is not None:
        yield network.head_inputs.linear, network.head_inputs(graph)


def mean_gradient(predict: Callable[[Tensor], Tensor], start: Tensor, end: Tensor) -> Tensor:
    """Return the mean gradient of a function along straight paths.

    Gauss-Legendre quadrature on intervals, which are halved until gradient times step is the
    difference of the function: one interval for smooth activations, more around the kinks of ReLU.

    Args:
        predict: Maps inputs [n_rows, size] to outputs [n_rows, n_outputs], row by row.
        start: Where the paths begin [n_graphs, size], float64.
        end: Where they end, likewise.

    Returns:
        Mean gradients [n_outputs, n_graphs, size].
    """
    nodes, weights = np.polynomial.legendre.leggauss(N_NODES)
    node, weight = (torch.from_numpy(x / 2).to(start) for x in (nodes + 1, weights))
    step = end - start
    change = predict(end) - predict(start)
    allowed = TOLERANCE * (change.abs() + 0.01 * change.abs().max())
    total = torch.zeros(change.shape[1], *start.shape).to(start)
    # intervals of paths: row, begin, width
    row, begin, width = torch.arange(len(start)).to(start.device), start.new_zeros(len(start)), 1.0
    while len(row):
        position = (begin.unsqueeze(1) + width * node).unsqueeze(2)
        points = start[row].unsqueeze(1) + position * step[row].unsqueeze(1)
        gradient = width * _gradient(predict, points, weight)
        ends = (start[row] + t.unsqueeze(1) * step[row] for t in (begin + width, begin))
        last, first = map(predict, ends)
        error = (gradient * step[row]).sum(2).T - (last - first)
        is_met = (error.abs() <= allowed[row]).all(1) | (width < SMALLEST_WIDTH)
        total.index_add_(1, row[is_met], gradient[:, is_met])
        width /= 2
        row, begin = row[~is_met].repeat(2), begin[~is_met]
        begin = torch.cat([begin, begin + width])
    return total


def _gradient(predict: Callable[[Tensor], Tensor], points: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of gradients at points [n, n_nodes, size]: [n_outputs, n, size]."""
    with torch.enable_grad():
        flat = points.flatten(0, 1).requires_grad_()
        sums = predict(flat).sum(0)
        found = [torch.autograd.grad(one, flat, retain_graph=True)[0] for one in sums]
    return torch.stack([torch.einsum("p,npk->nk", weight, g.view_as(points)) for g in found])


def edge_weights(network: CrystalGraphNetwork, graph: GraphBatch) -> EdgeWeights:
    """Return how much each edge matters to the prediction of its crystal.

    The importance of an edge is the sum over its features e of e times the gradient of the
    prediction, on the scale that is trained (gradient times input, Shrikumar et al., 2016). It
    estimates, to first order, how far the prediction falls if the features of the edge vanish.

    Args:
        network: The network, in evaluation mode.
        graph: The crystals; equal edges that are merged have the importance of one of them.
    """
    features: list[Tensor] = []
    inputs: list[Any] = []

    def record_features(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        features.append(output.detach().requires_grad_())
        return features[0]

    convolutions = [cast(nn.Module, cast(Block, block).convolution) for block in network.blocks]
    calculator = cast(nn.Module, network.edge_calculator)
    with ExitStack() as hooks, torch.enable_grad():
        hooks.enter_context(calculator.register_forward_hook(record_features))
        for convolution in convolutions:
            hook = convolution.register_forward_pre_hook(lambda _, given: inputs.append(given))
            hooks.enter_context(hook)
        sums = network(graph).sum(0)
        gradients = [torch.autograd.grad(one, features[0], retain_graph=True)[0] for one in sums]
    total = torch.stack([(features[0] * gradient).sum(1) for gradient in gradients], dim=1).detach()
    importance = total / graph.edge_count.unsqueeze(1)
    with torch.no_grad():
        attention = [
            convolution.attention_weights(*given).mean(1)
            for convolution, given in zip(convolutions, inputs, strict=True)
            if isinstance(convolution, AttentionConvolution)
        ]
    is_whole = len(attention) == len(convolutions)
    return EdgeWeights(importance, torch.stack(attention, dim=1) if is_whole else None)
