import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from csgcnn.training.schedulers import constant, cosine, one_cycle, plateau, step

N_STEPS, PEAK = 200, 0.01


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)


def learning_rates(make: Callable[..., LRScheduler], **options: float) -> list[float]:
    chosen = optimizer()
    scheduler = make(chosen, N_STEPS, **options)
    rates = []
    for _ in range(N_STEPS):
        rates.append(chosen.param_groups[0]["lr"])
        chosen.step()
        scheduler.step()
    return rates


def test_one_cycle() -> None:
    rates = learning_rates(one_cycle, warmup=0.25)
    assert rates[0] == pytest.approx(PEAK / 25)
    assert max(rates) == pytest.approx(PEAK, rel=1e-3)
    assert rates.index(max(rates)) == pytest.approx(0.25 * N_STEPS, abs=2)
    assert 0 < rates[-1] < 1e-3 * PEAK


def test_cosine() -> None:
    rates = learning_rates(cosine, warmup=0.1)
    assert rates[:20] == pytest.approx([PEAK * (step + 1) / 20 for step in range(20)])
    assert rates[110] == pytest.approx(PEAK / 2)
    assert rates[20:] == pytest.approx(
        [PEAK * (1 + math.cos(math.pi * s / 180)) / 2 for s in range(180)]
    )


def test_step() -> None:
    assert learning_rates(step, at=0.75, factor=0.1) == pytest.approx(
        [PEAK] * 150 + [PEAK / 10] * 50
    )


@pytest.mark.parametrize("make", [one_cycle, cosine])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 0.9])
def test_a_schedule_of_any_length_rises_then_falls(
    make: Callable[..., LRScheduler], warmup: float
) -> None:
    for n_steps in range(1, 41):
        chosen = optimizer()
        scheduler = make(chosen, n_steps, warmup=warmup)
        rates = []
        for _ in range(n_steps):
            rates.append(chosen.param_groups[0]["lr"])
            chosen.step()
            scheduler.step()
        assert all(0 < rate <= PEAK * (1 + 1e-6) for rate in rates), (n_steps, rates)
        assert n_steps < 3 or max(rates) > 0.3 * PEAK, (n_steps, rates)
        rising = [a < b for a, b in pairwise(rates)]
        assert rising == sorted(rising, reverse=True), "up, then down"


def test_plateau_and_constant() -> None:
    chosen = optimizer()
    scheduler = plateau(chosen, N_STEPS, factor=0.1, patience=2)
    rates = []
    for loss in [3.0, 2.0, 2.0, 2.0, 2.0, 1.0]:
        scheduler.step(loss)
        rates.append(chosen.param_groups[0]["lr"])
    assert rates == pytest.approx([PEAK] * 4 + [PEAK / 10] * 2)
    assert set(learning_rates(constant)) == {PEAK}
