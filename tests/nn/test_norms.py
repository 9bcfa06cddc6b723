import torch
from torch import nn

from csgcnn.nn.fused import BatchNormFunction
from csgcnn.nn.norms import WeightedBatchNorm


def affine(norm: WeightedBatchNorm | nn.BatchNorm1d, size: int) -> None:
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, size))
        norm.bias.copy_(torch.linspace(-1, 1, size))


def test_it_is_batch_norm_on_repeated_rows() -> None:
    torch.manual_seed(0)
    size, counts = 6, torch.tensor([1, 3, 2, 12, 7, 1])
    ours, theirs = WeightedBatchNorm(size), nn.BatchNorm1d(size).double()
    affine(ours, size), affine(theirs, size)
    for _ in range(3):  # running statistics accumulate
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
        torch.testing.assert_close(
            getattr(ours, name).double(), getattr(theirs, name), rtol=1e-5, atol=1e-6
        )


def test_gradcheck_in_double_precision() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    p = torch.softmax(torch.randn(5, dtype=torch.float64), 0)
    weight = torch.rand(3, dtype=torch.float64, requires_grad=True)
    bias = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *inputs: BatchNormFunction.apply(*inputs, 1e-5)[0], (x, p, weight, bias)
    )


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


def test_a_single_row_that_counts_once_stays_finite() -> None:
    norm = WeightedBatchNorm(3)
    out = norm(torch.ones(1, 3), torch.ones(1))
    assert torch.equal(out, torch.zeros(1, 3))
    assert norm.running_var.isfinite().all()
