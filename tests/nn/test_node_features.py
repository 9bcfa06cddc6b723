from collections.abc import Callable

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from csgcnn.config.instantiate import instantiate
from csgcnn.crystals import elements
from csgcnn.nn.node_features import NodeFeatures

Z = torch.tensor([1, 8, 26, 100])
TABLES = {"atom_init": 92, "onehot": 100, "bits": 7, "elemental": 8}


@pytest.mark.parametrize(("option", "dim"), TABLES.items())
def test_a_table_is_looked_up_and_stored_with_the_weights(
    option: str, dim: int, composed: Callable[..., DictConfig]
) -> None:
    features = NodeFeatures(instantiate(composed(f"node_features={option}").node_features))
    assert features.dim == dim
    assert np.array_equal(features(Z).numpy(), getattr(elements, option)()[Z.numpy()])
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
    features(Z).square().sum().backward()
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
    x = features(Z)
    assert np.array_equal(x[:, :7].detach().numpy(), elements.bits()[Z.numpy()])
    assert len({tuple(row) for row in x[:, 7:].tolist()}) == len(Z)
