"""Crystal vector in, targets out."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from csgcnn.nn.layers import activation_function


class Head(nn.Module):
    """CGCNN's head: activation on the pooled vector, `n_layers` layers with activation, a linear map to the outputs.

    Shapes: [n_graphs, hidden] -> [n_graphs, n_outputs].
    """

    def __init__(
        self,
        hidden: int,
        head_hidden: int,
        n_layers: int,
        n_outputs: int,
        activation: str = "softplus",
        dropout: float = 0,
    ) -> None:
        super().__init__()
        widths = [hidden] + [head_hidden] * n_layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation_function(activation)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(widths[-1], n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(x)
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.out(self.dropout(x))


class StdHead(nn.Module):
    """How far off the numbers may be: the logarithm of each one's standard deviation, from the crystal vector.

    Nix & Weigend, ICNN 1994. `std_scale` is what the deviations are multiplied by to be those of unseen crystals, see
    `csgcnn.evaluation.calibration`.

    Shapes: [n_graphs, hidden] -> [n_graphs, n_numbers], in standardized units.
    """

    std_scale: Tensor

    def __init__(
        self,
        hidden: int,
        head_hidden: int,
        n_layers: int,
        n_outputs: Sequence[int],
        activation: str = "softplus",
    ) -> None:
        super().__init__()
        self.n_outputs = list(n_outputs)
        self.head = Head(hidden, head_hidden, n_layers, self.n_outputs.count(1), activation)
        self.register_buffer("std_scale", torch.ones(sum(n_outputs)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)

    def std(self, log_std: Tensor, scaler: "TargetScaler") -> Tensor:
        """Deviations in physical units, NaN in the columns of classes: [n_graphs, sum of n_outputs]."""
        columns, number = [], 0
        for i, n in enumerate(self.n_outputs):
            if n > 1:
                columns.append(log_std.new_full((len(log_std), n), torch.nan))
            else:
                columns.append(log_std[:, number : number + 1].exp() * scaler.std[i])
                number += 1
        return torch.cat(columns, dim=1) * self.std_scale


class TargetScaler(nn.Module):
    """Standardizes targets with statistics of the training rows; part of the model, which answers in physical units.

    `n_outputs` per target: 1 for a number; for a class, one logit each, which becomes a probability. Classes themselves
    (positions) stay as they are.

    Shapes: targets [n_graphs, n_targets] -> the same; outputs [n_graphs, sum of n_outputs] -> the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_outputs: Sequence[int]) -> None:
        super().__init__()
        self.n_outputs = list(n_outputs)
        self.register_buffer("mean", torch.zeros(len(n_outputs)))
        self.register_buffer("std", torch.ones(len(n_outputs)))

    def fit(self, targets: Tensor) -> None:
        """Take mean and standard deviation of training targets [n_graphs, n_targets]; NaN means missing.

        A target without spread keeps the standard deviation 1.
        """
        targets = targets.cpu().double()  # squares of what float32 can hold need not fit into it
        known = targets.isfinite()
        mean = targets.nanmean(0)
        std = (torch.where(known, targets - mean, 0.0).square().sum(0) / known.sum(0)).sqrt()
        std = torch.where(std > 1e-12 * mean.abs(), std, 1.0)  # less is the rounding of the mean
        is_number = torch.tensor(self.n_outputs) == 1
        self.mean.copy_(torch.where(is_number, mean, 0.0))
        self.std.copy_(torch.where(is_number, std, 1.0))

    def standardize(self, targets: Tensor) -> Tensor:
        """Physical units -> mean 0, standard deviation 1."""
        return (targets - self.mean) / self.std

    def forward(self, outputs: Tensor) -> Tensor:
        """Standardized values -> physical units, logits -> probabilities; columns that follow these are left out."""
        known = outputs[:, : sum(self.n_outputs)]
        return torch.cat(
            [
                part.softmax(1) if part.shape[1] > 1 else part * self.std[i] + self.mean[i]
                for i, part in enumerate(known.split(self.n_outputs, dim=1))
            ],
            dim=1,
        )
