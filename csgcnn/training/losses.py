"""What training minimises: on standardised targets, missing labels left out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Weighted(nn.Module):
    """A weighted sum of squared, absolute and Huber (delta 1) error, averaged over the known labels.

    It acts on standardised targets, so the balance of its terms does not depend on the unit of the target.

    Shapes: prediction, target [n_graphs, n_targets] -> scalar; a NaN target is a missing label.
    """

    def __init__(self, mse: float = 0.0, l1: float = 0.0, huber: float = 0.0) -> None:
        super().__init__()
        self.mse = mse
        self.l1 = l1
        self.huber = huber

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        known = target.isfinite()
        error = torch.where(known, prediction - torch.where(known, target, 0.0), 0.0)
        loss = torch.zeros_like(error)
        if self.mse:
            loss = loss + self.mse * error.square()
        if self.l1:
            loss = loss + self.l1 * error.abs()
        if self.huber:
            loss = loss + self.huber * F.huber_loss(error, torch.zeros_like(error), reduction="none")
        return loss.sum() / known.sum().clamp(min=1)
