"""Exponential moving average of the weights."""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn


class ExponentialMovingAverage(nn.Module):
    r"""Exponential moving average of weights and buffers.

    .. math:: \bar w \leftarrow d_n \bar w + (1 - d_n) w, \quad
        d_n = \min(\text{decay}, \frac{1 + n}{10 + n})

    after step :math:`n`; the first step copies the weights. The decay that grows with the steps
    shortens the memory at the start. `torch.optim.swa_utils.AveragedModel` does the same, but keeps
    its counter on the device, and reading it makes the host wait for the GPU.

    Args:
        model: The network, which is copied.
        decay: Largest decay.
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = deepcopy(model)
        self.decay = decay
        self.register_buffer("n_averaged", torch.tensor(0))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the current weights of the network."""
        n_steps = int(self.n_averaged)
        decay = min(self.decay, (1 + n_steps) / (10 + n_steps)) if n_steps else 0.0
        averaged, current = ([*one.parameters(), *one.buffers()] for one in (self.module, model))
        torch._foreach_lerp_(averaged, current, 1 - decay)
        self.n_averaged += 1


def copy_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of the tensors of a state."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}
