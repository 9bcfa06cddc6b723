"""Learning-rate schedules.

Each function receives the optimizer and the number of steps of the training.
"""

import math
from typing import Annotated

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from csgcnn.config.settings import Setting

Warmup = Annotated[float, Setting("Fraction of the steps with a rising rate.", at_least=0, below=1)]


def one_cycle(
    optimizer: Optimizer,
    n_steps: int,
    warmup: Warmup = 0.2,
) -> LRScheduler:
    """Build a schedule that rises to the learning rate and falls to zero (Smith & Topin 2018).

    Args:
        optimizer: The optimizer.
        n_steps: Steps of the training.
        warmup: Fraction of the steps with a rising rate.
    """
    peak = [group["lr"] for group in optimizer.param_groups]
    length = n_steps + 1
    if warmup * length == 1:
        # OneCycleLR would divide by the length of the rise, which is 0 steps
        warmup *= 1 + 1e-9
    return OneCycleLR(
        optimizer, max_lr=peak, total_steps=length, pct_start=warmup, cycle_momentum=False
    )


def cosine(
    optimizer: Optimizer,
    n_steps: int,
    warmup: Warmup = 0.05,
) -> LRScheduler:
    """Build a schedule with a linear rise and half a cosine to zero (Loshchilov & Hutter 2017).

    Args:
        optimizer: The optimizer.
        n_steps: Steps of the training.
        warmup: Fraction of the steps with a rising rate.
    """
    n_warmup = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / n_warmup
        return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))

    return LambdaLR(optimizer, factor)


def step(
    optimizer: Optimizer,
    n_steps: int,
    at: Annotated[
        float, Setting("Fraction of the steps after which the rate changes.", at_least=0, below=1)
    ] = 0.8,
    factor: Annotated[float, Setting("Factor of the learning rate.", above=0)] = 0.1,
) -> LRScheduler:
    """Build a schedule that multiplies the learning rate once.

    Args:
        optimizer: The optimizer.
        n_steps: Steps of the training.
        at: Fraction of the steps after which the rate changes.
        factor: Factor of the learning rate.
    """
    return LambdaLR(optimizer, lambda n_done: factor if n_done >= at * n_steps else 1.0)


def plateau(
    optimizer: Optimizer,
    n_steps: int,
    factor: Annotated[float, Setting("Factor of the learning rate.", above=0)] = 0.5,
    patience: Annotated[
        int, Setting("Epochs without improvement before the rate changes.", at_least=1)
    ] = 20,
) -> ReduceLROnPlateau:
    """Build a schedule that reduces the rate when the validation loss no longer improves.

    Args:
        optimizer: The optimizer.
        n_steps: Steps of the training; not used.
        factor: Factor of the learning rate.
        patience: Epochs without improvement before the rate changes.
    """
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience)


def constant(optimizer: Optimizer, n_steps: int) -> LRScheduler:
    """Build a schedule that keeps the learning rate.

    Args:
        optimizer: The optimizer.
        n_steps: Steps of the training; not used.
    """
    return LambdaLR(optimizer, lambda n_done: 1.0)
