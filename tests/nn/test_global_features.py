from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from csgcnn.crystals.descriptors import NAMES, descriptor_names, descriptors
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.store import GraphStore
from csgcnn.nn.build import build_network
from csgcnn.nn.global_features import GlobalFeatures
from csgcnn.nn.network import CrystalGraphNetwork

ALL = list(NAMES)
Structure = dict[str, Any]
Pack = Callable[..., GraphStore]
Composed = Callable[..., DictConfig]


def with_all(composed: Composed, *overrides: str) -> CrystalGraphNetwork:
    torch.manual_seed(0)
    return build_network(composed(f"graph.global_features=[{','.join(ALL)}]", *overrides), [1])


@torch.no_grad()
def set_identity(module: GlobalFeatures) -> None:
    module.linear.weight.copy_(torch.eye(len(module.mean)))
    module.linear.bias.zero_()


def test_constant_descriptors_keep_the_standard_deviation_one() -> None:
    module = GlobalFeatures(3)
    module.fit(torch.tensor([[1.0, 90.0, 90.00001], [3.0, 90.0, 90.0]]))
    torch.testing.assert_close(module.mean, torch.tensor([2.0, 90.0, 90.0]))
    assert module.std.tolist() == [1, 1, 1]
    module.fit(torch.tensor([[0.0, 1.0, 0.0], [0.0, 5.0, 1e-3]]))
    torch.testing.assert_close(module.std, torch.tensor([1.0, 2.0, 5e-4]))
    set_identity(module)
    torch.testing.assert_close(
        module(torch.tensor([[0.0, 5.0, 0.0]])), torch.tensor([[0.0, 1.0, -1.0]])
    )


def test_descriptors_are_clamped_to_the_widened_training_range() -> None:
    module = GlobalFeatures(2)
    set_identity(module)
    far = torch.tensor([[1e6, 91.0], [-1e6, 0.0]])
    torch.testing.assert_close(module(far), far, msg="before fit nothing is clamped")
    values = torch.tensor([[10.0, 90.0], [30.0, 90.0]])
    module.fit(values)
    # the std is 10, the range of the first column 8 to 32
    expected = torch.tensor([[1.2, 0.0], [-1.2, 0.0]])
    torch.testing.assert_close(module(far), expected, atol=3e-3, rtol=0)
    assert torch.equal(module(values), (values - module.mean) / module.std)


def test_a_batch_has_the_descriptors_of_its_crystals(
    structures: list[Structure], pack: Pack
) -> None:
    store = pack(structures[:6], global_features=ALL)
    assert store.settings.global_features == tuple(sorted(ALL))
    picked = torch.tensor([4, 0, 4])
    expected = np.stack([descriptors(to_crystal(structures[i]), sorted(ALL)) for i in picked])
    np.testing.assert_array_equal(store.batch(picked).global_features.numpy(), expected)
    assert store[4].global_features.tolist() == expected[:1].tolist()
    assert pack(structures[:6], global_features=[]).batch(picked).global_features.shape == (3, 0)


def test_one_name_is_accepted_in_place_of_a_list(
    composed: Composed, structures: list[Structure], pack: Pack
) -> None:
    store = pack(structures[:2], global_features="lattice")
    assert store.settings == pack(structures[:2], global_features=["lattice"]).settings
    model = build_network(composed("graph.global_features=lattice"), [1])
    assert model.global_features is not None
    assert (
        len(model.global_features.mean)
        == store.graphs.global_features.shape[1]
        == len(NAMES["lattice"])
    )


def test_a_network_without_global_features_has_no_such_weights(composed: Composed) -> None:
    plain = build_network(composed(), [1])
    assert plain.global_features is None
    assert not [name for name in plain.state_dict() if "global" in name]
    n_global = len(descriptor_names(ALL))
    assert (
        with_all(composed).head.layers[0].in_features == plain.head.layers[0].in_features + n_global
    )


@pytest.mark.parametrize("activation", ["softplus", "relu"])
@pytest.mark.parametrize("pooling", ["mean", "set2set"])
def test_every_descriptor_reaches_the_prediction(
    activation: str, pooling: str, composed: Composed, structures: list[Structure], pack: Pack
) -> None:
    store = pack(structures[:8], global_features=ALL)
    model = with_all(composed, f"pooling={pooling}", f"model.activation={activation}").eval()
    assert model.global_features is not None
    model.global_features.fit(torch.from_numpy(store.graphs.global_features))
    batch = store.batch(torch.arange(8))
    batch.global_features.requires_grad_()
    model(batch).sum().backward()
    assert batch.global_features.grad is not None
    assert batch.global_features.grad.ne(0).any(0).all()
