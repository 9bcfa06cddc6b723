import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from csgcnn.data.targets import Target
from csgcnn.evaluation import calibration
from csgcnn.evaluation.calibration import LEVELS, calibrate, coverage, format_coverage

NUMBER, CLASS, OTHER = (
    Target("a", "eV"),
    Target("b", task="classification", classes=("0", "1")),
    Target("c"),
)
N_ROWS = 40_000


@pytest.fixture
def answers() -> tuple[Tensor, Tensor, Tensor]:
    """Predictions of a number, a class and a number, deviations that are too small, and the truth."""
    generator = torch.Generator().manual_seed(0)
    std = torch.rand(N_ROWS, 4, generator=generator) + 0.1
    prediction = torch.randn(N_ROWS, 4, generator=generator)
    noise = torch.randn(N_ROWS, 4, generator=generator) * std
    truth = torch.stack(
        [
            prediction[:, 0] + 3 * noise[:, 0],
            torch.ones(N_ROWS),
            prediction[:, 3] + noise[:, 3] / 2,
        ],
        1,
    )
    truth[::7, 0] = math.nan
    std[:, 1:3] = math.nan
    return prediction, std, truth


def calibrated(
    answers: tuple[Tensor, Tensor, Tensor], rows: Tensor, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    prediction, std, truth = answers
    model = SimpleNamespace(std_scale=torch.full((4,), 7.0))

    def predict(
        model: SimpleNamespace, store: None, rows: Tensor, batch_size: int
    ) -> tuple[Tensor, Tensor]:
        return prediction[rows], std[rows] * model.std_scale

    monkeypatch.setattr(calibration, "predict_with_std", predict)
    calibrate(model, None, [NUMBER, CLASS, OTHER], truth, rows, 64)  # type: ignore[arg-type]
    return model.std_scale.tolist()


def test_the_scale_is_found(
    answers: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *of_class, last = calibrated(answers, torch.arange(N_ROWS // 2), monkeypatch)
    assert first == pytest.approx(3, rel=0.05)
    assert last == pytest.approx(0.5, rel=0.05)
    assert of_class == [1, 1]


def test_it_holds_for_other_rows(
    answers: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = torch.tensor(calibrated(answers, torch.arange(N_ROWS // 2), monkeypatch))
    prediction, std, truth = (part[N_ROWS // 2 :] for part in answers)
    found = coverage(prediction, std * scale, truth, [NUMBER, CLASS, OTHER])
    assert list(found) == ["a", "c"]
    for name in found:
        assert [found[name][f"{level:.4g}"] for level in LEVELS] == pytest.approx(LEVELS, abs=0.015)
        assert found[name]["rank_correlation"] > 0.3


@pytest.mark.parametrize("n_rows", [0, 1, 3])
def test_few_rows(
    n_rows: int, answers: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction, std, truth = answers
    rows = torch.arange(1, 1 + n_rows)
    scale = calibrated(answers, rows, monkeypatch)[0]
    relative = (prediction[rows, 0] - truth[rows, 0]).abs() / std[rows, 0]
    assert scale == pytest.approx(relative.max().item() if n_rows else 1.0), (
        "few rows ask for the largest error"
    )


def test_deviations_of_nothing(
    answers: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction, std, truth = answers
    exact = (
        prediction,
        torch.zeros_like(std),
        torch.where(truth.isfinite(), prediction[:, [0, 1, 3]], truth),
    )
    assert calibrated(exact, torch.arange(50), monkeypatch) == [1, 1, 1, 1]


def test_it_is_told() -> None:
    shares = {"0.5": 0.4, "0.6827": 0.71, "0.9": 0.9, "0.95": 0.94, "rank_correlation": 0.5}
    assert (
        format_coverage(shares, "a")
        == "errors of a within 1 and 1.96 std: 71% and 94% (68 % and 95 %)"
    )


def test_rank_correlation_of_one_row() -> None:
    one: Callable[..., Tensor] = torch.ones
    assert math.isnan(coverage(one(1, 1), one(1, 1), one(1, 1), [NUMBER])["a"]["rank_correlation"])
