"""Split-conformal intervals."""

import math

import pytest
import torch

from csgcnn.errors import ConfigError
from csgcnn.evaluation.conformal import conformal_scores, conformal_width


def test_width_is_the_score_of_the_conformal_rank():
    scores = torch.arange(1.0, 10.0)
    assert conformal_width(scores, 0.9) == 9
    assert conformal_width(scores, 0.5) == 5
    assert conformal_width(scores, 0.41) == 5


def test_level_that_needs_more_labels_is_refused():
    with pytest.raises(ConfigError, match=r"level=0\.95 needs 19 calibration labels"):
        conformal_width(torch.arange(18.0), 0.95)
    assert conformal_width(torch.arange(19.0), 0.95) == 18


@pytest.mark.parametrize("level", [0.0, 1.0, math.nan])
def test_level_outside_its_range_is_refused(level: float):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        conformal_width(torch.arange(9.0), level)


def test_scores_are_sorted_relative_errors_of_the_known_labels():
    error, std = torch.tensor([-4.0, math.nan, 1.0]), torch.tensor([2.0, 1.0, 1.0])
    assert conformal_scores(error, std).tolist() == [1.0, 2.0]
    assert conformal_scores(error, None).tolist() == [1.0, 4.0]


@pytest.mark.parametrize("level", [0.5, 0.68, 0.9, 0.95])
def test_mean_coverage_of_exchangeable_scores_is_that_of_the_rank(level: float):
    n_repeats, n_calibration, n_new = 400, 40, 100
    drawn = torch.randn(n_repeats, n_calibration + n_new, generator=torch.manual_seed(0)).abs()
    widths = [conformal_width(row[:n_calibration].sort().values, level) for row in drawn]
    covered = (drawn[:, n_calibration:] <= torch.tensor(widths)[:, None]).float().mean()
    # The covered number of new rows has a beta-binomial distribution.
    rank = math.ceil((n_calibration + 1) * level)
    a, b = rank, n_calibration + 1 - rank
    expected = a / (a + b)
    variance = expected * (1 - expected) * (a + b + n_new) / (n_new * (a + b + 1))
    assert abs(float(covered) - expected) < 3 * math.sqrt(variance / n_repeats)
