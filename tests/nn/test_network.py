"""The whole network, first against a plain transcription of CGCNN (Xie & Grossman 2018)."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError
from csgcnn.nn.build import build_network
from csgcnn.nn.convolutions import GatedConvolution
from csgcnn.nn.interfaces import LayerConfig
from csgcnn.nn.layers import Block
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.training.losses import WeightedRegressionLoss

Composed = Callable[..., DictConfig]
MODELS = ["csgcnn", "csgann", "csginn"]
SMALL = ("model.hidden=8", "model.n_convolutions=2", "model.head_hidden=8")
N_NEIGHBORS = 12


@pytest.fixture(scope="module")
def batch(structures: list[Any], pack: Callable[..., GraphStore]) -> GraphBatch:
    return pack(structures[:8]).batch(torch.arange(8))


class PublishedConvolution(nn.Module):
    """x [n_atoms, hidden], edge_attr [n_atoms, 12, edge_dim], neighbors [n_atoms, 12]."""

    def __init__(self, hidden: int, edge_dim: int) -> None:
        super().__init__()
        self.fc_full = nn.Linear(2 * hidden + edge_dim, 2 * hidden)
        self.bn1 = nn.BatchNorm1d(2 * hidden)
        self.bn2 = nn.BatchNorm1d(hidden)

    def forward(self, x: Tensor, edge_attr: Tensor, neighbors: Tensor) -> Tensor:
        n_atoms, n_neighbors = neighbors.shape
        center = x.unsqueeze(1).expand(n_atoms, n_neighbors, -1)
        z = self.fc_full(torch.cat([center, x[neighbors], edge_attr], dim=2))
        z = self.bn1(z.flatten(0, 1)).view(z.shape)
        gate, core = z.chunk(2, dim=2)
        summed = (torch.sigmoid(gate) * F.softplus(core)).sum(dim=1)
        return F.softplus(x + self.bn2(summed))


class PublishedNetwork(nn.Module):
    def __init__(
        self, n_features: int, edge_dim: int, hidden: int = 64, n_conv: int = 3, h_fea: int = 128
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(n_features, hidden)
        self.convs = nn.ModuleList(PublishedConvolution(hidden, edge_dim) for _ in range(n_conv))
        self.conv_to_fc = nn.Linear(hidden, h_fea)
        self.fc_out = nn.Linear(h_fea, 1)

    def forward(
        self, features: Tensor, edge_attr: Tensor, neighbors: Tensor, crystals: list[Tensor]
    ) -> Tensor:
        x = self.embedding(features)
        for conv in self.convs:
            x = conv(x, edge_attr, neighbors)
        pooled = torch.stack([x[atoms].mean(0) for atoms in crystals])
        return self.fc_out(F.softplus(self.conv_to_fc(F.softplus(pooled))))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    for kind in ("parameters", "buffers"):
        kept = [t for t in getattr(source, kind)() if t.dtype.is_floating_point]
        into = [t for t in getattr(target, kind)() if t.dtype.is_floating_point]
        assert [t.shape for t in kept] == [t.shape for t in into]
        with torch.no_grad():
            for a, b in zip(kept, into, strict=True):
                b.copy_(a)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_block_with_the_gated_convolution_is_the_published_one(
    training: bool, structures: list[Any], pack: Callable[..., GraphStore]
) -> None:
    torch.manual_seed(0)
    graph = pack(structures[:6], shells="truncate", compress=False).batch(torch.arange(6))
    config = LayerConfig(16, 8, "batch", "softplus", message_layers=1)
    ours = Block(GatedConvolution(config), config, dropout=0.0, residual="post")
    published = PublishedConvolution(config.hidden, config.edge_dim)
    with torch.no_grad():
        for tensor in (*ours.parameters(), *ours.buffers()):
            tensor.add_(0.3 * torch.rand_like(tensor))
    copy_weights(ours, published)
    ours.train(training), published.train(training)
    x = torch.randn(len(graph.atomic_number), config.hidden)
    edge_attr = torch.rand(len(graph.distance), config.edge_dim)
    neighbors = graph.edge_index[0].view(-1, N_NEIGHBORS)
    expected = published(x, edge_attr.view(-1, N_NEIGHBORS, config.edge_dim), neighbors)
    torch.testing.assert_close(ours(x, edge_attr, graph), expected, rtol=1e-5, atol=1e-5)
    statistics = (buffer for buffer in published.buffers() if buffer.ndim)
    for mine, theirs in zip(ours.buffers(), statistics, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_network_with_the_settings_of_cgcnn_is_the_published_one(
    training: bool,
    structures: list[Any],
    pack: Callable[..., GraphStore],
    network: Callable[..., CrystalGraphNetwork],
) -> None:
    ours = network("graph.shells=truncate", "graph.compress=false")
    assert sum(parameter.numel() for parameter in ours.parameters()) == 80_833
    store = pack(structures[:12], shells="truncate", compress=False)
    graph = store.batch(torch.arange(len(store)))
    centers = torch.arange(len(graph.atomic_number)).unsqueeze(1)
    assert (graph.edge_index[1].view(-1, N_NEIGHBORS) == centers).all()

    features = ours.node_features(graph)
    mu = torch.arange(0, 8.1, 0.2)
    edge_attr = torch.exp(-((graph.distance.unsqueeze(1) - mu) ** 2) / 0.2**2)
    published = PublishedNetwork(features.shape[1], len(mu))
    skipped = {"node_features", "edge_calculator", "scaler", "pooling"}
    parts = [module for name, module in ours.named_children() if name not in skipped]
    copy_weights(nn.ModuleList(parts), published)
    ours.train(training), published.train(training)
    crystals = [(graph.graph_index == i).nonzero().squeeze(1) for i in range(len(store))]
    neighbors = graph.edge_index[0].view(-1, N_NEIGHBORS)
    shaped = edge_attr.view(-1, N_NEIGHBORS, len(mu))
    expected = published(features, shaped, neighbors, crystals)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours.standardized(graph), expected, rtol=1e-4, atol=1e-5)


def small(composed: Composed, *overrides: str, n_outputs: tuple[int, ...] = (1,)) -> Any:
    torch.manual_seed(0)
    return build_network(composed(*SMALL, *overrides), n_outputs)


def test_standard_deviations_are_scaled_and_given_for_numbers_only(
    batch: GraphBatch, composed: Composed
) -> None:
    model = small(composed, "loss=gaussian", n_outputs=(1, 3, 1)).eval()
    model.scaler.std.copy_(torch.tensor([2.0, 1.0, 0.5]))
    assert model.has_std
    with torch.no_grad():
        outputs, (values, std) = model.standardized(batch), model.with_std(batch)
        assert outputs.shape == (len(batch), 7)
        torch.testing.assert_close(values, model(batch))
        torch.testing.assert_close(std[:, 0], outputs[:, 5].exp() * 2.0)
        torch.testing.assert_close(std[:, 4], outputs[:, 6].exp() * 0.5)
        assert std[:, 1:4].isnan().all()
        model.std_scale[0] = 3.0
        torch.testing.assert_close(model.with_std(batch)[1][:, 0], 3 * std[:, 0])


def test_a_network_without_predict_std_predicts_no_standard_deviations(
    batch: GraphBatch, composed: Composed
) -> None:
    model = small(composed, n_outputs=(1, 3, 1)).eval()
    assert not model.has_std
    with torch.no_grad():
        assert model.standardized(batch).shape == (len(batch), 5)
        assert model.with_std(batch)[1].isnan().all()
    with pytest.raises(RuntimeError, match="no standard deviations"):
        assert model.std_scale is not None


def test_a_network_for_classes_only_has_no_standard_deviations(
    batch: GraphBatch, composed: Composed
) -> None:
    model = small(composed, "loss=gaussian", n_outputs=(3,)).eval()
    assert not model.has_std
    assert model(batch).shape == (len(batch), 3)


def test_stages_and_body_cover_the_network(composed: Composed) -> None:
    model = small(
        composed,
        "loss=gaussian",
        "edge_calculator.learnable=true",
        "graph.global_features=density",
    )
    everything = {id(parameter) for parameter in model.parameters()}
    staged = [
        id(parameter)
        for module in chain.from_iterable(model.stages)
        for parameter in module.parameters()
    ]
    assert len(model.stages) == 2 + len(model.blocks)
    assert len(staged) == len(set(staged))
    assert set(staged) == everything
    body = {id(parameter) for module in model.body for parameter in module.parameters()}
    head = [*model.head.parameters(), *model.std_head.parameters()]
    assert everything - body == {id(parameter) for parameter in head}


@pytest.mark.parametrize("word", ["norm=instance", "residual=both", "activation=mish", "hidden=30"])
def test_a_wrong_value_is_named(word: str, composed: Composed) -> None:
    with pytest.raises(ConfigError, match=rf"{word}.*(expected|heads=4)"):
        build_network(composed("model=csgann", f"model.{word}"), n_outputs=[1])


@pytest.mark.parametrize("learnable", ["false", "true"], ids=["fixed", "learnable"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_overfits_eight_crystals(
    model: str, learnable: str, batch: GraphBatch, composed: Composed
) -> None:
    torch.manual_seed(0)
    config = composed(
        f"model={model}",
        "model.hidden=32",
        "edge_calculator=rbf",
        f"edge_calculator.learnable={learnable}",
        "edge_calculator.embedding=16",
    )
    made, target = build_network(config, n_outputs=[1]), torch.randn(8, 1)
    loss = WeightedRegressionLoss(mse=0.4, l1=0.4, huber=0.2)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        error = loss(made.standardized(batch), target)
        error.backward()
        optimizer.step()
        if error < 1e-2:
            return
    pytest.fail(f"the loss is still {error:.3g}")
