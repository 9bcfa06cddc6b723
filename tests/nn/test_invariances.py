"""What must not change a prediction, and what must: on real crystals, with weights away from their start."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from csgcnn.crystals.crystal import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.network import CrystalGraphNetwork

Pack = Callable[..., GraphStore]
Network = Callable[..., CrystalGraphNetwork]
Structure = dict[str, Any]
LEARNABLE = ("edge_calculator.learnable=true", "edge_calculator.embedding=16")
NETWORKS = {
    "csgcnn": (),
    "csgann": ("model=csgann",),
    "csginn": ("model=csginn",),
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
every_network = pytest.mark.parametrize("words", NETWORKS.values(), ids=NETWORKS)


@torch.no_grad()
def predictions(model: CrystalGraphNetwork, store: GraphStore) -> Tensor:
    return model.eval()(store.batch(torch.arange(len(store))))


@pytest.fixture(scope="module", params=[True, False], ids=["compressed", "full"])
def descriptions(
    request: pytest.FixtureRequest, structures: list[Structure], pack: Pack
) -> dict[str, GraphStore]:
    """The same crystals, described differently."""
    rng = np.random.default_rng(0)
    chosen = [to_crystal(structure) for structure in structures if len(structure["species"]) <= 12][
        :10
    ]
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
    words: tuple[str, ...], descriptions: dict[str, GraphStore], network: Network
) -> None:
    model = network(*words)
    found = {name: predictions(model, store) for name, store in descriptions.items()}
    expected = found.pop("original")
    assert expected.std() > 1e-2
    for name, values in found.items():
        difference = (values - expected).abs().max()
        assert difference < 1e-4 * expected.abs().max(), f"{name}: {difference:.1e}"


@every_network
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_compression_is_lossless(
    words: tuple[str, ...],
    training: bool,
    structures: list[Structure],
    pack: Pack,
    network: Network,
    double: Callable[[GraphBatch], GraphBatch],
) -> None:
    rows, target = (
        torch.arange(len(structures)),
        torch.linspace(-1, 1, len(structures)).unsqueeze(1),
    )
    results, gradients, buffers, sizes = [], [], [], []
    features = [
        "node_features=[atom_init,learned]",
        "node_features.learned.std=1",
    ]  # elements as different as after training
    models = [network(*words, *features).double().train(training) for _ in range(2)]
    for compress, model in zip((True, False), models, strict=True):
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
    # A class has the mean distances of atoms that are equal to 1e-3 Å; the largest value is that of one of them.
    tolerance = 1e-3 if "pooling=max" in words else 1e-5
    for name, expected in gradients[1].items():
        scale = max(
            expected.abs().max(), 1e-3 * largest
        )  # the bias before a batch norm has none but rounding
        difference = (gradients[0][name] - expected).abs().max() / scale
        assert difference < tolerance, f"{name}: {difference:.1e}"
    for name, expected in buffers[1].items():
        torch.testing.assert_close(buffers[0][name], expected, rtol=1e-5, atol=1e-5)


@every_network
def test_a_batch_is_its_crystals_one_by_one(
    words: tuple[str, ...], structures: list[Structure], pack: Pack, network: Network
) -> None:
    model, store = network(*words), pack(structures)
    together = predictions(model, store)
    with torch.no_grad():
        alone = torch.cat([model(store.batch(row)) for row in torch.arange(len(store)).split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@every_network
def test_an_atom_without_neighbors_is_predicted(
    words: tuple[str, ...], pack: Pack, network: Network
) -> None:
    lonely = {"lattice": (20 * np.eye(3)).tolist(), "species": ["Ar"], "frac_coords": [[0, 0, 0]]}
    store = pack([lonely])
    assert store.batch(torch.arange(1)).distance.numel() == 0
    assert predictions(network(*words), store).isfinite().all()


GOLDEN = {
    "csgcnn": [7.686785, 6.904985, 3.686837],
    "csgann": [2.647197, 2.752838, 2.292328],
    "csginn": [3.874408, 2.194049, 1.889812],
}


@pytest.mark.parametrize("model", GOLDEN)
def test_golden_values(
    model: str, structures: list[Structure], pack: Pack, network: Network
) -> None:
    found = predictions(network(f"model={model}"), pack(structures[:3])).squeeze(1).tolist()
    assert found == pytest.approx(GOLDEN[model], abs=1e-4)
