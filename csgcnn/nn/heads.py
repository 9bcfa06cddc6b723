"""Heads, which turn the vector of a crystal into targets, and the scaler of the targets."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from csgcnn.nn.layers import activation_function

NEGLIGIBLE_STD = 1e-12  # relative to the mean: rounding, not variation of the target


class Head(nn.Module):
    """The head of CGCNN: activation, hidden layers with activation, linear map to the outputs.

    Shapes: [n_graphs, widths[0]] -> [n_graphs, n_outputs].

    Args:
        widths: Size of the crystal vector, then of each hidden layer.
        n_outputs: Number of outputs.
        activation: Name of the activation function; None: the identity.
        dropout: Probability of dropout before the last linear map.
    """

    def __init__(
        self, widths: Sequence[int], n_outputs: int, activation: str | None, dropout: float = 0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation_function(activation) if activation else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(widths[-1], n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(x)
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.out(self.dropout(x))


class StdHead(nn.Module):
    """Predict the logarithm of the standard deviation of each regression target.

    Nix & Weigend, ICNN 1994. The standard deviations are multiplied by `std_scale`, which
    `csgcnn.evaluation.calibration` determines on validation rows.

    Shapes: [n_graphs, widths[0]] -> [n_graphs, n_regression_targets], of standardized targets.

    Args:
        widths: Size of the crystal vector, then of each hidden layer.
        n_outputs: Outputs per target: 1 for regression; for classification one per class.
        activation: Name of the activation function; None: the identity.
    """

    std_scale: Tensor

    def __init__(
        self, widths: Sequence[int], n_outputs: Sequence[int], activation: str | None
    ) -> None:
        super().__init__()
        self.n_outputs = list(n_outputs)
        self.head = Head(widths, self.n_outputs.count(1), activation)
        self.register_buffer("std_scale", torch.ones(sum(n_outputs)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)

    def std(self, log_std: Tensor, scaler: "TargetScaler") -> Tensor:
        """Return standard deviations in physical units.

        Args:
            log_std: What `forward` returns [n_graphs, n_regression_targets].
            scaler: The scaler of the targets.

        Returns:
            Standard deviations [n_graphs, sum of n_outputs], NaN in the columns of classes.
        """
        columns, number = [], 0
        for i, n in enumerate(self.n_outputs):
            if n > 1:
                columns.append(log_std.new_full((len(log_std), n), torch.nan))
            else:
                columns.append(log_std[:, number : number + 1].exp() * scaler.std[i])
                number += 1
        return torch.cat(columns, dim=1) * self.std_scale


class TargetScaler(nn.Module):
    """Standardize targets with the statistics of the training rows.

    It is a part of the network, which therefore predicts in physical units. Classification
    targets are class numbers and stay as they are.

    Shapes: targets [n_graphs, n_values]; outputs [n_graphs, sum of n_outputs].

    Args:
        n_outputs: Outputs per value: 1 for regression; for classification one per class.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_outputs: Sequence[int]) -> None:
        super().__init__()
        self.n_outputs = list(n_outputs)
        self.register_buffer("mean", torch.zeros(len(n_outputs)))
        self.register_buffer("std", torch.ones(len(n_outputs)))

    def fit(self, targets: Tensor, n_labels: Sequence[int] | None = None) -> None:
        """Set mean and standard deviation to those of training targets.

        A constant target keeps the standard deviation 1. The points of a grid have their own means
        and one standard deviation, so that errors at all points weigh the same.

        Args:
            targets: [n_graphs, n_values], NaN where a label is missing.
            n_labels: Values per target; None: one.
        """
        sizes = list(n_labels or [1] * targets.shape[1])
        # Squares of float32 values may exceed the range of float32.
        targets = targets.cpu().double()
        known = targets.isfinite()
        # a point of a grid without a label in the training set has the mean 0
        mean = targets.nanmean(0).nan_to_num(0.0)
        squares = torch.where(known, targets - mean, 0.0).square().sum(0)
        squares, n_known = _totals(squares, sizes), _totals(known.sum(0), sizes)
        std = (squares / n_known).sqrt()
        std = torch.where(std > NEGLIGIBLE_STD * mean.abs(), std, 1.0)
        is_number = torch.tensor(self.n_outputs) == 1
        self.mean.copy_(torch.where(is_number, mean, 0.0))
        self.std.copy_(torch.where(is_number, std, 1.0))

    def standardize(self, targets: Tensor) -> Tensor:
        """Return targets with mean 0 and standard deviation 1 on the training rows."""
        return (targets - self.mean) / self.std

    def forward(self, outputs: Tensor) -> Tensor:
        """Return values in physical units and probabilities; further columns are dropped."""
        outputs = outputs[:, : sum(self.n_outputs)]
        if max(self.n_outputs) == 1:
            return outputs * self.std + self.mean
        parts = outputs.split(self.n_outputs, dim=1)
        return torch.cat(
            [
                part.softmax(1) if part.shape[1] > 1 else part * self.std[i] + self.mean[i]
                for i, part in enumerate(parts)
            ],
            dim=1,
        )


def _totals(of_columns: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the sum over the columns of each target, for each of its columns."""
    return torch.cat([part.sum().expand(len(part)) for part in of_columns.split(list(sizes))])
