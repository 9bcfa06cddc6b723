from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.interfaces import LayerConfig
from csgcnn.nn.layers import (
    Block,
    EdgeUpdate,
    PairLinear,
    activation_function,
    hidden_layers,
    weighted_softmax,
)

HIDDEN, EDGE_DIM = 5, 3
CONFIG = LayerConfig(HIDDEN, EDGE_DIM, "batch", "gelu", message_layers=1)


@pytest.fixture
def graph(structures: list[Any], pack: Callable[..., GraphStore]) -> GraphBatch:
    torch.manual_seed(0)
    return pack(structures[:3]).batch(torch.arange(3))


def inputs(graph: GraphBatch) -> tuple[Tensor, Tensor]:
    return torch.randn(len(graph.atomic_number), HIDDEN), torch.randn(len(graph.distance), EDGE_DIM)


def concatenated(x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
    neighbor, center = graph.edge_index
    return torch.cat([x[center], x[neighbor], edge_attr], dim=1)


def test_pair_linear_is_a_linear_map_of_the_concatenation(graph: GraphBatch) -> None:
    pair, plain = PairLinear(HIDDEN, EDGE_DIM, 4), nn.Linear(2 * HIDDEN + EDGE_DIM, 4)
    plain.load_state_dict(pair.state_dict())
    x, edge_attr = inputs(graph)
    expected = plain(concatenated(x, edge_attr, graph))
    torch.testing.assert_close(pair(x, edge_attr, graph), expected)


def test_an_edge_update_follows_its_formula(graph: GraphBatch) -> None:
    update = EdgeUpdate(CONFIG).eval()
    with torch.no_grad():
        update.norm.running_mean.uniform_(-1, 1)
        update.norm.running_var.uniform_(1, 2)
    x, edge_attr = inputs(graph)
    z = F.linear(concatenated(x, edge_attr, graph), update.linear.weight, update.linear.bias)
    z = (z - update.norm.running_mean) / (update.norm.running_var + update.norm.eps).sqrt()
    torch.testing.assert_close(update(x, edge_attr, graph), edge_attr + F.gelu(z))


class FixedUpdate(nn.Module):
    """A convolution that returns the same update for any graph."""

    def __init__(self, update: Tensor) -> None:
        super().__init__()
        self.update = update

    def forward(self, x: Tensor, edge_attr: Tensor, graph: GraphBatch) -> Tensor:
        return self.update


def block(graph: GraphBatch, residual: str, dropout: float = 0.0) -> tuple[Block, Tensor, Tensor]:
    x, update = torch.randn(2, len(graph.atomic_number), HIDDEN)
    made = Block(FixedUpdate(update), CONFIG, dropout, residual)
    with torch.no_grad():
        made.norm.running_mean.uniform_(-1, 1)
        made.norm.running_var.uniform_(1, 2)
    return made, x, update


@pytest.mark.parametrize(
    ("residual", "formula"),
    [
        ("post", lambda x, update, norm: F.gelu(x + norm(update))),
        ("pre", lambda x, update, norm: x + norm(F.gelu(update))),
        ("none", lambda x, update, norm: F.gelu(norm(update))),
    ],
)
def test_a_block_follows_the_formula_of_its_skip_connection(
    residual: str, formula: Callable[..., Tensor], graph: GraphBatch
) -> None:
    made, x, update = block(graph, residual)
    expected = formula(x, update, lambda z: made.eval().norm(z, graph.atom_multiplicity))
    torch.testing.assert_close(made(x, x, graph), expected)


def test_dropout_sets_updates_to_zero_in_training_only(graph: GraphBatch) -> None:
    made, x, update = block(graph, "pre", dropout=0.25)
    normed = made.eval().norm(F.gelu(update), graph.atom_multiplicity)
    torch.testing.assert_close(made(x, x, graph), x + normed)
    made.dropout.train()
    found = made(x, x, graph)
    dropped = found == x
    assert 0.05 < dropped.float().mean() < 0.5
    torch.testing.assert_close(found, torch.where(dropped, x, x + normed / 0.75))


@pytest.mark.parametrize("name", ["softplus", "silu", "relu", "gelu", "tanh"])
def test_an_activation_is_the_function_of_pytorch_with_its_name(name: str) -> None:
    x = torch.linspace(-3, 3, 20)
    function = torch.tanh if name == "tanh" else getattr(F, name)
    assert torch.equal(activation_function(name)(x), function(x))


def test_hidden_layers_alternate_activations_and_linear_layers() -> None:
    x = torch.randn(4, 6)
    assert torch.equal(hidden_layers(6, "tanh", 0)(x), x)
    layers = hidden_layers(6, "tanh", 2)
    first, second = (layer for layer in layers if isinstance(layer, nn.Linear))
    torch.testing.assert_close(layers(x), second(torch.tanh(first(torch.tanh(x)))))


def test_unknown_names_are_reported_with_the_known_ones(graph: GraphBatch) -> None:
    with pytest.raises(ValueError, match="activation=mish: expected one of softplus, silu"):
        activation_function("mish")
    with pytest.raises(ValueError, match="residual=both: expected post, pre or none"):
        block(graph, "both")


@pytest.mark.parametrize("size", [1.0, 1e4], ids=["small logits", "large logits"])
def test_weighted_softmax_is_the_softmax_of_repeated_rows(size: float) -> None:
    torch.manual_seed(0)
    logits = (size * torch.randn(7, 2)).requires_grad_()
    weight = torch.tensor([3, 1, 2, 5, 1, 4, 12])
    # Group 1 is empty.
    index = torch.tensor([0, 0, 0, 2, 2, 2, 3])
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


def test_rows_of_weight_0_change_no_softmax_whatever_their_logits() -> None:
    logits = torch.tensor([[0.0], [1.0], [200.0], [torch.inf], [3.0]], requires_grad=True)
    weight = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    # The second group has no other rows.
    alpha = weighted_softmax(logits, weight, torch.tensor([0, 0, 0, 0, 1]), size=2)
    expected = torch.cat([torch.tensor([0.0, 1.0]).softmax(0), torch.zeros(3)])
    torch.testing.assert_close(alpha.flatten(), expected)
    (alpha[:, 0] * torch.arange(5.0)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[2:].any()
