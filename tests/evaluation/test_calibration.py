import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError
from csgcnn.evaluation.calibration import (
    LEVELS,
    calibrate,
    coverage,
    covered,
    format_coverage,
    interval_stds,
    std_scales,
)
from csgcnn.evaluation.inference import predict_with_std
from csgcnn.nn.ensemble import Ensemble
from csgcnn.training.trainer import Trainer

NUMBER, CLASS, OTHER = (
    Target("a", "eV"),
    Target("b", task="classification", classes=("0", "1")),
    Target("c"),
)
TARGETS = [NUMBER, CLASS, OTHER]
N_ROWS = 40_000
HALF = slice(N_ROWS // 2)
OTHER_HALF = slice(N_ROWS // 2, None)


@pytest.fixture(scope="module")
def predicted() -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, standard deviations and values.

    The deviation of the first number is a third of what it should be, that of the other twice.
    """
    generator = torch.Generator().manual_seed(0)
    std = torch.rand(N_ROWS, 4, generator=generator) + 0.1
    prediction = torch.randn(N_ROWS, 4, generator=generator)
    noise = torch.randn(N_ROWS, 4, generator=generator) * std
    numbers = prediction[:, 0] + 3 * noise[:, 0], prediction[:, 3] + noise[:, 3] / 2
    truth = torch.stack([numbers[0], torch.ones(N_ROWS), numbers[1]], 1)
    truth[::7, 0] = math.nan
    std[:, 1:3] = math.nan
    return prediction, std, truth


def test_the_interval_of_a_level_has_the_quantile_of_its_distribution() -> None:
    assert interval_stds(0.9, is_laplace=False) == pytest.approx(1.6449, abs=1e-4)
    assert interval_stds(0.6827, is_laplace=False) == pytest.approx(1, abs=1e-4)
    # of a Laplace distribution whose 68.27 % interval is one deviation
    assert interval_stds(0.6827, is_laplace=True) == pytest.approx(1)
    assert interval_stds(0.9, is_laplace=True) == pytest.approx(2.0057, abs=1e-3)
    scale = 1 / -math.log(1 - 0.6827)
    assert 1 - math.exp(-interval_stds(0.95, is_laplace=True) / scale) == pytest.approx(0.95)
    for level in (0, 1, 90):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            interval_stds(level, is_laplace=False)


def test_the_scale_is_found(predicted: tuple[Tensor, Tensor, Tensor]) -> None:
    first, *of_class, last = std_scales(*(part[HALF] for part in predicted), TARGETS)
    assert first == pytest.approx(3, rel=0.05)
    assert last == pytest.approx(0.5, rel=0.05)
    assert of_class == [1, 1]


def test_the_scale_holds_for_other_rows(predicted: tuple[Tensor, Tensor, Tensor]) -> None:
    scale = torch.tensor(std_scales(*(part[HALF] for part in predicted), TARGETS))
    prediction, std, truth = (part[OTHER_HALF] for part in predicted)
    found = coverage(prediction, std * scale, truth, TARGETS)
    assert list(found) == ["a", "c"]
    for name in found:
        assert [found[name][f"{level:.4g}"] for level in LEVELS] == pytest.approx(LEVELS, abs=0.015)
        assert found[name]["rank_correlation"] > 0.3


@pytest.mark.parametrize("n_rows", [0, 1, 3])
def test_few_rows_need_the_largest_error(
    n_rows: int, predicted: tuple[Tensor, Tensor, Tensor]
) -> None:
    prediction, std, truth = (part[1 : 1 + n_rows] for part in predicted)
    scale = std_scales(prediction, std, truth, TARGETS)[0]
    relative = (prediction[:, 0] - truth[:, 0]).abs() / std[:, 0]
    assert scale == pytest.approx(relative.max().item() if n_rows else 1.0)


def test_deviations_and_errors_of_zero_keep_the_scale(
    predicted: tuple[Tensor, Tensor, Tensor],
) -> None:
    prediction, std, truth = (part[:50] for part in predicted)
    exact = torch.where(truth.isfinite(), prediction[:, [0, 1, 3]], truth)
    assert std_scales(prediction, torch.zeros_like(std), exact, TARGETS) == [1, 1, 1, 1]


def test_a_model_is_calibrated_on_the_given_rows(
    trainer: Callable[..., Trainer], store: GraphStore, targets: Tensor
) -> None:
    model = Ensemble([trainer(seed=seed).model for seed in (0, 1)])
    model.std_scale.fill_(7.0)
    rows = torch.arange(10, 60)
    calibrate(model, store, [NUMBER], targets, rows, 16)
    values, std = predict_with_std(model, store, rows, 16)
    assert std is not None
    within = covered((values - targets[rows]).abs()[:, 0], std[:, 0] * (1 + 1e-6), [0.6827])
    assert within == [pytest.approx(35 / 50)], "the 35th of 50 errors, as 0.6827 * 51 = 34.8"


def test_too_few_validation_labels_are_reported(
    trainer: Callable[..., Trainer],
    store: GraphStore,
    targets: Tensor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Ensemble([trainer(seed=seed).model for seed in (0, 1)])
    calibrate(model, store, [NUMBER], targets, torch.arange(10, 15), 16)
    assert not caplog.messages
    few = targets.clone()
    few[10] = math.nan
    calibrate(model, store, [NUMBER], few, torch.arange(10, 15), 16)
    assert caplog.messages == [
        "the standard deviations of a are not calibrated: it has 4 labels among the validation "
        "rows, expected at least 5"
    ]


def test_the_line_about_a_number() -> None:
    fractions = {"0.5": 0.4, "0.6827": 0.71, "0.9": 0.9, "0.95": 0.94, "rank_correlation": 0.5}
    assert (
        format_coverage(fractions, "a")
        == "errors of a within 1 and 1.96 std: 71% and 94% (68 % and 95 %)"
    )


def test_one_row_has_no_rank_correlation() -> None:
    one = torch.ones(1, 1)
    assert math.isnan(coverage(one, one, one, [NUMBER])["a"]["rank_correlation"])
