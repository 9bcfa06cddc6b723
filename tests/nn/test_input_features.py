from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from omegaconf import DictConfig

from csgcnn.data.store import GraphStore
from csgcnn.nn.build import build_network
from csgcnn.nn.input_features import InputFeatures

Composed = Callable[..., DictConfig]


def test_numbers_are_standardized_and_categories_have_learned_vectors(store: GraphStore) -> None:
    module = InputFeatures([0, 2, 0], 4)
    inputs = torch.tensor([[100.0, 1.0, 7.0], [300.0, 0.0, 7.0], [9e9, 0.0, 1.0]])
    # the column of dataset.delta precedes the inputs
    store = GraphStore(store.graphs, store.ids, {}, store.settings)  # others read the same
    store.set_inputs("test", torch.cat([torch.full((3, 1), 5.0), inputs], 1), {})
    module.fit(store, torch.tensor([0, 1]))
    assert module.mean.tolist() == [200, 7]
    assert module.std.tolist() == [100, 1], "a constant has the standard deviation 1"
    graph = replace(store.batch(torch.tensor([0, 1])), inputs=inputs[:2])
    linear, (embedding,) = module.linear, module.embeddings
    assert linear is not None
    expected = linear(torch.tensor([[-1.0, 0.0], [1.0, 0.0]])) + embedding.weight[[1, 0]]
    torch.testing.assert_close(module(graph), expected)


@pytest.mark.parametrize("where", ["head", "state"])
def test_inputs_change_the_prediction_and_have_gradients(
    composed: Composed, store: GraphStore, where: str
) -> None:
    torch.manual_seed(0)
    network = build_network(composed(f"model.inputs={where}"), [1], [0, 3]).eval()
    graph = store.batch(torch.arange(4))
    one, other = (
        replace(graph, inputs=torch.tensor([[number, 2.0]]).expand(4, 2)) for number in (0.0, 1.0)
    )
    assert not torch.equal(network(one), network(other))
    is_shared = torch.equal(network.crystal_vector(one), network.crystal_vector(other))
    assert is_shared == (where == "head")
    network(one).sum().backward()
    reader = network.head_inputs or network.state
    assert reader is not None
    assert all(p.grad is not None for p in reader.parameters())
    in_body = any(reader is module for module in network.body)
    assert in_body == (where == "state")
    assert any(reader is module for stage in network.stages for module in stage)


def test_without_inputs_the_network_is_the_same(composed: Composed) -> None:
    states = []
    for where in ("head", "state"):
        torch.manual_seed(0)
        states.append(build_network(composed(f"model.inputs={where}"), [1]).state_dict())
    assert states[0].keys() == states[1].keys()
    assert not any("inputs" in name or "state" in name for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
