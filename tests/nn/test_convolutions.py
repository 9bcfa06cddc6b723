"""The convolutions against their formulas, computed edge by edge."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pymatgen.core import Structure
from torch import Tensor, nn

from csgcnn.config.compose import compose
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.build import build_network
from csgcnn.nn.convolutions import (
    AttentionConvolution,
    GatedConvolution,
    IsomorphismConvolution,
    SumConvolution,
)
from csgcnn.nn.interfaces import LayerConfig
from csgcnn.nn.layers import LinearBeforeNorm

HIDDEN, EDGE_DIM = 8, 5
CONVOLUTIONS = [GatedConvolution, AttentionConvolution, IsomorphismConvolution, SumConvolution]
ToDouble = Callable[[GraphBatch], GraphBatch]
Pack = Callable[..., GraphStore]


def made(convolution: Any, norm: str = "batch", message_layers: int = 1, **arguments: Any) -> Any:
    """Build a convolution in float64 with shifted weights and statistics."""
    torch.manual_seed(0)
    config = LayerConfig(HIDDEN, EDGE_DIM, norm, "silu", message_layers)
    layer = convolution(config, **arguments).double()
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.add_(0.3 * torch.rand_like(tensor))
    return layer


def inputs(graph: GraphBatch) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(len(graph.atomic_number), HIDDEN, dtype=torch.float64)
    return x, torch.rand(len(graph.distance), EDGE_DIM, dtype=torch.float64)


def normalized(z: Tensor, count: Tensor, norm: Any) -> Tensor:
    """Apply PyTorch's batch norm to rows repeated as often as they count."""
    running = norm.running_mean.clone(), norm.running_var.clone()
    affine = norm.weight, norm.bias, norm.training, norm.momentum, norm.eps
    out = F.batch_norm(z.repeat_interleave(count.long(), 0), *running, *affine)
    return out[count.long().cumsum(0) - count.long()]


def deepened(z: Tensor, conv: Any) -> Tensor:
    for linear in (layer for layer in conv.deeper if isinstance(layer, nn.Linear)):
        z = linear.weight @ F.silu(z) + linear.bias
    return z


def edges_of(atom: int, graph: GraphBatch) -> list[int]:
    return (graph.edge_index[1] == atom).nonzero().flatten().tolist()


def pair_messages(conv: Any, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
    """Return N(MLP([x_i, x_j, e_ij])) for every edge."""
    z = [
        deepened(conv.linear.weight @ torch.cat([x[i], x[j], e]) + conv.linear.bias, conv)
        for (j, i), e in zip(graph.edge_index.T.tolist(), edge_attr, strict=True)
    ]
    return normalized(torch.stack(z), graph.edge_count, conv.message_norm)


def gated_formula(
    conv: GatedConvolution, x: Tensor, edge_attr: Tensor, graph: GraphBatch
) -> Tensor:
    gate, core = pair_messages(conv, x, edge_attr, graph).chunk(2, dim=1)
    message = torch.sigmoid(gate) * F.softplus(core) * graph.edge_multiplicity.unsqueeze(1)
    return torch.stack([message[edges_of(i, graph)].sum(0) for i in range(len(x))])


def attention_formula(
    conv: AttentionConvolution, x: Tensor, edge_attr: Tensor, graph: GraphBatch
) -> Tensor:
    queries, values = F.silu(pair_messages(conv, x, edge_attr, graph)).chunk(2, dim=1)
    size, rows = HIDDEN // conv.heads, []
    for i in range(len(x)):
        edges, heads = edges_of(i, graph), []
        for h in range(conv.heads):
            own = slice(h * size, (h + 1) * size)
            scores = torch.exp(queries[edges, own] @ conv.attention[h])
            weight = graph.edge_multiplicity[edges] * scores
            heads.append(weight @ values[edges, own] / weight.sum())
        rows.append(conv.out.weight @ torch.cat(heads) + conv.out.bias)
    return torch.stack(rows)


def isomorphism_formula(
    conv: IsomorphismConvolution, x: Tensor, edge_attr: Tensor, graph: GraphBatch
) -> Tensor:
    weight = torch.cat([conv.of_neighbor.weight, conv.of_edge.weight], dim=1)
    z = [
        deepened(weight @ torch.cat([x[j], e]) + conv.of_neighbor.bias, conv)
        for (j, _), e in zip(graph.edge_index.T.tolist(), edge_attr, strict=True)
    ]
    message = F.silu(normalized(torch.stack(z), graph.edge_count, conv.message_norm))
    rows = []
    for i in range(len(x)):
        edges = edges_of(i, graph)
        count = graph.edge_multiplicity[edges]
        rows.append((1 + conv.epsilon) * x[i] + count @ message[edges] / count.sum().sqrt())
    up, down = conv.update
    lifted = torch.stack([up.weight @ row + up.bias for row in rows])
    inner = normalized(lifted, graph.atom_multiplicity, conv.update_norm)
    return torch.stack([down.weight @ F.silu(row) + down.bias for row in inner])


def sum_formula(conv: SumConvolution, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
    message = F.silu(pair_messages(conv, x, edge_attr, graph))
    message = message * graph.edge_multiplicity.unsqueeze(1)
    total = torch.stack([message[edges_of(i, graph)].sum(0) for i in range(len(x))])
    return total @ conv.out.weight.T + conv.out.bias


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("message_layers", [1, 3])
@pytest.mark.parametrize(
    ("convolution", "arguments", "formula"),
    [
        (GatedConvolution, {}, gated_formula),
        (AttentionConvolution, {}, attention_formula),
        (AttentionConvolution, {"heads": 2}, attention_formula),
        (IsomorphismConvolution, {}, isomorphism_formula),
        (SumConvolution, {}, sum_formula),
    ],
)
def test_a_convolution_and_its_gradients_follow_the_formula(
    convolution: Any,
    arguments: dict[str, Any],
    formula: Callable[..., Tensor],
    message_layers: int,
    training: bool,
    structures: list[Any],
    pack: Callable[..., GraphStore],
    double: ToDouble,
) -> None:
    graph = double(pack(structures[:4]).batch(torch.arange(4)))
    conv = made(convolution, message_layers=message_layers, **arguments).train(training)
    x, edge_attr = inputs(graph)
    x.requires_grad_(), edge_attr.requires_grad_()
    expected = formula(conv, x, edge_attr, graph)
    found = conv(x, edge_attr, graph)
    assert expected.std(0).min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    direction = torch.randn_like(found)
    variables = [x, edge_attr, *conv.parameters()]
    gradients = [
        torch.autograd.grad((out * direction).sum(), variables) for out in (found, expected)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_an_atom_is_a_neighbor_of_itself_through_its_periodic_images(
    convolution: Any,
    pack: Callable[..., GraphStore],
    ideal_structures: dict[str, Structure],
    double: ToDouble,
) -> None:
    cubic = ideal_structures["simple_cubic"]
    cell = {"lattice": cubic.lattice.matrix.tolist(), "species": ["Po"], "frac_coords": [[0, 0, 0]]}
    graph = double(pack([cell]).batch(torch.arange(1)))
    assert (graph.edge_index == 0).all()
    conv = made(convolution).eval()
    x, edge_attr = inputs(graph)
    found = conv(x, edge_attr, graph)
    without_edges = replace(
        graph,
        edge_index=graph.edge_index[:, :0],
        distance=graph.distance[:0],
        edge_multiplicity=graph.edge_multiplicity[:0],
    )
    assert (found - conv(x, edge_attr[:0], without_edges)).abs().max() > 0.1

    # A second, equal atom as the only neighbor gives the same update.
    twin = replace(
        graph,
        atomic_number=graph.atomic_number.repeat(2),
        atom_multiplicity=torch.ones(2).double(),
        graph_index=torch.zeros(2, dtype=torch.int64),
        edge_index=torch.stack([torch.ones_like(graph.edge_index[0]), graph.edge_index[1]]),
    )
    from_twin = conv(x.repeat(2, 1), edge_attr, twin)[:1]
    torch.testing.assert_close(from_twin, found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_atoms_without_neighbors_give_finite_updates_and_gradients(
    convolution: Any,
    norm: str,
    training: bool,
    structures: list[Any],
    pack: Callable[..., GraphStore],
) -> None:
    lone = {"lattice": (20 * np.eye(3)).tolist(), "species": ["Ar"], "frac_coords": [[0, 0, 0]]}
    for cells in ([lone], [lone, structures[0]]):
        graph = pack(cells).batch(torch.arange(len(cells)))
        assert 0 in graph.degree
        conv = made(convolution, norm).float().train(training)
        x, edge_attr = (tensor.float().requires_grad_() for tensor in inputs(graph))
        out = conv(x, edge_attr, graph)
        out.square().sum().backward()
        gradients = [tensor.grad for tensor in (x, edge_attr, *conv.parameters())]
        assert out.isfinite().all()
        assert all(grad.isfinite().all() for grad in gradients if grad is not None)
        assert all(buffer.isfinite().all() for buffer in conv.buffers())


def test_the_number_of_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="hidden=8 cannot be divided among heads=3"):
        made(AttentionConvolution, heads=3)


@pytest.mark.parametrize("residual", ["pre", "post", "none"])
@pytest.mark.parametrize("message_layers", [1, 2])
@pytest.mark.parametrize("model", ["csgcnn", "csgann", "csginn"])
def test_a_bias_that_a_batch_norm_removes_has_no_gradient(
    model: str,
    message_layers: int,
    residual: str,
    structures: list[Any],
    pack: Pack,
    double: ToDouble,
) -> None:
    """A rounding error would move it, by other steps for another number of processes."""
    overrides = [
        f"model={model}",
        f"model.message_layers={message_layers}",
        f"model.residual={residual}",
        *("model.hidden=16", "model.n_convolutions=2", "edge_calculator=rbf"),
        *("edge_calculator.learnable=true", "graph.global_features=none"),
    ]
    torch.manual_seed(0)
    network = build_network(compose("train", overrides), n_outputs=[1])
    batch = pack(structures[:8]).batch(torch.arange(8))
    exact = deepcopy(network).double()
    for made, graph in ((network, batch), (exact, double(batch))):
        made.standardized(graph).square().sum().backward()
    gradients = {name: weight.grad for name, weight in exact.named_parameters()}
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    # Zero in exact arithmetic; weights of the norms' other inputs are far larger.
    removed = [
        name
        for name, gradient in gradients.items()
        if name.endswith("bias") and gradient.abs().max().item() < 1e-11 * largest
    ]
    assert len(removed) >= 3
    found = dict(network.named_parameters())
    for name in removed:
        gradient = found[name].grad
        assert gradient is not None
        assert not gradient.any(), name


def test_other_biases_are_trained() -> None:
    layer = LinearBeforeNorm(3, 4, "batch")
    x = torch.randn(5, 3)
    layer(x).sum().backward()
    assert layer.bias.grad is not None
    assert not layer.bias.grad.any()
    for other in (layer.eval(), LinearBeforeNorm(3, 4, "layer"), LinearBeforeNorm(3, 4, "none")):
        other.bias.grad = None
        other(x).sum().backward()
        assert (other.bias.grad == 5).all()
