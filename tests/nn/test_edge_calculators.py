import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from csgcnn.config.instantiate import instantiate
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore

DISTANCE = torch.linspace(0.0, 10.0, 2001)
TINY = torch.finfo(torch.float32).tiny
OPTIONS = ["gaussian", "rbf", "pair_gaussian", "screened", "bessel"]
ENVELOPED = ["rbf", "screened", "bessel"]
TRAINED = {
    "rbf": {"center", "log_width"},
    "pair_gaussian": {"scale"},
    "screened": {"kappa"},
    "bessel": {"frequency"},
}
Composed = Callable[..., DictConfig]
Edges = Callable[..., GraphBatch]


@pytest.fixture
def edges(structures: list[Any], pack: Callable[..., GraphStore]) -> Callable[..., GraphBatch]:
    """Build edges of the given distances between two atoms."""
    graph = pack(structures[:1]).batch(torch.arange(1))

    def of(distance: Tensor, neighbor: int = 8, center: int = 26) -> GraphBatch:
        edge_index = torch.tensor([[0], [1]]).expand(2, len(distance))
        return replace(
            graph,
            atomic_number=torch.tensor([neighbor, center]),
            edge_index=edge_index,
            distance=distance,
        )

    return of


@pytest.fixture
def calculator(composed: Composed) -> Callable[..., Any]:
    """Build an edge calculator from its option and overrides."""
    return lambda option, *overrides: instantiate(
        composed(f"edge_calculator={option}", *overrides).edge_calculator
    )


def test_the_gaussian_expansion_is_that_of_cgcnn(
    calculator: Callable[..., Any], edges: Edges
) -> None:
    gaussian = calculator("gaussian")
    assert gaussian.dim == 41
    torch.testing.assert_close(gaussian.center, 0.2 * torch.arange(41.0))
    torch.testing.assert_close(gaussian(edges(gaussian.center)).diagonal(), torch.ones(41))
    assert gaussian(edges(torch.tensor([2.1])))[0, 10].item() == pytest.approx(
        math.exp(-0.25), rel=1e-5
    )
    assert not list(gaussian.parameters())


@pytest.mark.parametrize("option", OPTIONS)
def test_the_basis_follows_the_cutoff_of_the_graph(
    option: str, calculator: Callable[..., Any], edges: Edges
) -> None:
    made = calculator(option, "graph.cutoff=6")
    if option in ENVELOPED:
        assert made.cutoff == 6
        assert not made(edges(torch.tensor([6.0, 7.0]))).any()
        assert made(edges(torch.tensor([5.9]))).any()
    else:
        assert made.dim == 31
        assert made.center[-1].item() == pytest.approx(6)


@pytest.mark.parametrize("option", OPTIONS)
def test_values_are_never_denormal_numbers(
    option: str, calculator: Callable[..., Any], edges: Edges
) -> None:
    # From 0.1 Å on, because 1/d has a pole.
    values = calculator(option)(edges(DISTANCE[20:]))
    assert values.isfinite().all()
    assert not ((values != 0) & (values.abs() < TINY)).any()


@pytest.mark.parametrize("option", OPTIONS)
def test_real_crystals_and_the_shortest_bond_give_finite_features(
    option: str,
    calculator: Callable[..., Any],
    structures: list[Any],
    pack: Callable[..., GraphStore],
) -> None:
    hydrogen = {
        "lattice": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
        "species": ["H", "H"],
        "frac_coords": [[0, 0, 0], [0.185, 0, 0]],
    }
    graph = pack([*structures, hydrogen]).batch(torch.arange(len(structures) + 1))
    values = calculator(option)(graph)
    assert graph.distance.min().item() == pytest.approx(0.74)
    assert values.shape == (len(graph.distance), calculator(option).dim)
    assert values.isfinite().all()
    assert values[graph.distance.argmin()].abs().max() > 0.1


@pytest.mark.parametrize("option", ENVELOPED)
def test_the_features_vanish_smoothly_at_the_cutoff(
    option: str, calculator: Callable[..., Any], edges: Edges
) -> None:
    # From 0.5 Å on.
    distance = DISTANCE[100:].clone().requires_grad_()
    basis = calculator(option)(edges(distance))
    assert not basis[distance >= 8].any()
    assert basis[distance < 7.9].any(1).all()
    (slope,) = torch.autograd.grad(basis.sum(), distance)
    assert slope.isfinite().all()
    assert slope[(distance - 8).abs() < 0.02].abs().max() < 0.05 * slope.abs().max()
    assert (basis[1:] - basis[:-1]).abs().max() < 0.05


def test_the_radial_basis_follows_its_formula(calculator: Callable[..., Any], edges: Edges) -> None:
    rbf = calculator("rbf")
    assert rbf.dim == 32
    d, k, alpha = 2.345, 9, 5 / 8
    center, width = rbf.center[k].item(), rbf.log_width[k].exp().item()
    envelope = (1 + math.cos(math.pi * d / 8)) / 2
    expected = envelope * math.exp(-width * (math.exp(-alpha * d) - center) ** 2)
    assert rbf(edges(torch.tensor([d])))[0, k].item() == pytest.approx(expected, rel=1e-5)
    assert center == pytest.approx(math.exp(-5) + (1 - math.exp(-5)) * k / 31, rel=1e-5)


def test_the_width_of_a_pair_gaussian_follows_the_atomic_radii(
    calculator: Callable[..., Any], edges: Edges
) -> None:
    pair = calculator("pair_gaussian")
    assert pair.dim == 41
    # Å; center 8 is at 1.6 Å.
    d, k = 2.13, 8
    for (neighbor, center), radii in {
        (8, 14): 0.60 + 1.10,
        (14, 8): 1.10 + 0.60,
        (55, 53): 2.60 + 1.40,
    }.items():
        found = pair(edges(torch.tensor([d]), neighbor, center))[0, k].item()
        assert found == pytest.approx(math.exp(-(((d - 1.6) / (0.1 * radii)) ** 2)), rel=1e-4)
    assert pair.radius[1:].min() > 0.2
    assert pair(edges(pair.center, neighbor=10, center=10)).diagonal().tolist() == pytest.approx(
        [1.0] * 41
    )


def test_the_screened_coulomb_basis_follows_its_formula(
    calculator: Callable[..., Any], edges: Edges
) -> None:
    screened = calculator("screened")
    assert screened.dim == 16
    d = 2.345
    envelope = (1 + math.cos(math.pi * d / 8)) / 2
    expected = [envelope * math.exp(-(0.05 + 1.95 / 15 * k) * d) / d for k in range(16)]
    assert screened(edges(torch.tensor([d])))[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_bessel_basis_follows_its_formula(calculator: Callable[..., Any], edges: Edges) -> None:
    bessel = calculator("bessel")
    assert bessel.dim == 16
    for d in (0.74, 2.345, 7.1):
        x = d / 8
        envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
        expected = [
            envelope * math.sqrt(2 / 8) * math.sin(n * math.pi * d / 8) / d for n in range(1, 17)
        ]
        assert bessel(edges(torch.tensor([d])))[0].tolist() == pytest.approx(
            expected, rel=1e-4, abs=1e-6
        )


@pytest.mark.parametrize("option", TRAINED)
def test_all_constants_of_a_basis_are_trained(
    option: str, calculator: Callable[..., Any], edges: Edges
) -> None:
    made = calculator(option)
    made(edges(torch.linspace(0.5, 7.5, 50))).square().sum().backward()
    assert {name for name, _ in made.named_parameters()} == TRAINED[option]
    assert all(parameter.grad.abs().min() > 0 for parameter in made.parameters())


@pytest.mark.parametrize("option", OPTIONS)
def test_a_learnable_calculator_returns_its_embedding(
    option: str, calculator: Callable[..., Any], edges: Edges
) -> None:
    made = calculator(option, "edge_calculator.learnable=true", "edge_calculator.embedding=24")
    assert made.dim == 24
    assert made(edges(DISTANCE[1:])).shape == (len(DISTANCE) - 1, 24)
