from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from csgcnn.data.store import GraphStore
from csgcnn.nn.build import build_network
from csgcnn.nn.ensemble import Ensemble

SMALL = ["model.hidden=8", "model.n_convolutions=1", "model.head_hidden=8"]


@pytest.mark.parametrize("overrides", [[], ["loss=laplace"]], ids=["values", "values and std"])
def test_the_variance_is_that_of_the_members_plus_their_mean_predicted_variance(
    overrides: list[str],
    structures: list[Any],
    pack: Callable[..., GraphStore],
    composed: Callable[..., DictConfig],
) -> None:
    batch = pack(structures[:8]).batch(torch.arange(8))
    config = composed(*SMALL, *overrides)
    torch.manual_seed(0)
    members = [build_network(config, n_outputs=[1, 3, 1]).eval() for _ in range(3)]
    ensemble = Ensemble(members).eval()
    with torch.no_grad():
        predicted = [member.with_std(batch) for member in members]
        values, std = (torch.stack(parts) for parts in zip(*predicted, strict=True))
        found_mean, found_std = ensemble.with_std(batch)
        torch.testing.assert_close(found_mean, values.mean(0))
        torch.testing.assert_close(ensemble(batch), found_mean)
        variance = values.var(0) + std.square().mean(0).nan_to_num(0)
        torch.testing.assert_close(found_std, variance.sqrt())
        assert found_std.isfinite().all()
        ensemble.std_scale.fill_(2.0)
        torch.testing.assert_close(ensemble.with_std(batch)[1], 2 * found_std)
