from collections.abc import Callable

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from csgcnn.config.instantiate import instantiate
from csgcnn.crystals import elements
from csgcnn.data.batch import GraphBatch
from csgcnn.nn.node_features import NodeFeatures, SiteFeatures

Z = torch.tensor([1, 8, 26, 100])
GRAPH = GraphBatch(
    atomic_number=Z,
    atom_multiplicity=torch.tensor([1.0, 3.0, 1.0, 1.0]),
    site_features=torch.tensor([[0, 5, 1], [4, 5, 1], [4, 5, 1], [0, 5, 2.0]]).half(),
    graph_index=torch.zeros(4, dtype=torch.long),
    edge_index=torch.zeros(2, 0, dtype=torch.long),
    distance=torch.zeros(0),
    edge_multiplicity=torch.zeros(0),
    global_features=torch.zeros(1, 0),
    n_graphs=1,
)
TABLES = {"atom_init": 92, "onehot": 100, "bits": 7, "elemental": 8}


@pytest.mark.parametrize(("option", "dim"), TABLES.items())
def test_a_table_is_looked_up_and_stored_with_the_weights(
    option: str, dim: int, composed: Callable[..., DictConfig]
) -> None:
    features = NodeFeatures(instantiate(composed(f"node_features={option}").node_features))
    assert features.dim == dim
    assert np.array_equal(features(GRAPH).numpy(), getattr(elements, option)()[Z.numpy()])
    assert not list(features.parameters())
    assert features.state_dict()


@pytest.mark.parametrize("option", TABLES)
def test_a_trainable_table_starts_from_the_values_of_the_elements(
    option: str, composed: Callable[..., DictConfig]
) -> None:
    cfg = composed(f"node_features={option}", f"node_features.{option}.trainable=true")
    features = NodeFeatures(instantiate(cfg.node_features))
    (table,) = features.parameters()
    assert np.array_equal(table.detach().numpy(), getattr(elements, option)())
    features(GRAPH).square().sum().backward()
    assert table.grad is not None
    used = torch.zeros(len(table), dtype=torch.bool).index_fill(0, Z, True)
    assert table.grad[used].any(1).all()
    assert not table.grad[~used].any()
    with torch.no_grad():
        table.zero_()
    assert getattr(elements, option)().any(), "training must not change the shared table"


def test_several_features_are_concatenated_in_order(composed: Callable[..., DictConfig]) -> None:
    cfg = composed("node_features=[bits,learned]", "node_features.learned.dim=5")
    features = NodeFeatures(instantiate(cfg.node_features))
    assert features.dim == 12
    x = features(GRAPH)
    assert np.array_equal(x[:, :7].detach().numpy(), elements.bits()[Z.numpy()])
    assert len({tuple(row) for row in x[:, 7:].tolist()}) == len(Z)


def test_site_features_are_standardized_on_sites_not_on_nodes() -> None:
    features = SiteFeatures(slice(0, 2), "coordination", dim=2)
    features.fit([GRAPH])
    # 0, 4, 4, 4, 4, 0 of the six sites; the second column is constant.
    assert features.mean.tolist() == pytest.approx([16 / 6, 5])
    assert features.std.tolist() == pytest.approx([np.std([0, 4, 4, 4, 4, 0]), 1])
    with torch.no_grad():
        features.projection.weight.copy_(torch.eye(2))
        features.projection.bias.zero_()
    standardized = (np.array([0, 4, 4, 0]) - 16 / 6) / np.std([0, 4, 4, 4, 4, 0])
    np.testing.assert_allclose(features(GRAPH)[:, 0].detach(), standardized, rtol=1e-5)
    assert not features(GRAPH)[:, 1].any()


def test_each_potential_reads_its_own_columns() -> None:
    features = SiteFeatures(slice(2, 3), "coordination", dim=1)
    features.fit([GRAPH, GRAPH])
    assert features.mean.tolist() == pytest.approx([7 / 6])
