"""Prediction intervals from calibration rows."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError
from csgcnn.evaluation.conformal import (
    ConformalScores,
    check_calibration,
    interval_lines,
    is_plain,
)

GAP, METAL = Target("gap", "eV"), Target("metal", task="classification", classes=("no", "yes"))


def outputs(values: Tensor, std: Tensor | None = None) -> Tensor:
    """Outputs for one target of networks [n_rows, n_networks]."""
    deviations = torch.full_like(values, math.nan) if std is None else std
    return torch.stack([values, deviations], 1).unsqueeze(3)


def scores_of(errors: Tensor, std: Tensor | None = None) -> ConformalScores:
    deviations = None if std is None else std[:, None]
    return ConformalScores.of(outputs(errors[:, None], deviations), 0 * errors[:, None], [GAP])


@pytest.mark.parametrize(("level", "half"), [(0.9, 9), (0.5, 5), (0.41, 5)])
def test_half_of_the_width_is_the_score_of_the_conformal_rank(level: float, half: float) -> None:
    scores = scores_of(torch.arange(-9.0, 0))
    lower, upper = scores.bounds(outputs(torch.tensor([[100.0]])), [GAP], level)
    assert (float(lower), float(upper)) == (100 - half, 100 + half)


def test_intervals_are_proportional_to_the_predicted_deviations() -> None:
    scores = scores_of(torch.tensor([-4.0, 1.0, 3.0]), torch.tensor([2.0, 1.0, 1.0]))
    assert scores.scores["gap"][0].tolist() == [1.0, 2.0, 3.0]
    lower, upper = scores.bounds(
        outputs(torch.zeros(2, 1), torch.tensor([[1.0], [5.0]])), [GAP], 0.5
    )
    assert (upper[:, 0].tolist(), lower[:, 0].tolist()) == ([2.0, 10.0], [-2.0, -10.0])


def test_classes_have_no_bounds_and_unknown_labels_no_score() -> None:
    values = torch.tensor([[1.0, 0.2, 0.8], [2.0, 0.5, 0.5]])
    both = torch.stack([values, torch.full_like(values, math.nan)], 1).unsqueeze(2)
    truth = torch.tensor([[1.5, 1.0], [math.nan, 0.0]])
    scores = ConformalScores.of(both, truth, [GAP, METAL])
    assert scores.n_labels == {"gap": 1}
    lower, upper = scores.bounds(both, [GAP, METAL], 0.5)
    assert lower[:, 0].tolist() == [0.5, 1.5]
    assert upper[:, 1:].isnan().all()


def test_a_prediction_that_is_not_finite_has_the_largest_score() -> None:
    values = torch.tensor([[1.0], [math.nan], [2.0]])
    both = torch.stack([values, torch.full_like(values, math.nan)], 1).unsqueeze(2)
    scores = ConformalScores.of(both, torch.ones(3, 1), [GAP])
    assert scores.scores["gap"][0].tolist() == [0, 1, torch.finfo(torch.float32).max]


def test_a_level_that_needs_more_labels_is_refused() -> None:
    of_18, of_19 = (scores_of(torch.arange(-float(n), 0)) for n in (18, 19))
    new = outputs(torch.zeros(1, 1))
    with pytest.raises(ConfigError, match=r"level=0\.95 needs 19 calibration labels of gap, and"):
        of_18.bounds(new, [GAP], 0.95)
    assert float(of_19.bounds(new, [GAP], 0.95)[1]) == 19
    for level in (0, 1, math.nan):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            of_19.bounds(new, [GAP], level)


def test_too_few_calibration_labels_are_refused() -> None:
    values = torch.tensor([[1.0, 0.0]] * 8 + [[math.nan, 1.0]])
    with pytest.raises(
        ConfigError, match="8 calibration rows have a label of gap, expected at lea"
    ):
        check_calibration(values, [GAP, METAL])
    with pytest.raises(ConfigError, match="no effect on classes"):
        check_calibration(values[:, 1:], [METAL])
    with pytest.raises(ConfigError, match="no effect on dos, which has a grid"):
        check_calibration(torch.ones(9, 2), [Target("dos", grid=(0.0, 1.0))])
    check_calibration(values.nan_to_num(2.0), [GAP, METAL])


def test_cv_plus_has_the_ranks_of_its_definition() -> None:
    """Barber et al. 2021: ranks ⌈(1 - α)(n + 1)⌉ and ⌊α(n + 1)⌋ of μ₋ₖ(x) ± R of all n rows."""
    generator = torch.Generator().manual_seed(0)
    sizes, level = [7, 12, 0, 9], 0.8
    errors = [torch.rand(n, generator=generator) for n in sizes]
    scores = ConformalScores.joined([scores_of(error) for error in errors])
    assert scores.n_networks == 4
    centers = torch.randn(50, 4, generator=generator)
    lower, upper = scores.bounds(outputs(centers), [GAP], level)
    n = sum(sizes)
    high, low = math.ceil(level * (n + 1)), math.floor((1 - level) * (n + 1))
    for row, mu in enumerate(centers.double()):
        of_folds = list(zip(mu, errors, strict=True))
        above = np.sort(torch.cat([m + error for m, error in of_folds]).numpy())
        below = np.sort(torch.cat([m - error for m, error in of_folds]).numpy())
        assert float(upper[row]) == pytest.approx(above[high - 1], rel=1e-6)
        assert float(lower[row]) == pytest.approx(below[low - 1], rel=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.68, 0.9, 0.95])
def test_mean_coverage_of_exchangeable_rows_is_that_of_the_rank(level: float) -> None:
    n_repeats, n_rows, n_new = 300, 40, 100
    drawn = torch.randn(n_repeats, n_rows + n_new, generator=torch.manual_seed(0))
    found = []
    for row in drawn:
        scores, center = scores_of(row[:n_rows]), outputs(torch.zeros(n_new, 1))
        lower, upper = scores.bounds(center, [GAP], level)
        new = row[n_rows:, None]
        found.append(((lower <= new) & (new <= upper)).double().mean())
    # The number of new values in an interval has a beta-binomial distribution.
    rank = math.ceil((n_rows + 1) * level)
    a, b = rank, n_rows + 1 - rank
    expected = a / (a + b)
    variance = expected * (1 - expected) * (a + b + n_new) / (n_new * (a + b + 1))
    assert abs(np.mean(found) - expected) < 3 * math.sqrt(variance / n_repeats)


def test_coverage_is_that_of_the_levels_with_enough_labels() -> None:
    scores = scores_of(torch.arange(1.0, 11))
    new = torch.tensor([[0.0], [6.0], [-7.5], [20.0], [math.nan]])
    found = scores.coverage(outputs(torch.zeros(5, 1)), new, [GAP])
    assert found == {"gap": {"0.5": 0.5, "0.6827": 0.75, "0.9": 0.75}}
    (line,) = interval_lines({"intervals": found, "interval_labels": scores.n_labels})
    assert line.startswith("50, 68 and 90 % intervals of gap hold 50, 75 and 75 % of the values")
    assert line.endswith("(10 calibration labels)")


def test_stored_scores_are_checked() -> None:
    scores = scores_of(torch.arange(9.0))
    assert is_plain(scores.plain())
    assert not is_plain({"gap": [torch.tensor([2.0, 1.0])]})
    assert not is_plain({"gap": [torch.tensor([1.0, math.nan])]})
    assert not is_plain({"gap": []})
    assert ConformalScores.from_plain(scores.plain(), [GAP], 3) is not None
    for targets, plain in (([METAL], scores.plain()), ([GAP], {"gap": [torch.ones(2)] * 2})):
        with pytest.raises(ValueError, match="other targets or networks"):
            ConformalScores.from_plain(plain, targets, 3)
