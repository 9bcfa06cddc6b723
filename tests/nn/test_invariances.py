"""Changes of the description of a crystal that must not change its prediction."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.convolutions import (
    AttentionConvolution,
    GatedConvolution,
    IsomorphismConvolution,
    SumConvolution,
)
from csgcnn.nn.interfaces import LayerConfig
from csgcnn.nn.layers import Block, EdgeUpdate
from csgcnn.nn.network import CrystalGraphNetwork

Pack = Callable[..., GraphStore]
Network = Callable[..., CrystalGraphNetwork]
Structure = dict[str, Any]
LEARNABLE = ("edge_calculator.learnable=true", "edge_calculator.embedding=16")
NETWORKS = {
    "csgcnn": (),
    "csgann": ("model=csgann",),
    "csginn": ("model=csginn",),
    "cogn": ("model=cogn",),
    "csgcnn learnable rbf, attention": ("edge_calculator=rbf", *LEARNABLE, "pooling=attention"),
    "csgann learnable bessel, set2set": (
        "model=csgann",
        "edge_calculator=bessel",
        *LEARNABLE,
        "pooling=set2set",
    ),
    "csginn learnable pair, max": (
        "model=csginn",
        "edge_calculator=pair_gaussian",
        *LEARNABLE,
        "pooling=max",
    ),
    "csgcnn screened, layer norm": (
        "edge_calculator=screened",
        "model.norm=layer",
        "model.residual=none",
    ),
}
every_network = pytest.mark.parametrize("overrides", NETWORKS.values(), ids=NETWORKS)


@torch.no_grad()
def predictions(model: CrystalGraphNetwork, store: GraphStore) -> Tensor:
    return model.eval()(store.batch(torch.arange(len(store))))


@pytest.fixture(scope="module", params=[True, False], ids=["compressed", "full"])
def descriptions(
    request: pytest.FixtureRequest, structures: list[Structure], pack: Pack
) -> dict[str, GraphStore]:
    """Different descriptions of the same crystals."""
    rng = np.random.default_rng(0)
    small = [structure for structure in structures if len(structure["species"]) <= 12][:10]
    chosen = [to_crystal(structure) for structure in small]
    described = {
        name: [transform(crystal, rng) for crystal in chosen]
        for name, transform in SAME_CRYSTAL.items()
    }
    return {
        name: pack(crystals, compress=request.param)
        for name, crystals in {"original": chosen, **described}.items()
    }


@every_network
def test_a_prediction_does_not_depend_on_the_description(
    overrides: tuple[str, ...], descriptions: dict[str, GraphStore], network: Network
) -> None:
    model = network(*overrides)
    found = {name: predictions(model, store) for name, store in descriptions.items()}
    expected = found.pop("original")
    assert expected.std() > 1e-2
    for name, values in found.items():
        difference = (values - expected).abs().max()
        assert difference < 1e-4 * expected.abs().max(), f"{name}: {difference:.1e}"


@every_network
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_compressed_and_full_graphs_give_the_same_gradients(
    overrides: tuple[str, ...],
    training: bool,
    structures: list[Structure],
    pack: Pack,
    network: Network,
    double: Callable[[GraphBatch], GraphBatch],
) -> None:
    rows = torch.arange(len(structures))
    target = torch.linspace(-1, 1, len(structures)).unsqueeze(1)
    # Elements as different as after training.
    features = ["node_features=[atom_init,learned]", "node_features.learned.std=1"]
    results, gradients, buffers, sizes = [], [], [], []
    for compress in (True, False):
        model = network(*overrides, *features).double().train(training)
        graph = double(pack(structures, compress=compress).batch(rows))
        prediction = model.standardized(graph)
        (prediction - target).square().mean().backward()
        results.append(prediction.detach())
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        buffers.append(dict(model.named_buffers()))
        sizes.append(len(graph.distance))
    assert sizes[0] < 0.5 * sizes[1]
    torch.testing.assert_close(*results, rtol=1e-5, atol=2e-5)
    largest = max(gradient.abs().max() for gradient in gradients[1].values())
    # Merged atoms have the mean of distances that are equal to 1e-3 Å; max takes one of them.
    tolerance = 1e-3 if "pooling=max" in overrides else 1e-5
    for name, expected in gradients[1].items():
        # The gradient of a bias before a batch norm is rounding only.
        scale = max(expected.abs().max(), 1e-3 * largest)
        difference = (gradients[0][name] - expected).abs().max() / scale
        assert difference < tolerance, f"{name}: {difference:.1e}"
    for name, expected in buffers[1].items():
        torch.testing.assert_close(buffers[0][name], expected, rtol=1e-5, atol=1e-5)


HIDDEN, EDGE_DIM = 8, 5


class TwoBlocks(nn.Module):
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


@pytest.fixture(scope="module")
def graph(
    structures: list[Any], pack: Pack, double: Callable[[GraphBatch], GraphBatch]
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
    "convolution",
    [GatedConvolution, AttentionConvolution, IsomorphismConvolution, SumConvolution],
)
def test_layers_count_an_atom_of_multiplicity_n_as_n_atoms(
    convolution: Any,
    norm: str,
    residual: str,
    message_layers: int,
    training: bool,
    graph: GraphBatch,
    expanded: Callable[[GraphBatch], tuple[GraphBatch, Tensor]],
) -> None:
    torch.manual_seed(0)
    body = TwoBlocks(convolution, norm, residual, message_layers).double().train(training)
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


@every_network
def test_a_prediction_does_not_depend_on_the_rest_of_the_batch(
    overrides: tuple[str, ...], structures: list[Structure], pack: Pack, network: Network
) -> None:
    model, store = network(*overrides), pack(structures)
    together = predictions(model, store)
    with torch.no_grad():
        alone = torch.cat([model(store.batch(row)) for row in torch.arange(len(store)).split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@every_network
def test_an_atom_without_neighbors_has_a_finite_prediction(
    overrides: tuple[str, ...], pack: Pack, network: Network
) -> None:
    lone = {"lattice": (20 * np.eye(3)).tolist(), "species": ["Ar"], "frac_coords": [[0, 0, 0]]}
    store = pack([lone])
    assert store.batch(torch.arange(1)).distance.numel() == 0
    assert predictions(network(*overrides), store).isfinite().all()


GOLDEN = {
    "csgcnn": [7.686785, 6.904985, 3.686837],
    "csgann": [2.647197, 2.752838, 2.292328],
    "csginn": [3.874408, 2.194049, 1.889812],
}


@pytest.mark.parametrize("model", GOLDEN)
def test_predictions_keep_their_recorded_values(
    model: str, structures: list[Structure], pack: Pack, network: Network
) -> None:
    found = predictions(network(f"model={model}"), pack(structures[:3])).squeeze(1).tolist()
    assert found == pytest.approx(GOLDEN[model], abs=1e-4)
