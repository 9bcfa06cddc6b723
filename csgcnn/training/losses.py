"""What training minimizes: on standardized targets, missing labels left out."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csgcnn.config.instantiate import instantiate
from csgcnn.config.settings import Setting
from csgcnn.data.targets import Target, check_names

LEAST_LOG_STD = (
    -7.0
)  # a thousandth of the spread of the target: no label is surer, and the loss stays finite


class WeightedRegressionLoss(nn.Module):
    """A weighted sum of squared, absolute and Huber (delta 1) error, averaged over the known labels.

    It acts on standardized targets, so the balance of its terms does not depend on the unit of the target.

    Shapes: prediction, target [n_graphs, n_targets] -> scalar; a NaN target is a missing label.
    """

    def __init__(
        self,
        mse: Annotated[float, Setting("Weight of the squared error.", at_least=0)] = 0.0,
        l1: Annotated[float, Setting("Weight of the absolute error.", at_least=0)] = 0.0,
        huber: Annotated[float, Setting("Weight of the Huber loss (delta 1).", at_least=0)] = 0.0,
    ) -> None:
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
            loss = loss + self.huber * F.huber_loss(
                error, torch.zeros_like(error), reduction="none"
            )
        return loss.sum() / known.sum().clamp(min=1)


class Likelihood(nn.Module):
    """Minus the logarithm of the likelihood of a known label, mean over these, by a deviation that is predicted, too.

    - `gaussian`: log(std) + (error / std)^2 / 2 (Nix & Weigend, ICNN 1994)
    - `laplace`: log(std) + sqrt(2) |error| / std, which forgives outliers as the absolute error does

    both up to a constant.

    Shapes: prediction, target, log_std [n_graphs, n_targets] -> scalar; a NaN target is a missing label.
    """

    def __init__(
        self,
        distribution: Annotated[
            str, Setting("Distribution of the errors.", choices=("gaussian", "laplace"))
        ],
    ) -> None:
        super().__init__()
        if distribution not in ("gaussian", "laplace"):
            raise ValueError(f"distribution={distribution}: expected gaussian or laplace")
        self.distribution = distribution

    def forward(self, prediction: Tensor, target: Tensor, log_std: Tensor) -> Tensor:
        known = target.isfinite()
        error = torch.where(known, prediction - torch.where(known, target, 0.0), 0.0)
        log_std = log_std.clamp(min=LEAST_LOG_STD)
        relative = error * torch.exp(-log_std)
        misfit = (
            relative.square() / 2 if self.distribution == "gaussian" else 2**0.5 * relative.abs()
        )
        return torch.where(known, log_std + misfit, 0.0).sum() / known.sum().clamp(min=1)


class MultiTaskLoss(nn.Module):
    """The mean over the targets of each one's loss: `regression` on a number, cross entropy on a class.

    Fixed weights: sum(w_t L_t) / sum(w_t). Learned weights (Kendall, Gal & Cipolla, CVPR 2018), with s_t the logarithm
    of a target's noise variance, a parameter: the mean of exp(-s_t) L_t / 2 + s_t / 2, and without the first half for
    classes. They are the likelihood of a Gaussian where `regression` is the squared error, and a scale elsewhere.

    Each L_t is a mean over its known labels; a target that no row of a batch has adds nothing to it.
    `class_weights`: one tensor [n_classes] per target; of a number it is ignored.

    Shapes: outputs [n_graphs, sum of n_outputs] standardized values and logits, after which come the [n_graphs,
    n_numbers] log_std of a `Likelihood`; target [n_graphs, n_targets] standardized values and positions of classes
    -> scalar; a NaN target is a missing label.
    """

    weights: Tensor
    class_weights: Tensor
    precision_factor: Tensor

    def __init__(
        self,
        regression: nn.Module,
        n_outputs: Sequence[int] = (1,),
        weights: Sequence[float] | None = None,
        class_weights: Sequence[Tensor] | None = None,
        learn_weights: bool = False,
    ) -> None:
        super().__init__()
        self.regression = regression
        self.n_outputs = list(n_outputs)
        n_targets = len(self.n_outputs)
        fixed = torch.tensor(weights or [1.0] * n_targets)
        self.register_buffer("weights", fixed / fixed.sum())
        self.register_buffer(
            "class_weights", torch.cat(list(class_weights or [torch.ones(n) for n in n_outputs]))
        )
        self.register_buffer(
            "precision_factor", torch.tensor([0.5 if n == 1 else 1.0 for n in n_outputs])
        )
        self.log_variance = nn.Parameter(torch.zeros(n_targets)) if learn_weights else None

    @property
    def task_weights(self) -> Tensor:
        """What each target's loss is multiplied by, fixed or as learned so far: [n_targets]."""
        if self.log_variance is None:
            return self.weights
        return self.precision_factor * torch.exp(-self.log_variance.detach()) / len(self.n_outputs)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        outputs, log_std = outputs.tensor_split([sum(self.n_outputs)], dim=1)
        of_number = iter(log_std.t().unsqueeze(2))
        parts = zip(
            outputs.split(self.n_outputs, 1), self.class_weights.split(self.n_outputs), strict=True
        )
        losses = torch.stack(
            [
                self.regression(output, target[:, i : i + 1], *islice(of_number, 1))
                if output.shape[1] == 1
                else cross_entropy(output, target[:, i], class_weights)
                for i, (output, class_weights) in enumerate(parts)
            ]
        )
        if self.log_variance is None:
            return (self.weights * losses).sum()
        terms = (
            self.precision_factor * torch.exp(-self.log_variance) * losses + self.log_variance / 2
        )
        return torch.where(target.isfinite().any(0), terms, 0.0).mean()


def cross_entropy(logits: Tensor, label: Tensor, class_weights: Tensor) -> Tensor:
    """WeightedRegressionLoss mean over the known labels of -log(probability of the true class); 0 if none is known.

    Shapes: logits [n_graphs, n_classes], label [n_graphs] (positions of classes, NaN where missing),
    class_weights [n_classes] -> scalar.
    """
    known = label.isfinite()
    position = torch.where(known, label, 0.0).long()
    weight = torch.where(known, class_weights[position], 0.0)
    surprise = F.cross_entropy(logits, position, reduction="none")
    return (weight * surprise).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def balanced_class_weights(label: Tensor, n_classes: int) -> Tensor:
    """Inverse frequency of the classes among known labels [n_rows], 1 where all are as frequent; 0 for an absent class.

    Formula: n / (number of classes present * n_class).
    """
    count = torch.bincount(label[label.isfinite()].long(), minlength=n_classes).float()
    weight = count.sum() / (count.count_nonzero() * count)
    return torch.where(count > 0, weight, 0.0)


def build_loss(
    config: Mapping[str, Any], targets: Sequence[Target], train: Tensor
) -> MultiTaskLoss:
    """Make what training minimizes from the group loss, the weights in dataset and the labels `train` of its rows.

    Shapes: train [n_rows, n_targets], NaN where missing.

    Raises:
        ConfigError: a weight is given for what is no target.
    """
    options = config["dataset"]
    check_names(
        "dataset.task_weights", options["task_weights"], [target.name for target in targets]
    )
    is_balanced = options["class_weights"] == "balanced"
    return MultiTaskLoss(
        instantiate(config["loss"]),
        [target.n_outputs for target in targets],
        [options["task_weights"].get(target.name, 1.0) for target in targets],
        [
            balanced_class_weights(column, target.n_outputs)
            if is_balanced and target.classes
            else torch.ones(target.n_outputs)
            for target, column in zip(targets, train.unbind(1), strict=True)
        ],
        config["trainer"]["learn_task_weights"],
    )
