import pytest
import torch

from csgcnn.data.targets import Target
from csgcnn.evaluation.reported_metrics import format_domain_metrics, metrics_with_domain

GAP = Target("gap", "eV")
METAL = Target("metal", task="classification", classes=("no", "yes"))


def test_errors_inside_and_outside_the_domain_are_compared() -> None:
    prediction = torch.tensor([[1.0, 0.9, 0.1], [2.0, 0.9, 0.1], [9.0, 0.2, 0.8]])
    truth = torch.tensor([[1.5, 0.0], [2.0, 1.0], [3.0, 1.0]])
    found = metrics_with_domain(prediction, truth, [GAP, METAL], ["", "", "isolated_atoms:1"])
    gap, metal = found["gap"], found["metal"]
    assert gap["n_out_of_domain"] == metal["n_out_of_domain"] == 1
    assert (gap["mae_in_domain"], gap["mae_out_of_domain"]) == (0.25, 6.0)
    assert gap["mae"] == pytest.approx(6.5 / 3)
    assert (metal["accuracy_in_domain"], metal["accuracy_out_of_domain"]) == (0.5, 1.0)
    line = format_domain_metrics(GAP, gap)
    assert line is not None
    assert "1 of 3 crystals" in line
    assert "MAE of gap 6 eV, of the others 0.25 eV" in line


@pytest.mark.parametrize("reason", ["", "isolated_atoms:1"])
def test_without_both_kinds_of_rows_nothing_is_compared(reason: str) -> None:
    truth = torch.tensor([[1.5], [torch.nan]])
    metrics = metrics_with_domain(torch.zeros(2, 1), truth, [GAP], [reason, ""])["gap"]
    assert metrics["n_out_of_domain"] == (1 if reason else 0)
    assert "mae_in_domain" not in metrics
    all_outside = "1 of 1 crystals are out of the domain of the training set"
    assert format_domain_metrics(GAP, metrics) == (all_outside if reason else None)
