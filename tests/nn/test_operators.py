"""The attention and isomorphism convolutions against their formulas, edge by edge, and what all three must see."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pymatgen.core import Structure
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.convolutions import AttentionConvolution, GatedConvolution, IsomorphismConvolution
from csgcnn.nn.interfaces import LayerConfig

HIDDEN, EDGE_DIM = 8, 5
CONVOLUTIONS = [GatedConvolution, AttentionConvolution, IsomorphismConvolution]
ToDouble = Callable[[GraphBatch], GraphBatch]


def made(convolution: Any, norm: str = "batch", message_layers: int = 1) -> Any:
    """A convolution in float64 whose weights and statistics are away from their start."""
    torch.manual_seed(0)
    layer = convolution(LayerConfig(HIDDEN, EDGE_DIM, norm, "silu", message_layers)).double()
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.add_(0.3 * torch.rand_like(tensor))
    return layer


def inputs(graph: GraphBatch) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return (
        torch.randn(len(graph.atomic_number), HIDDEN, dtype=torch.float64),
        torch.rand(len(graph.distance), EDGE_DIM, dtype=torch.float64),
    )


def norm_by_hand(z: Tensor, count: Tensor, norm: Any) -> Tensor:
    """PyTorch's batch norm on rows written out as often as they count."""
    repeated = z.repeat_interleave(count.long(), 0)
    running = norm.running_mean.clone(), norm.running_var.clone()
    out = F.batch_norm(
        repeated, *running, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps
    )
    return out[(count.long().cumsum(0) - count.long())]


def deepened(z: Tensor, conv: Any) -> Tensor:
    for linear in (layer for layer in conv.deeper if isinstance(layer, nn.Linear)):
        z = linear.weight @ F.silu(z) + linear.bias
    return z


def attention_by_hand(
    conv: AttentionConvolution, x: Tensor, edge_attr: Tensor, graph: GraphBatch
) -> Tensor:
    z = []
    for (j, i), e in zip(graph.edge_index.T.tolist(), edge_attr, strict=True):
        z.append(deepened(conv.linear.weight @ torch.cat([x[i], x[j], e]) + conv.linear.bias, conv))
    normed = norm_by_hand(torch.stack(z), graph.edge_count, conv.message_norm)
    rows = []
    for i in range(len(x)):
        heads = []
        edges = (graph.edge_index[1] == i).nonzero().flatten().tolist()
        for h in range(conv.heads):
            own = slice(h * HIDDEN // conv.heads, (h + 1) * HIDDEN // conv.heads)
            terms, total = (
                torch.zeros(HIDDEN // conv.heads, dtype=x.dtype),
                torch.zeros((), dtype=x.dtype),
            )
            for k in edges:
                query, value = F.silu(normed[k, :HIDDEN][own]), F.silu(normed[k, HIDDEN:][own])
                weight = graph.edge_multiplicity[k] * torch.exp(conv.attention[h] @ query)
                terms, total = terms + weight * value, total + weight
            heads.append(terms / total)
        rows.append(conv.out.weight @ torch.cat(heads) + conv.out.bias)
    return torch.stack(rows)


def isomorphism_by_hand(
    conv: IsomorphismConvolution, x: Tensor, edge_attr: Tensor, graph: GraphBatch
) -> Tensor:
    weight = torch.cat([conv.of_neighbor.weight, conv.of_edge.weight], dim=1)
    z = []
    for (j, _), e in zip(graph.edge_index.T.tolist(), edge_attr, strict=True):
        z.append(deepened(weight @ torch.cat([x[j], e]) + conv.of_neighbor.bias, conv))
    message = F.silu(norm_by_hand(torch.stack(z), graph.edge_count, conv.message_norm))
    rows = []
    for i in range(len(x)):
        total, n = torch.zeros(HIDDEN, dtype=x.dtype), 0.0
        for k in (graph.edge_index[1] == i).nonzero().flatten().tolist():
            total, n = (
                total + graph.edge_multiplicity[k] * message[k],
                n + graph.edge_multiplicity[k].item(),
            )
        rows.append((1 + conv.epsilon) * x[i] + total / n**0.5)
    up, down = conv.update
    lifted = torch.stack([up.weight @ row + up.bias for row in rows])
    inner = norm_by_hand(lifted, graph.atom_multiplicity, conv.update_norm)
    return torch.stack([down.weight @ F.silu(row) + down.bias for row in inner])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("message_layers", [1, 3])
@pytest.mark.parametrize(
    ("convolution", "by_hand"),
    [(AttentionConvolution, attention_by_hand), (IsomorphismConvolution, isomorphism_by_hand)],
)
def test_it_is_its_formula(
    convolution: Any,
    by_hand: Callable[..., Tensor],
    message_layers: int,
    training: bool,
    structures: list[Any],
    pack: Callable[..., GraphStore],
    double: ToDouble,
) -> None:
    graph = double(pack([structures[i] for i in (0, 3, 5)]).batch(torch.arange(3)))
    assert len(graph.edge_multiplicity.unique()) > 2
    conv = made(convolution, message_layers=message_layers).train(training)
    x, edge_attr = inputs(graph)
    x.requires_grad_(), edge_attr.requires_grad_()
    expected = by_hand(conv, x, edge_attr, graph)
    found = conv(x, edge_attr, graph)
    assert expected.std(0).min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    direction = torch.randn_like(found)
    asked = [x, edge_attr, *conv.parameters()]
    gradients = [torch.autograd.grad((out * direction).sum(), asked) for out in (found, expected)]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_an_atom_sees_its_own_periodic_images(
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
    none = {"edge_index": graph.edge_index[:, :0], "distance": graph.distance[:0]}
    cut = replace(graph, **none, edge_multiplicity=graph.edge_multiplicity[:0])
    assert (found - conv(x, edge_attr[:0], cut)).abs().max() > 0.1

    twin = replace(
        graph, atomic_number=graph.atomic_number.repeat(2), atom_multiplicity=torch.ones(2).double()
    )
    from_twin = torch.stack([torch.ones_like(graph.edge_index[0]), graph.edge_index[1]])
    twin = replace(twin, graph_index=torch.zeros(2, dtype=torch.int64), edge_index=from_twin)
    torch.testing.assert_close(
        conv(x.repeat(2, 1), edge_attr, twin)[:1], found, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_atoms_without_neighbors(
    convolution: Any,
    norm: str,
    training: bool,
    structures: list[Any],
    pack: Callable[..., GraphStore],
) -> None:
    lonely = {
        "lattice": [[20, 0, 0], [0, 20, 0], [0, 0, 20]],
        "species": ["Ar"],
        "frac_coords": [[0, 0, 0]],
    }
    for cells in ([lonely], [lonely, structures[0]]):
        graph = pack(cells).batch(torch.arange(len(cells)))
        assert 0 in graph.degree
        conv = made(convolution, norm).float().train(training)
        x, edge_attr = (tensor.float().requires_grad_() for tensor in inputs(graph))
        out = conv(x, edge_attr, graph)
        out.square().sum().backward()
        assert out.isfinite().all()
        tensors = {"x": x, "edge_attr": edge_attr, **dict(conv.named_parameters())}
        assert all(
            tensor.grad.isfinite().all() for tensor in tensors.values() if tensor.grad is not None
        )
        assert all(buffer.isfinite().all() for buffer in conv.buffers())


def plain_gated(
    conv: GatedConvolution, x: Tensor, edge_attr: Tensor, graph: GraphBatch
) -> tuple[Tensor, Tensor]:
    """The formula of `GatedConvolution` in training for autograd, and the batch-normalized messages."""
    neighbor, center = graph.edge_index
    z = F.linear(
        torch.cat([x[center], x[neighbor], edge_attr], dim=1), conv.linear.weight, conv.linear.bias
    )
    y = norm_by_hand(z, graph.edge_count, conv.message_norm)
    gate, core = y.chunk(2, dim=1)
    message = torch.sigmoid(gate) * F.softplus(core) * graph.edge_multiplicity.unsqueeze(1)
    return torch.zeros_like(x).index_add(0, graph.edge_index[1], message), y


@pytest.fixture(params=[1, 25, 100], ids=lambda scale: f"scale={scale}")
def gated(
    request: pytest.FixtureRequest, structures: list[Any], pack: Callable[..., GraphStore]
) -> tuple[GatedConvolution, GraphBatch, Tensor, Tensor]:
    """A convolution in training whose batch-normalized messages are of the given size."""
    graph = pack(structures[:8]).batch(torch.arange(8))
    conv = made(GatedConvolution).float().train()
    with torch.no_grad():
        conv.message_norm.weight.mul_(request.param)
    x, edge_attr = (tensor.float() for tensor in inputs(graph))
    return conv, graph, x, edge_attr


def largest_difference(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


def test_the_gated_sum_and_its_gradient_are_the_formula(
    gated: tuple[GatedConvolution, GraphBatch, Tensor, Tensor],
) -> None:
    conv, graph, x, edge_attr = gated
    x.requires_grad_(), edge_attr.requires_grad_()
    found = conv(x, edge_attr, graph)
    direction = torch.randn_like(found)
    names = ["x", "edge_attr", *dict(conv.named_parameters())]
    gradients = torch.autograd.grad((found * direction).sum(), [x, edge_attr, *conv.parameters()])
    assert found.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)

    exact = made(GatedConvolution).train()
    with torch.no_grad():
        exact.message_norm.weight.copy_(conv.message_norm.weight)
    y, e = x.detach().double().requires_grad_(), edge_attr.detach().double().requires_grad_()
    expected, normed = plain_gated(exact, y, e, graph)
    assert normed.abs().max() > 2 * conv.message_norm.weight.mean()
    wanted = torch.autograd.grad((expected * direction).sum(), [y, e, *exact.parameters()])
    assert largest_difference(found, expected) < 1e-5
    for name, mine, theirs in zip(names, gradients, wanted, strict=True):
        if name == "linear.bias":  # the norm takes it out: there is none but rounding
            assert mine.abs().max() < 1e-3 * wanted[names.index("linear.weight")].abs().max()
        else:
            assert largest_difference(mine, theirs) < 1e-3, name
