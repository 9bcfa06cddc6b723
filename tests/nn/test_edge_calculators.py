import math
from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from csgcnn.config import build

DISTANCE = torch.linspace(0.0, 10.0, 2001)
TINY = torch.finfo(torch.float32).tiny


def test_gaussians_of_cgcnn(composed: Callable[..., DictConfig]) -> None:
    calculator = build(composed("edge_calculator=gaussian").edge_calculator)
    assert calculator.dim == 41
    torch.testing.assert_close(calculator.centre, 0.2 * torch.arange(41.0))
    torch.testing.assert_close(calculator(calculator.centre).diagonal(), torch.ones(41))
    assert calculator(torch.tensor([2.1]))[0, 10].item() == pytest.approx(math.exp(-0.25), rel=1e-5)
    assert not list(calculator.parameters())


def test_the_basis_follows_the_cutoff_of_the_graph(composed: Callable[..., DictConfig]) -> None:
    assert build(composed("edge_calculator=gaussian", "graph.cutoff=6").edge_calculator).dim == 31
    assert build(composed("edge_calculator=rbf", "graph.cutoff=6").edge_calculator).cutoff == 6


def test_gaussians_hold_no_denormal_numbers(composed: Callable[..., DictConfig]) -> None:
    torch.set_flush_denormal(False)  # commands turn it on, which would hide them
    values = build(composed("edge_calculator=gaussian").edge_calculator)(DISTANCE)
    assert values.isfinite().all()
    assert not ((values != 0) & (values.abs() < TINY)).any()


def test_radial_basis_fades_out_smoothly(composed: Callable[..., DictConfig]) -> None:
    calculator = build(composed("edge_calculator=rbf").edge_calculator)
    assert calculator.dim == 32
    distance = DISTANCE.clone().requires_grad_()
    basis = calculator(distance)
    assert not basis[DISTANCE >= 8].any()
    (slope,) = torch.autograd.grad(basis.sum(), distance)
    assert slope.isfinite().all()
    assert slope[(DISTANCE - 8).abs() < 0.02].abs().max() < 0.05 * slope.abs().max()
    assert (basis[1:] - basis[:-1]).abs().max() < 0.05, "steps of 0.005 Å change little"


def test_radial_basis_is_its_formula_and_learns(composed: Callable[..., DictConfig]) -> None:
    calculator = build(composed("edge_calculator=rbf").edge_calculator)
    d, k, alpha = 2.345, 9, 5 / 8
    centre, width = calculator.centre[k].item(), calculator.log_width[k].exp().item()
    envelope = (1 + math.cos(math.pi * d / 8)) / 2
    expected = envelope * math.exp(-width * (math.exp(-alpha * d) - centre) ** 2)
    assert calculator(torch.tensor([d]))[0, k].item() == pytest.approx(expected, rel=1e-5)
    assert centre == pytest.approx(math.exp(-5) + (1 - math.exp(-5)) * k / 31, rel=1e-5)

    calculator(torch.linspace(0.5, 7.5, 50)).square().sum().backward()
    assert {name for name, _ in calculator.named_parameters()} == {"centre", "log_width"}
    assert all(parameter.grad.abs().min() > 0 for parameter in calculator.parameters())


@pytest.mark.parametrize("option", ["gaussian", "rbf"])
def test_a_learnable_calculator_gives_its_embedding(option: str, composed: Callable[..., DictConfig]) -> None:
    words = (f"edge_calculator={option}", "edge_calculator.learnable=true", "edge_calculator.embedding=24")
    calculator = build(composed(*words).edge_calculator)
    assert calculator.dim == 24
    assert calculator(DISTANCE).shape == (len(DISTANCE), 24)
