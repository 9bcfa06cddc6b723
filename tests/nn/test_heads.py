import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from csgcnn.nn.heads import Head, TargetScaler

NAN = float("nan")


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_a_head_alternates_layers_and_activations(n_layers: int) -> None:
    head = Head([5, *[7] * n_layers], n_outputs=2, activation="softplus")
    x = torch.randn(4, 5)
    expected = F.softplus(x)
    for layer in head.layers:
        expected = F.softplus(expected @ layer.weight.T + layer.bias)
    torch.testing.assert_close(head(x), expected @ head.out.weight.T + head.out.bias)
    assert head(x).shape == (4, 2)
    assert len(head.layers) == n_layers


def test_the_scaler_ignores_missing_labels() -> None:
    scaler = TargetScaler([1, 1, 1])
    targets = torch.tensor([[1.0, NAN, 4.0], [3.0, 10.0, 4.0], [5.0, 30.0, 4.0], [NAN, 50.0, 4.0]])
    scaler.fit(targets)
    torch.testing.assert_close(scaler.mean, torch.tensor([3.0, 30.0, 4.0]))
    torch.testing.assert_close(scaler.std, torch.tensor([(8 / 3) ** 0.5, (800 / 3) ** 0.5, 1.0]))
    standardized = scaler.standardize(targets)
    assert standardized.isnan().equal(targets.isnan())
    assert not standardized[:, 2].any(), "a constant target leaves nothing to learn"
    torch.testing.assert_close(scaler(standardized), targets, equal_nan=True)


def test_the_scaler_resolves_targets_of_small_numbers() -> None:
    scaler = TargetScaler([1])
    scaler.fit(torch.tensor([[1e-6], [3e-6]]))
    assert scaler.std.item() == pytest.approx(1e-6, rel=1e-4)


def test_the_scaler_turns_logits_into_probabilities_and_leaves_class_numbers() -> None:
    scaler = TargetScaler([3, 1])
    scaler.fit(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    assert torch.equal(scaler.standardize(torch.tensor([[2.0, 5.0]])), torch.tensor([[2.0, 1.0]]))
    outputs = torch.tensor([[1.0, 2.0, 3.0, -1.0, 9.0]])
    expected = torch.cat([outputs[:, :3].softmax(1), torch.tensor([[1.0]])], dim=1)
    torch.testing.assert_close(scaler(outputs), expected)


def test_the_scaler_leaves_classes_as_they_are() -> None:
    scaler = TargetScaler([1, 2, 1])
    targets = torch.tensor([[1.0, 0, 10], [3.0, 1, NAN], [NAN, 1, 30], [5.0, NAN, NAN]])
    scaler.fit(targets)
    torch.testing.assert_close(scaler.mean, torch.tensor([3.0, 0, 20]))
    torch.testing.assert_close(scaler.std, torch.tensor([math.sqrt(8 / 3), 1, 10]))
    torch.testing.assert_close(scaler.standardize(targets)[:, 1], targets[:, 1], equal_nan=True)
    answer = scaler(torch.tensor([[0.0, 1.0, 1.0, 2.0], [1.0, 0.0, math.log(3), 0.0]]))
    expected = [[3, 0.5, 0.5, 40], [3 + math.sqrt(8 / 3), 0.25, 0.75, 20]]
    torch.testing.assert_close(answer, torch.tensor(expected))
    assert list(scaler.state_dict()) == ["mean", "std"]


@pytest.mark.parametrize(
    "magnitude", [2.0**power for power in (-100, -40, 0, 40, 100, 119)], ids="{:.0e}".format
)
def test_standardized_targets_do_not_depend_on_the_unit(magnitude: float) -> None:
    plain, scaled = TargetScaler([1]), TargetScaler([1])
    values = torch.tensor([0.5, 1.25, 3.0, 7.0, 2.0, 1.0]).unsqueeze(1)
    plain.fit(values)
    scaled.fit(values * magnitude)
    standardized = scaled.standardize(values * magnitude)
    assert torch.equal(standardized, plain.standardize(values)), "powers of two lose no digit"
    assert torch.equal(scaled(standardized), plain(plain.standardize(values)) * magnitude)


@pytest.mark.parametrize("value", [0.0, 3.7, -1e-12, 1e30, 123456.7])
@pytest.mark.parametrize("n_rows", [1, 2, 37])
def test_the_scaler_of_equal_values_has_std_1(value: float, n_rows: int) -> None:
    scaler, values = TargetScaler([1]), torch.full((n_rows, 1), value)
    scaler.fit(values)
    assert scaler.std.item() == 1
    assert not scaler.standardize(values).any()
    assert torch.equal(scaler(torch.zeros(n_rows, 1)), values)


@pytest.mark.parametrize(
    "values",
    [[1e-12, 1e12, 1e30, 2.0], [1.0, 2.0, 3.0, 1e6], [True, False, True, True], [1, 2, 3, -4]],
    ids=["mixed", "outlier", "bool", "int"],
)
def test_the_scaler_has_the_population_std(values: list[float]) -> None:
    scaler, targets = TargetScaler([1]), torch.tensor([[float(value)] for value in values])
    scaler.fit(targets)
    assert scaler.std.item() == pytest.approx(np.std(values), rel=1e-6)
    assert scaler.standardize(targets).abs().max() <= len(values) ** 0.5
    torch.testing.assert_close(
        scaler(scaler.standardize(targets)), targets, atol=1e-6 * max(values), rtol=0
    )


def test_the_points_of_a_grid_have_their_own_means_and_one_standard_deviation() -> None:
    scaler, nan = TargetScaler([1, 1, 1]), float("nan")
    values = torch.tensor([[0.0, 10.0, nan], [2.0, 16.0, nan]])
    scaler.fit(values, [3])
    assert scaler.mean.tolist() == [1, 13, 0]
    assert scaler.std.tolist() == pytest.approx([math.sqrt((1 + 1 + 9 + 9) / 4)] * 3)
    outputs = scaler.standardize(values)
    torch.testing.assert_close(scaler(outputs), values, equal_nan=True)
