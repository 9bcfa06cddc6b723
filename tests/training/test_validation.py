import math

import pytest

from csgcnn.data.targets import Target
from csgcnn.training.validation import shown_metrics, validation_score

GAP, KIND = Target("gap", "eV"), Target("kind", task="classification", classes=("a", "b"))


def test_the_score_is_the_mean_of_relative_mae_and_cross_entropy() -> None:
    metrics = {"gap": {"mae": 0.6}, "kind": {"cross_entropy": 0.7, "balanced_accuracy": 0.9}}
    assert validation_score(metrics, [GAP, KIND], [2.0, 1.0]) == pytest.approx((0.3 + 0.7) / 2)
    assert shown_metrics(metrics, [GAP, KIND]) == {
        "val_mae_gap": 0.6,
        "val_balanced_accuracy_kind": 0.9,
        "val_cross_entropy_kind": 0.7,
    }


def test_targets_without_known_values_are_left_out_of_the_score() -> None:
    metrics = {"gap": {"mae": math.nan}, "kind": {"cross_entropy": 0.7}}
    assert validation_score(metrics, [GAP, KIND], [2.0, 1.0]) == 0.7
    assert math.isnan(validation_score(metrics, [GAP], [2.0]))
