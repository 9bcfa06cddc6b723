"""Test the metrics of targets with a grid, and the simple models that they are compared with."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from csgcnn.data.targets import Target
from csgcnn.evaluation.baselines import baseline_metrics, composition_metrics, simple_metrics
from csgcnn.evaluation.metrics import target_metrics
from csgcnn.evaluation.number_metrics import wasserstein_distances

NAN = float("nan")
GRID = (0.0, 1.0, 3.0, 4.0)
DOS = Target("dos", "states/eV", grid=GRID)


def test_closed_forms_leave_missing_points_out() -> None:
    truth = torch.tensor([[0.0, 2, NAN, 4], [2, 2, NAN, 0], [NAN] * 4])
    prediction = truth.nan_to_num(99.0) + torch.tensor([1.0, -2, 50, 0])
    found = target_metrics(prediction, truth, [DOS])["dos"]
    assert found["n"] == 2
    assert found["mae"] == pytest.approx(1)
    assert found["rmse"] == pytest.approx(math.sqrt(10 / 6))
    assert found["r2"] == pytest.approx(1 - 10 / 10)


def test_a_prediction_that_is_not_finite_is_not_left_out() -> None:
    truth = torch.tensor([[0.0, 2, NAN, 4], [2, 2, NAN, 0]])
    prediction = truth.clone()
    prediction[0, 0] = NAN
    found = target_metrics(prediction, truth, [DOS])["dos"]
    assert all(math.isnan(found[name]) for name in ("mae", "rmse", "r2"))


def test_the_mean_list_has_the_coefficient_zero() -> None:
    values = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    assert baseline_metrics(values, values, [DOS])["dos"]["r2"] == pytest.approx(0, abs=1e-6)


def test_wasserstein_distances_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    prediction, truth = rng.random((5, 4)), rng.random((5, 4))
    truth[1, 2] = np.nan
    found = wasserstein_distances(*map(torch.from_numpy, (prediction, truth)), torch.tensor(GRID))
    for row, distance in enumerate(found.tolist()):
        known = np.isfinite(truth[row])
        points = np.array(GRID)[known]
        weights = (prediction[row, known], truth[row, known])
        assert distance == pytest.approx(wasserstein_distance(points, points, *weights))


def test_a_list_of_zeros_has_no_distance() -> None:
    zeros, ones = torch.zeros(1, 4), torch.ones(1, 4)
    assert wasserstein_distances(ones, zeros, torch.tensor(GRID)).isnan().all()
    assert math.isnan(target_metrics(ones, zeros, [DOS])["dos"]["wasserstein"])


def test_a_prediction_without_weight_has_the_largest_distance() -> None:
    grid, truth = torch.tensor(GRID), torch.ones(2, 4)
    prediction = torch.stack([-torch.ones(4), torch.ones(4)])
    assert wasserstein_distances(prediction, truth, grid).tolist() == [GRID[-1] - GRID[0], 0]


def test_the_nearest_training_composition_predicts_its_list() -> None:
    features = torch.tensor([[0.0, 0], [5, 5], [9, 9], [4.5, 5]]).double()
    values = torch.arange(16.0).view(4, 4)
    values[3, 1] = NAN
    rows = {"train": [0, 1, 2], "val": [], "test": [3]}
    split = {part: torch.tensor(of_part, dtype=torch.long) for part, of_part in rows.items()}
    error = (values[1] - values[3]).abs().nanmean().item()
    found = simple_metrics(features, values, split, [DOS])["nearest"]
    assert found["dos"]["mae"] == pytest.approx(error)


def test_the_composition_predicts_lists_that_are_linear_in_it() -> None:
    features = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)).double()
    values = (features @ torch.tensor([[1.0, 2, 3, 4]] * 3).double()).float()
    values[5, 0] = NAN
    parts = torch.arange(200).split([160, 20, 20])
    split = dict(zip(("train", "val", "test"), parts, strict=True))
    found = composition_metrics(features, values, split, [DOS])["dos"]
    assert found["r2"] > 0.99
