"""Learning-rate schedules, each told the length of the training."""

import math
from typing import Annotated

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from csgcnn.config.settings import Setting


def one_cycle(
    optimizer: Optimizer,
    n_steps: int,
    warmup: Annotated[
        float, Setting("Fraction of the steps with a rising rate.", at_least=0, below=1)
    ] = 0.2,
) -> LRScheduler:
    """Rise to the optimizer's learning rate over `warmup` of the steps, then fall to nothing (Smith & Topin 2018)."""
    peak = [group["lr"] for group in optimizer.param_groups]
    length = n_steps + 1
    if warmup * length == 1:  # a rise of no step, by whose length OneCycleLR would divide
        warmup *= 1 + 1e-9
    return OneCycleLR(
        optimizer, max_lr=peak, total_steps=length, pct_start=warmup, cycle_momentum=False
    )


def cosine(
    optimizer: Optimizer,
    n_steps: int,
    warmup: Annotated[
        float, Setting("Fraction of the steps with a rising rate.", at_least=0, below=1)
    ] = 0.05,
) -> LRScheduler:
    """Linear rise over `warmup` of the steps, then half a cosine to zero (Loshchilov & Hutter 2017)."""
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
    """Multiply by `factor` once, after the fraction `at` of the steps."""
    return LambdaLR(optimizer, lambda done: factor if done >= at * n_steps else 1.0)


def plateau(
    optimizer: Optimizer,
    n_steps: int,
    factor: Annotated[float, Setting("Factor of the learning rate.", above=0)] = 0.5,
    patience: Annotated[
        int, Setting("Epochs without improvement before the rate changes.", at_least=1)
    ] = 20,
) -> ReduceLROnPlateau:
    """Multiply by `factor` whenever the validation loss has not improved for `patience` epochs."""
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience)


def constant(optimizer: Optimizer, n_steps: int) -> LRScheduler:
    """Leave the learning rate alone."""
    return LambdaLR(optimizer, lambda step: 1.0)
