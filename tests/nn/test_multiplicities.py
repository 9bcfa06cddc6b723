"""One row that counts n times is n equal rows: every part of the network, to rounding in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.convolutions import AttentionConvolution, GatedConvolution, IsomorphismConvolution
from csgcnn.nn.interfaces import LayerConfig
from csgcnn.nn.layers import Block, EdgeUpdate, weighted_softmax

HIDDEN, EDGE_DIM = 8, 5


class Body(nn.Module):
    """Two blocks with an update of the edges between them."""

    def __init__(self, convolution: Any, norm: str, residual: str, message_layers: int) -> None:
        super().__init__()
        config = LayerConfig(HIDDEN, EDGE_DIM, norm, "silu", message_layers)
        self.of_distance = nn.Linear(1, EDGE_DIM)
        self.blocks = nn.ModuleList(
            Block(convolution(config), config, dropout=0.0, residual=residual) for _ in range(2)
        )
        self.edge_update = EdgeUpdate(config)

    def forward(self, x: Tensor, graph: GraphBatch) -> Tensor:
        edge_attr = torch.tanh(self.of_distance(graph.distance.unsqueeze(1)))
        x = self.blocks[0](x, edge_attr, graph)
        return self.blocks[1](x, self.edge_update(x, edge_attr, graph), graph)


@pytest.fixture
def graph(
    structures: list[Any],
    pack: Callable[..., GraphStore],
    double: Callable[[GraphBatch], GraphBatch],
) -> GraphBatch:
    batch = double(pack(structures[:10]).batch(torch.arange(10)))
    assert batch.atom_multiplicity.max() > 3
    assert batch.edge_multiplicity.max() > 3
    return batch


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("message_layers", [1, 3])
@pytest.mark.parametrize("residual", ["post", "pre", "none"])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize(
    "convolution", [GatedConvolution, AttentionConvolution, IsomorphismConvolution]
)
def test_compressed_is_full(
    convolution: Any,
    norm: str,
    residual: str,
    message_layers: int,
    training: bool,
    graph: GraphBatch,
    expanded: Callable[[GraphBatch], tuple[GraphBatch, Tensor]],
) -> None:
    torch.manual_seed(0)
    body = Body(convolution, norm, residual, message_layers).double().train(training)
    with torch.no_grad():
        for tensor in (*body.parameters(), *body.buffers()):
            tensor.add_(0.1 * torch.rand_like(tensor))
    start = {name: buffer.clone() for name, buffer in body.named_buffers()}
    x = torch.randn(len(graph.atomic_number), HIDDEN, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(x)
    full, node = expanded(graph)
    assert len(full.distance) > 2 * len(graph.distance)
    assert full.degree.equal(graph.degree[node])

    outs, gradients, statistics = [], [], []
    for crystals, rows in ((graph, torch.arange(len(x))), (full, node)):
        body.load_state_dict(start, strict=False)
        out = body(x[rows], crystals)
        loss = (out * direction[rows] * crystals.atom_multiplicity.unsqueeze(1)).sum()
        gradients.append(torch.autograd.grad(loss, [x, *body.parameters()]))
        outs.append(out if rows is node else out[node])
        statistics.append({name: buffer.clone() for name, buffer in body.named_buffers()})
    torch.testing.assert_close(*outs, rtol=1e-9, atol=1e-9)
    largest = max(gradient.abs().max().item() for gradient in gradients[1])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10 * largest)
    for name, expected in statistics[1].items():
        torch.testing.assert_close(statistics[0][name], expected, rtol=1e-9, atol=1e-9)
        assert training == (not expected.equal(start[name])), name


@pytest.mark.parametrize("size", [1.0, 1e4], ids=["small logits", "large logits"])
def test_weighted_softmax_is_softmax_of_repeated_rows(size: float) -> None:
    torch.manual_seed(0)
    logits = (size * torch.randn(7, 2)).requires_grad_()
    weight, index = (
        torch.tensor([3, 1, 2, 5, 1, 4, 12]),
        torch.tensor([0, 0, 0, 2, 2, 2, 3]),
    )  # group 1 is empty
    alpha = weighted_softmax(logits, weight.float(), index, size=4)
    totals = torch.zeros(4, 2).index_add(0, index, alpha)
    torch.testing.assert_close(totals, torch.tensor([[1.0], [0.0], [1.0], [1.0]]).expand(4, 2))
    row = torch.arange(7).repeat_interleave(weight)
    for group in (0, 2, 3):
        own = row[index[row] == group]
        expected = torch.zeros(7, 2).index_add(0, own, torch.softmax(logits[own], 0))
        torch.testing.assert_close(alpha[index == group], expected[index == group])
        direction = torch.randn(7, 2)
        found, wanted = (
            torch.autograd.grad((out * direction)[index == group].sum(), logits, retain_graph=True)[
                0
            ]
            for out in (alpha, expected)
        )
        torch.testing.assert_close(found, wanted)
