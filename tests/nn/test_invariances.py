"""What must not change a prediction, and what must: on real crystals, with weights away from their start."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from csgcnn.data.store import GraphStore
from csgcnn.nn.models import CrystalGraphNetwork
from csgcnn.training.losses import Weighted
from csgcnn.wiring import build_model

Pack = Callable[..., GraphStore]
Network = Callable[..., CrystalGraphNetwork]
Structure = dict[str, Any]
LEARNABLE = ("edge_calculator=rbf", "edge_calculator.learnable=true", "edge_calculator.embedding=16")


@torch.no_grad()
def predictions(model: CrystalGraphNetwork, store: GraphStore) -> Tensor:
    return model.eval()(store.batch(torch.arange(len(store))))


def permuted(structure: Structure) -> Structure:
    order = np.random.default_rng(0).permutation(len(structure["species"]))
    return structure | {name: [structure[name][i] for i in order] for name in ("species", "frac_coords")}


def rotated(structure: Structure) -> Structure:
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    return structure | {"lattice": (np.array(structure["lattice"]) @ rotation).tolist()}


def translated(structure: Structure) -> Structure:
    return structure | {
        "frac_coords": ((np.array(structure["frac_coords"]) + np.array([0.13, 0.57, 0.911])) % 1).tolist()
    }


def supercell(structure: Structure, *times: int) -> Structure:
    shifts = np.array(list(product(*map(range, times))))
    frac_coords = (np.array(structure["frac_coords"])[:, None] + shifts) / times
    return {
        "lattice": (np.array(structure["lattice"]) * np.array(times)[:, None]).tolist(),
        "species": [species for species in structure["species"] for _ in shifts],
        "frac_coords": frac_coords.reshape(-1, 3).tolist(),
    }


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("words", [(), LEARNABLE], ids=["fixed", "learnable"])
@pytest.mark.parametrize(
    "changed",
    [
        permuted,
        rotated,
        translated,
        lambda structure: supercell(structure, 2, 1, 1),
        lambda structure: supercell(structure, 2, 2, 2),
    ],
    ids=["permutation", "rotation", "translation", "2x1x1", "2x2x2"],
)
def test_a_prediction_does_not_depend_on_the_description(
    changed: Callable[[Structure], Structure],
    words: tuple[str, ...],
    compress: bool,
    structures: list[Structure],
    pack: Pack,
    network: Network,
) -> None:
    chosen = [structure for structure in structures if len(structure["species"]) <= 12][:10]
    model = network(*words)
    expected = predictions(model, pack(chosen, compress=compress))
    found = predictions(model, pack([changed(structure) for structure in chosen], compress=compress))
    assert expected.std() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("words", [(), LEARNABLE], ids=["fixed", "learnable"])
def test_compression_is_lossless(
    words: tuple[str, ...], training: bool, structures: list[Structure], pack: Pack, network: Network
) -> None:
    rows, target = torch.arange(len(structures)), torch.linspace(-1, 1, len(structures)).unsqueeze(1)
    results, gradients, buffers, sizes = [], [], [], []
    for compress in (True, False):
        model = network(*words, "node_features=[atom_init,learned]").train(training)
        graph = pack(structures, compress=compress).batch(rows)
        prediction = model.standardized(graph)
        (prediction - target).square().mean().backward()
        results.append(prediction.detach())
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        buffers.append(dict(model.named_buffers()))
        sizes.append(len(graph.distance))
    assert sizes[0] < 0.5 * sizes[1]
    torch.testing.assert_close(*results, rtol=1e-5, atol=2e-5)
    largest = max(gradient.abs().max() for gradient in gradients[1].values())
    for name, expected in gradients[1].items():
        scale = max(expected.abs().max(), 1e-3 * largest)  # the bias before a batch norm has none but rounding
        difference = (gradients[0][name] - expected).abs().max() / scale
        assert difference < 1e-4, f"{name}: {difference:.1e}"
    for name, expected in buffers[1].items():
        torch.testing.assert_close(buffers[0][name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("words", [(), LEARNABLE], ids=["fixed", "learnable"])
def test_a_batch_is_its_crystals_one_by_one(
    words: tuple[str, ...], structures: list[Structure], pack: Pack, network: Network
) -> None:
    model, store = network(*words), pack(structures)
    together = predictions(model, store)
    with torch.no_grad():
        alone = torch.cat([model(store.batch(row)) for row in torch.arange(len(store)).split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_an_atom_without_neighbours_is_predicted(pack: Pack, network: Network) -> None:
    lonely = {"lattice": (20 * np.eye(3)).tolist(), "species": ["Ar"], "frac_coords": [[0, 0, 0]]}
    store = pack([lonely])
    assert store.batch(torch.arange(1)).distance.numel() == 0
    assert predictions(network(*LEARNABLE), store).isfinite().all()


@pytest.mark.parametrize(
    ("edge", "learnable", "features"),
    list(
        product(
            ["gaussian", "rbf"],
            ["false", "true"],
            ["atom_init", "onehot", "bits", "elemental", "learned", "[atom_init,learned]"],
        )
    ),
)
def test_every_parameter_is_trained(
    edge: str,
    learnable: str,
    features: str,
    structures: list[Structure],
    pack: Pack,
    composed: Callable[..., DictConfig],
) -> None:
    first = features.strip("[]").partition(",")[0]
    words = [f"edge_calculator={edge}", f"edge_calculator.learnable={learnable}", f"node_features={features}"]
    trainable = [] if first == "learned" else [f"node_features.{first}.trainable=true"]
    model = build_model(composed(*words, *trainable), n_targets=2).eval()  # so that biases before norms count, too
    model.standardized(pack(structures[:4]).batch(torch.arange(4))).square().sum().backward()
    untrained = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not untrained
    assert len(model.edge_updates) == (2 if learnable == "true" else 0)


@pytest.mark.parametrize("words", [(), LEARNABLE], ids=["fixed", "learnable"])
def test_it_can_learn_eight_crystals_by_heart(
    words: tuple[str, ...], structures: list[Structure], pack: Pack, composed: Callable[..., DictConfig]
) -> None:
    torch.manual_seed(0)
    model = build_model(composed(*words, "model.hidden=32"), n_targets=1)
    batch, target = pack(structures[:8]).batch(torch.arange(8)), torch.randn(8, 1)
    loss, optimizer = Weighted(mse=0.4, l1=0.4, huber=0.2), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        error = loss(model.standardized(batch), target)
        error.backward()
        optimizer.step()
        if error < 1e-2:
            return
    pytest.fail(f"the loss is still {error:.3g}")


def test_golden_values(structures: list[Structure], pack: Pack, network: Network) -> None:
    found = predictions(network(), pack(structures[:3])).squeeze(1).tolist()
    assert found == pytest.approx([7.686785, 6.904985, 3.686837], abs=1e-4)
