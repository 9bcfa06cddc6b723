"""Padding has no effect, which CUDA graphs of training steps rely on."""

from itertools import product

import pytest
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.elements import atom_init
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.batch import GraphBatch
from csgcnn.data.collate import ranges
from csgcnn.data.store import GraphStore
from csgcnn.nn.convolutions import AttentionConvolution, GatedConvolution, IsomorphismConvolution
from csgcnn.nn.edge_calculators import RadialBasis
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.nn.node_features import ElementTable, LearnedEmbedding
from csgcnn.nn.pooling import AttentionPooling, MaxPooling, MeanPooling, Set2Set, SumPooling

ROWS = torch.tensor([5, 3, 30, 17, 8, 41, 12, 29])
CONVOLUTIONS = [GatedConvolution, AttentionConvolution, IsomorphismConvolution]
OTHER_POOLINGS = [SumPooling, MaxPooling, AttentionPooling, Set2Set]
CASES = [
    *product(CONVOLUTIONS, [MeanPooling], ["batch", "layer"]),
    *product([AttentionConvolution], OTHER_POOLINGS, ["batch"]),
]


@pytest.fixture(scope="module", params=["compressed", "full"])
def store(request: pytest.FixtureRequest, dielectric_records: list[Record]) -> GraphStore:
    records = dielectric_records[:60]
    settings = GraphSettings(compress=request.param == "compressed")
    graphs = connect([to_crystal(record.source) for record in records], settings)
    return GraphStore(graphs, [record.id for record in records], {}, settings)


def test_ranges_are_concatenated() -> None:
    position, owner = ranges(torch.tensor([5, 0, 9]), torch.tensor([2, 0, 3]), 5)
    assert position.tolist() == [5, 6, 9, 10, 11]
    assert owner.tolist() == [0, 0, 2, 2, 2]


def padded(store: GraphStore, more_atoms: int, more_edges: int) -> GraphBatch:
    n_atoms, n_edges = store.size(ROWS)
    return store.padded(ROWS, n_atoms + more_atoms, n_edges + more_edges)


@pytest.mark.parametrize(("more_atoms", "more_edges"), [(1, 0), (1, 7), (20, 3), (20, 300)])
def test_padding_follows_the_crystals(store: GraphStore, more_atoms: int, more_edges: int) -> None:
    n_atoms, n_edges = store.size(ROWS)
    plain, batch = store.batch(ROWS), padded(store, more_atoms, more_edges)
    assert batch.n_graphs == len(ROWS)
    assert (len(batch.atomic_number), len(batch.distance)) == (
        n_atoms + more_atoms,
        n_edges + more_edges,
    )
    assert (batch.edge_index[1].diff() >= 0).all()
    assert batch.edge_index.max() < len(batch.atomic_number)
    for name in ("atomic_number", "atom_multiplicity", "graph_index"):
        assert torch.equal(getattr(batch, name)[:n_atoms], getattr(plain, name))
    assert torch.equal(batch.edge_index[:, :n_edges], plain.edge_index)
    assert torch.equal(batch.distance[:n_edges], plain.distance)
    assert torch.equal(batch.n_sites, plain.n_sites)
    assert not batch.edge_count[n_edges:].any()


@pytest.mark.parametrize(("convolution", "pooling", "norm"), CASES)
@pytest.mark.parametrize(("more_atoms", "more_edges"), [(1, 7), (20, 300)])
def test_loss_gradients_and_statistics_do_not_depend_on_padding(
    store: GraphStore,
    convolution: type[torch.nn.Module],
    pooling: type[MeanPooling],
    norm: str,
    more_atoms: int,
    more_edges: int,
) -> None:
    torch.manual_seed(0)
    features = {"atom_init": ElementTable(atom_init()), "learned": LearnedEmbedding(8)}
    edges = RadialBasis(8.0, 16, learnable=True, embedding=16)
    model = CrystalGraphNetwork(
        features, edges, convolution, pooling, hidden=16, norm=norm
    ).double()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = []
    for batch in (store.batch(ROWS), padded(store, more_atoms, more_edges)):
        model.load_state_dict(before)
        model.zero_grad()
        loss = (
            (model.standardized(to_double(batch)) - torch.arange(8.0).unsqueeze(1)).square().mean()
        )
        loss.backward()
        gradients = {
            name: weight.grad
            for name, weight in model.named_parameters()
            if weight.grad is not None
        }
        found.append({"loss": loss.detach(), **gradients, **dict(model.named_buffers())})
        found[-1] = {name: tensor.clone() for name, tensor in found[-1].items()}
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        assert torch.allclose(found[1][name], expected, rtol=1e-9, atol=1e-9), name


def to_double(batch: GraphBatch) -> GraphBatch:
    tensors = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    is_real = {
        name: isinstance(t, torch.Tensor) and t.is_floating_point() for name, t in tensors.items()
    }
    return GraphBatch(**{name: t.double() if is_real[name] else t for name, t in tensors.items()})
