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
