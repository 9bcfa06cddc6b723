"""Standard deviations: of one network that predicts them, and of an ensemble."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork, build_network

Composed = Callable[..., DictConfig]
SMALL = ["model.hidden=8", "model.n_convolutions=1", "model.head_hidden=8"]
N_OUTPUTS = [1, 3, 1]  # a number, a class, a number


@pytest.fixture(scope="module")
def batch(structures: list[Any], pack: Callable[..., GraphStore]) -> GraphBatch:
    return pack(structures[:8]).batch(torch.arange(8))


def network(composed: Composed, seed: int, *words: str) -> CrystalGraphNetwork:
    torch.manual_seed(seed)
    return build_network(composed(*SMALL, *words), n_outputs=N_OUTPUTS).eval()


def test_one_network(batch: GraphBatch, composed: Composed) -> None:
    model = network(composed, 0, "loss=gaussian")
    model.scaler.std.copy_(torch.tensor([2.0, 1.0, 0.5]))
    with torch.no_grad():
        outputs, (values, std) = model.standardized(batch), model.with_std(batch)
        assert outputs.shape == (len(batch), 7)
        torch.testing.assert_close(values, model(batch))
        torch.testing.assert_close(std[:, 0], outputs[:, 5].exp() * 2.0)
        torch.testing.assert_close(std[:, 4], outputs[:, 6].exp() * 0.5)
        assert std[:, 1:4].isnan().all()
        model.std_scale[0] = 3.0
        torch.testing.assert_close(model.with_std(batch)[1][:, 0], 3 * std[:, 0])


def test_a_network_without(batch: GraphBatch, composed: Composed) -> None:
    model = network(composed, 0)
    assert not model.has_std
    with torch.no_grad():
        assert model.standardized(batch).shape == (len(batch), 5)
        assert model.with_std(batch)[1].isnan().all()
    with pytest.raises(AttributeError):
        assert model.std_scale is not None


def test_no_number_no_deviation(batch: GraphBatch, composed: Composed) -> None:
    model = build_network(composed(*SMALL, "loss=gaussian"), n_outputs=[3]).eval()
    assert not model.has_std
    assert model(batch).shape == (len(batch), 3)


@pytest.mark.parametrize("words", [[], ["loss=laplace"]])
def test_an_ensemble_has_the_variance_of_both_sources(
    words: list[str], batch: GraphBatch, composed: Composed
) -> None:
    members = [network(composed, seed, *words) for seed in range(3)]
    ensemble = Ensemble(members).eval()
    with torch.no_grad():
        told = [member.with_std(batch) for member in members]
        values, std = torch.stack([v for v, _ in told]), torch.stack([s for _, s in told])
        mean, deviation = ensemble.with_std(batch)
        torch.testing.assert_close(mean, values.mean(0))
        torch.testing.assert_close(ensemble(batch), mean)
        variance = values.var(0) + std.square().mean(0).nan_to_num(0)
        torch.testing.assert_close(deviation, variance.sqrt())
        assert deviation.isfinite().all()
        ensemble.std_scale.fill_(2.0)
        torch.testing.assert_close(ensemble.with_std(batch)[1], 2 * deviation)
