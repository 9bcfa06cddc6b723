"""The moving average of a model in training."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class ExponentialMovingAverage(nn.Module):
    """Exponential moving average of weights and buffers, whose memory grows with the steps taken, up to `decay`.

    That of `torch.optim.swa_utils.AveragedModel`, whose counter lies on the device and stops the queue when it is read.
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = deepcopy(model)
        self.decay = decay
        self.register_buffer("n_averaged", torch.tensor(0))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the present `model`; the first time, become it."""
        steps = int(self.n_averaged)
        decay = min(self.decay, (1 + steps) / (10 + steps)) if steps else 0.0
        averaged, current = ([*one.parameters(), *one.buffers()] for one in (self.module, model))
        torch._foreach_lerp_(averaged, current, 1 - decay)
        self.n_averaged += 1
