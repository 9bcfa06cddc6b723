"""Test that the options of the group `optimizer` do the steps of their published formulas.

θ is a parameter, g its gradient and λ the weight decay. All examples start at θ = 2 with constant
gradients.
"""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from csgcnn.config.compose import compose
from csgcnn.config.instantiate import instantiate

START = 2.0


def optimizer_of(
    option: str, parameter: torch.nn.Parameter, *overrides: str
) -> torch.optim.Optimizer:
    cfg = compose("train", [f"optimizer={option}", *overrides])
    return instantiate(cfg.optimizer)([parameter])


def steps(option: str, gradients: Sequence[float], *overrides: str) -> list[float]:
    """Return the parameter after a step with each of the gradients."""
    parameter = torch.nn.Parameter(torch.tensor([START], dtype=torch.float64))
    optimizer, found = optimizer_of(option, parameter, *overrides), []
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        found.append(parameter.item())
    return found


@pytest.mark.parametrize(
    ("option", "kind", "keys"),
    [
        ("adam", torch.optim.Adam, {"lr": 1e-3, "fused": True, "weight_decay": 0}),
        ("adamw", torch.optim.AdamW, {"lr": 5e-3, "fused": True, "weight_decay": 0.01}),
        ("sgd", torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "weight_decay": 0}),
    ],
)
def test_an_option_is_the_class_of_torch_with_its_keys(
    option: str, kind: type, keys: dict[str, Any]
) -> None:
    optimizer = optimizer_of(option, torch.nn.Parameter(torch.zeros(1)))
    assert type(optimizer) is kind
    assert {name: optimizer.param_groups[0][name] for name in keys} == keys


def test_sgd_accumulates_a_momentum() -> None:
    # v = μ v + g, θ = θ - lr v
    found = steps("sgd", [0.5, 0.5], "optimizer.lr=0.1", "optimizer.momentum=0.8")
    assert found == pytest.approx([START - 0.1 * 0.5, START - 0.1 * 0.5 * (1 + 1.8)])
    without = steps("sgd", [0.5, 0.5], "optimizer.lr=0.1", "optimizer.momentum=0")
    assert without == pytest.approx([START - 0.05, START - 0.1])


def test_adam_divides_the_mean_gradient_by_its_root_mean_square() -> None:
    # Kingma & Ba, ICLR 2015: with β₁ = 0.9, β₂ = 0.999, and bias-corrected moments
    lr, gradients = 0.1, [0.5, -0.2]
    m = (0.9 * 0.1 * gradients[0] + 0.1 * gradients[1]) / (1 - 0.9**2)
    v = (0.999 * 0.001 * gradients[0] ** 2 + 0.001 * gradients[1] ** 2) / (1 - 0.999**2)
    first = START - lr * 0.5 / (0.5 + 1e-8)
    expected = [first, first - lr * m / (math.sqrt(v) + 1e-8)]
    assert steps("adam", gradients, f"optimizer.lr={lr}") == pytest.approx(expected)


def test_adamw_decays_a_weight_separately_from_its_gradient() -> None:
    # Loshchilov & Hutter, ICLR 2019: θ = θ - lr λ θ, followed by a step of Adam
    lr, decay = 0.1, 0.3
    keys = (f"optimizer.lr={lr}", f"optimizer.weight_decay={decay}")
    for gradient in (0.5, 50.0):
        expected = START * (1 - lr * decay) - lr
        assert steps("adamw", [gradient], *keys) == pytest.approx([expected])
    assert steps("adamw", [0.0], *keys) == pytest.approx([START * (1 - lr * decay)])
