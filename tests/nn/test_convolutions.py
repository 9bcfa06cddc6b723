"""The convolution and the whole network against a plain transcription of CGCNN (Xie & Grossman 2018)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csgcnn.data.store import GraphStore
from csgcnn.nn.convolutions import GatedConvolution
from csgcnn.nn.interfaces import LayerConfig
from csgcnn.nn.layers import Block, PairLinear
from csgcnn.nn.network import CrystalGraphNetwork

N_NEIGHBORS = 12
ORIGINAL = ("graph.shells=truncate", "graph.compress=false")


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


def test_pair_linear_is_a_linear_map_of_the_concatenation(
    structures: list[Any], pack: Callable[..., GraphStore]
) -> None:
    torch.manual_seed(0)
    graph = pack(structures[:3]).batch(torch.arange(3))
    pair, plain = PairLinear(5, 3, 4), nn.Linear(13, 4)
    plain.load_state_dict(pair.state_dict())
    x, edge_attr = torch.randn(len(graph.atomic_number), 5), torch.randn(len(graph.distance), 3)
    neighbor, center = graph.edge_index
    expected = plain(torch.cat([x[center], x[neighbor], edge_attr], dim=1))
    torch.testing.assert_close(pair(x, edge_attr, graph), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_convolution_is_the_published_one(
    training: bool, structures: list[Any], pack: Callable[..., GraphStore]
) -> None:
    torch.manual_seed(0)
    graph = pack(structures[:6], shells="truncate", compress=False).batch(torch.arange(6))
    hidden, edge_dim = 16, 8
    config = LayerConfig(hidden, edge_dim, "batch", "softplus", message_layers=1)
    ours = Block(GatedConvolution(config), config, dropout=0.0, residual="post")
    published = PublishedConvolution(hidden, edge_dim)
    with torch.no_grad():
        for tensor in (*ours.parameters(), *ours.buffers()):
            tensor.add_(0.3 * torch.rand_like(tensor))
    copy_weights(ours, published)
    ours.train(training), published.train(training)
    x, edge_attr = (
        torch.randn(len(graph.atomic_number), hidden),
        torch.rand(len(graph.distance), edge_dim),
    )
    expected = published(
        x, edge_attr.view(-1, N_NEIGHBORS, edge_dim), graph.edge_index[0].view(-1, N_NEIGHBORS)
    )
    torch.testing.assert_close(ours(x, edge_attr, graph), expected, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(
        ours.buffers(), (b for b in published.buffers() if b.ndim), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_cgcnn(
    training: bool,
    structures: list[Any],
    pack: Callable[..., GraphStore],
    network: Callable[..., CrystalGraphNetwork],
) -> None:
    ours = network(*ORIGINAL)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 80_833
    store = pack(structures[:12], shells="truncate", compress=False)
    graph = store.batch(torch.arange(len(store)))
    assert (
        graph.edge_index[1].view(-1, N_NEIGHBORS)
        == torch.arange(len(graph.atomic_number)).unsqueeze(1)
    ).all()

    features = ours.node_features(graph.atomic_number)
    centers = torch.arange(0, 8.1, 0.2)
    edge_attr = torch.exp(-((graph.distance.unsqueeze(1) - centers) ** 2) / 0.2**2)
    published = PublishedNetwork(features.shape[1], len(centers))
    skipped = {"node_features", "edge_calculator", "scaler", "pooling"}
    copy_weights(
        nn.ModuleList(m for name, m in ours.named_children() if name not in skipped), published
    )
    ours.train(training), published.train(training)
    crystals = [(graph.graph_index == i).nonzero().squeeze(1) for i in range(len(store))]
    neighbors = graph.edge_index[0].view(-1, N_NEIGHBORS)
    expected = published(
        features, edge_attr.view(-1, N_NEIGHBORS, len(centers)), neighbors, crystals
    )
    found = ours.standardized(graph)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
