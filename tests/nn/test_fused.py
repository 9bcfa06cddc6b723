"""Closed-form gradients against autograd and against formulas in float64."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.convolutions import AttentionConvolution, GatedConvolution
from csgcnn.nn.fused import BatchNormFunction, join_pair, split_pair
from csgcnn.nn.fused_attention import AttentionSumFunction
from csgcnn.nn.fused_messages import GatedSumFunction
from csgcnn.nn.interfaces import LayerConfig

HIDDEN, EDGE_DIM = 8, 5
CONFIG = LayerConfig(HIDDEN, EDGE_DIM, "batch", "silu", message_layers=1)


def weights(n: int) -> Tensor:
    return torch.softmax(torch.randn(n, dtype=torch.float64), 0)


def test_gradients_of_the_batch_norm_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda *inputs: BatchNormFunction.apply(*inputs, 1e-5)[0], (x, weights(5), weight, bias)
    )


@pytest.mark.parametrize(
    ("function", "shapes"), [(GatedSumFunction, []), (AttentionSumFunction, [(2, 1)])]
)
def test_gradients_of_messages_agree_with_finite_differences(
    function: type[torch.autograd.Function],
    shapes: list[tuple[int, int]],
    structures: list[Any],
    pack: Callable[..., GraphStore],
    double: Callable[[GraphBatch], GraphBatch],
) -> None:
    torch.manual_seed(0)
    graph = double(pack(structures[:1], max_neighbors=4).batch(torch.arange(1)))
    of_pairs = [(len(graph.atomic_number), 2), (len(graph.distance), 3), (4, 7), *[(4,)] * 3]
    inputs = [
        torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in of_pairs + shapes
    ]
    p, n = weights(len(graph.distance)), len(of_pairs)
    assert torch.autograd.gradcheck(
        lambda *given: function.apply(*given[:n], 1e-5, p, graph, *given[n:])[0], inputs
    )


def autograd_sum(
    conv: GatedConvolution, x: Tensor, edge_attr: Tensor, graph: GraphBatch
) -> tuple[Tensor, Tensor]:
    """Return the formula of `GatedConvolution` in training, and the batch-normalized messages."""
    neighbor, center = graph.edge_index
    pairs = torch.cat([x[center], x[neighbor], edge_attr], dim=1)
    z = F.linear(pairs, conv.linear.weight, conv.linear.bias)
    count, norm = graph.edge_count.long(), conv.message_norm
    y = F.batch_norm(
        z.repeat_interleave(count, 0),
        *(norm.running_mean.clone(), norm.running_var.clone(), norm.weight, norm.bias),
        training=True,
        eps=norm.eps,
    )[count.cumsum(0) - count]
    gate, core = y.chunk(2, dim=1)
    message = torch.sigmoid(gate) * F.softplus(core) * graph.edge_multiplicity.unsqueeze(1)
    return torch.zeros_like(x).index_add(0, center, message), y


def convolution(norm_scale: float) -> GatedConvolution:
    torch.manual_seed(0)
    conv = GatedConvolution(CONFIG).double().train()
    with torch.no_grad():
        for tensor in (*conv.parameters(), *conv.buffers()):
            tensor.add_(0.3 * torch.rand_like(tensor))
        conv.message_norm.weight.mul_(norm_scale)
    return conv


def largest_difference(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("norm_scale", [1, 25, 100])
def test_the_gated_sum_in_float32_agrees_with_autograd_in_float64(
    norm_scale: float, structures: list[Any], pack: Callable[..., GraphStore]
) -> None:
    """Large norm weights give messages at which the sigmoid of float32 underflows."""
    graph = pack(structures[:8]).batch(torch.arange(8))
    exact, conv = convolution(norm_scale), convolution(norm_scale).float()
    x = torch.randn(len(graph.atomic_number), HIDDEN, requires_grad=True)
    edge_attr = torch.rand(len(graph.distance), EDGE_DIM, requires_grad=True)
    found = conv(x, edge_attr, graph)
    direction = torch.randn_like(found)
    gradients = torch.autograd.grad((found * direction).sum(), [x, edge_attr, *conv.parameters()])
    assert found.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)

    inputs = [tensor.detach().double().requires_grad_() for tensor in (x, edge_attr)]
    expected, normed = autograd_sum(exact, *inputs, graph)
    assert normed.abs().max() > 2 * exact.message_norm.weight.mean()
    wanted = torch.autograd.grad((expected * direction).sum(), [*inputs, *exact.parameters()])
    assert largest_difference(found, expected) < 1e-5
    names = ["x", "edge_attr", *dict(conv.named_parameters())]
    of_weight = wanted[names.index("linear.weight")]
    for name, mine, theirs in zip(names, gradients, wanted, strict=True):
        if name == "linear.bias":
            # The norm removes the bias, so that its gradient is rounding only.
            assert mine.abs().max() < 1e-3 * of_weight.abs().max()
        else:
            assert largest_difference(mine, theirs) < 1e-3, name


@pytest.mark.parametrize("norm_scale", [1, 25])
def test_the_fused_attention_agrees_with_the_layers_it_is_made_of(
    norm_scale: float, structures: list[Any], pack: Callable[..., GraphStore]
) -> None:
    """In evaluation, the convolution computes layer by layer; its norm is given the statistics."""
    graph = pack(structures[:8]).batch(torch.arange(8))
    torch.manual_seed(0)
    conv = AttentionConvolution(CONFIG).train()
    with torch.no_grad():
        conv.message_norm.weight.mul_(norm_scale)
        conv.message_norm.bias.add_(torch.rand(2 * HIDDEN))
    x = torch.randn(len(graph.atomic_number), HIDDEN, requires_grad=True)
    edge_attr = torch.rand(len(graph.distance), EDGE_DIM, requires_grad=True)
    conv.message_norm.momentum = 1.0
    found = conv(x, edge_attr, graph)
    direction = torch.randn_like(found)
    gradients = torch.autograd.grad((found * direction).sum(), [conv.attention, conv.out.weight])

    total = conv.message_norm.total(graph.edge_count)
    conv.message_norm.running_var.mul_((total - 1) / total)  # the biased variance
    expected = conv.eval()(x, edge_attr, graph)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    wanted = torch.autograd.grad((expected * direction).sum(), [conv.attention, conv.out.weight])
    torch.testing.assert_close(gradients, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("convolution_type", [AttentionConvolution, GatedConvolution])
def test_a_norm_in_evaluation_keeps_its_statistics_and_passes_gradients(
    convolution_type: type[torch.nn.Module], structures: list[Any], pack: Callable[..., GraphStore]
) -> None:
    """Fine-tuning with frozen statistics."""
    graph = pack(structures[:8]).batch(torch.arange(8))
    torch.manual_seed(0)
    conv = convolution_type(CONFIG).train()
    x = torch.randn(len(graph.atomic_number), HIDDEN, requires_grad=True)
    edge_attr = torch.rand(len(graph.distance), EDGE_DIM)
    before = conv.message_norm.eval().running_mean.clone()
    found = conv(x, edge_attr, graph)
    found.square().sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert torch.equal(conv.message_norm.running_mean, before)
    assert torch.equal(found, conv.eval()(x, edge_attr, graph))


def test_edges_that_count_zero_change_no_attention(
    structures: list[Any], pack: Callable[..., GraphStore]
) -> None:
    """Padding of recorded steps, and atoms without neighbors."""
    graph = pack(structures[:4]).batch(torch.arange(4))
    first = graph.edge_index[1] == 0
    kept = (~first).nonzero().squeeze(1)
    padded = replace(graph, edge_multiplicity=torch.where(first, 0, graph.edge_multiplicity))
    without = replace(
        graph,
        edge_index=graph.edge_index[:, kept],
        distance=graph.distance[kept],
        edge_multiplicity=graph.edge_multiplicity[kept],
    )
    torch.manual_seed(0)
    conv = AttentionConvolution(CONFIG).train()
    x = torch.randn(len(graph.atomic_number), HIDDEN)
    edge_attr = torch.rand(len(graph.distance), EDGE_DIM)
    found, expected = conv(x, edge_attr, padded), conv(x, edge_attr[kept], without)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected)


def test_join_pair_is_the_inverse_of_split_pair() -> None:
    weight = torch.arange(4 * 13.0).view(4, 13)
    of_ends, of_edge = split_pair(weight, hidden=5)
    assert of_ends.shape == (8, 5)
    assert torch.equal(of_ends[:4], weight[:, :5])
    assert torch.equal(of_ends[4:], weight[:, 5:10])
    assert torch.equal(join_pair(of_ends, of_edge), weight)


@pytest.mark.parametrize("convolution_type", [AttentionConvolution, GatedConvolution])
def test_a_rank_without_crystals_has_zero_gradients(
    convolution_type: type[torch.nn.Module], structures: list[Any], pack: Callable[..., GraphStore]
) -> None:
    graph = pack(structures[:1]).batch(torch.arange(0))
    conv = convolution_type(CONFIG).train()
    x = torch.zeros(0, HIDDEN, requires_grad=True)
    found = conv(x, torch.zeros(0, EDGE_DIM), graph)
    assert found.shape == (0, HIDDEN)
    found.sum().backward()
    for name, parameter in conv.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
