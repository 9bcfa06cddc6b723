import pytest
import torch
from torch import nn

from csgcnn.nn.norms import LayerNorm, WeightedBatchNorm, make_norm


def set_affine(norm: WeightedBatchNorm | nn.BatchNorm1d, size: int) -> None:
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, size))
        norm.bias.copy_(torch.linspace(-1, 1, size))


def test_a_weighted_batch_norm_is_a_batch_norm_of_repeated_rows() -> None:
    torch.manual_seed(0)
    size, counts = 6, torch.tensor([1, 3, 2, 12, 7, 1])
    ours, theirs = WeightedBatchNorm(size), nn.BatchNorm1d(size).double()
    set_affine(ours, size), set_affine(theirs, size)
    # Several batches, because running statistics accumulate.
    for _ in range(3):
        x = torch.randn(len(counts), size) * 3 + 5
        direction = torch.randn(len(counts), size)
        x_ours, x_theirs = x.clone().requires_grad_(), x.double().requires_grad_()
        out = ours(x_ours, counts.float())
        expected = theirs(x_theirs.repeat_interleave(counts, 0))
        torch.testing.assert_close(
            out.repeat_interleave(counts, 0).double(), expected, rtol=1e-5, atol=1e-5
        )
        ours.zero_grad(), theirs.zero_grad()
        (out * direction * counts.unsqueeze(1)).sum().backward()
        (expected * direction.double().repeat_interleave(counts, 0)).sum().backward()
        torch.testing.assert_close(x_ours.grad.double(), x_theirs.grad, rtol=1e-4, atol=1e-5)
        for name in ("weight", "bias"):
            found, wanted = getattr(ours, name).grad.double(), getattr(theirs, name).grad
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    for name in ("running_mean", "running_var"):
        found, wanted = getattr(ours, name).double(), getattr(theirs, name)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_in_evaluation_a_row_does_not_depend_on_its_batch() -> None:
    norm = WeightedBatchNorm(4)
    norm(torch.randn(20, 4) * 2 + 1, torch.ones(20))
    norm.eval()
    before = norm.running_mean.clone()
    x = torch.randn(10, 4)
    together = norm(x, torch.arange(1.0, 11.0))
    alone = torch.cat([norm(row, torch.ones(1)) for row in x.split(1)])
    assert torch.equal(together, alone)
    assert torch.equal(norm.running_mean, before)
    expected = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(together, expected)


def test_a_batch_of_one_row_stays_finite() -> None:
    norm = WeightedBatchNorm(3)
    out = norm(torch.ones(1, 3), torch.ones(1))
    assert torch.equal(out, torch.zeros(1, 3))
    assert norm.running_var.isfinite().all()


def test_a_batch_without_rows_leaves_the_running_statistics() -> None:
    norm = WeightedBatchNorm(3)
    assert norm(torch.ones(0, 3), torch.ones(0)).shape == (0, 3)
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert torch.equal(norm.running_var, torch.ones(3))


def test_the_other_norms_ignore_the_weights() -> None:
    x = torch.randn(5, 4)
    weight = torch.arange(1.0, 6.0)
    assert torch.equal(make_norm("none", 4)(x, weight), x)
    layer = make_norm("layer", 4)
    assert isinstance(layer, LayerNorm)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(layer(x, weight), expected)


def test_an_unknown_norm_is_named() -> None:
    with pytest.raises(ValueError, match=r"norm=instance: expected one of batch, layer, none"):
        make_norm("instance", 4)
