"""Losses of standardized targets, without missing labels.

Add a loss by a class that follows the contract of `RegressionLoss`, and an option of the group
`loss` whose `_target_` names it, in this module or in a plugin.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from itertools import islice
from typing import Annotated, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csgcnn.config.instantiate import instantiate
from csgcnn.config.settings import Setting
from csgcnn.config.validate import LEARNED_WEIGHTS_OF_LIKELIHOOD
from csgcnn.data.targets import Target, check_names, label_columns
from csgcnn.errors import ConfigError
from csgcnn.training.loss_terms import balanced_class_weights, cross_entropy, cumulative

# A thousandth of the standard deviation of the target. Smaller predicted deviations are clamped, so
# that the loss stays finite.
MIN_LOG_STD = -7.0


class RegressionLoss(Protocol):
    """Contract of a loss of the group `loss`; a loss with parameters is a `torch.nn.Module`.

    It is called once per regression target. Parameters are trained with the network.
    """

    def __call__(
        self, prediction: Tensor, target: Tensor, *log_std: Tensor, **weight: Tensor
    ) -> Tensor:
        """Return the mean loss of the known labels.

        Args:
            prediction: Standardized predictions [n_graphs, 1]; of a target with a grid [n_graphs,
                n_points].
            target: Standardized labels of the same shape, NaN where missing. A missing label
                changes neither the loss nor a gradient.
            *log_std: With `model.predict_std=true` one tensor: the logarithm of the predicted
                standard deviation [n_graphs, 1], in units of the standardized target.
            **weight: With `dataset.weight_column`, `weight`: factors of the losses [n_graphs, 1].

        Returns:
            Scalar; 0 without a known label.
        """
        ...


class WeightedRegressionLoss(nn.Module):
    r"""Weighted sum of the squared, the absolute and the Huber error.

    .. math:: \frac{1}{n} \sum_{i \text{ known}}
        w_{mse} e_i^2 + w_{l1} |e_i| + w_{huber} H_1(e_i), \quad e_i = \hat y_i - y_i

    with the Huber loss of delta 1 (Huber, Ann. Math. Stat. 35, 73, 1964). Targets are standardized,
    so the balance of the terms does not depend on the unit.

    Shapes: prediction, target [n_graphs, n_targets] -> scalar.

    Args:
        mse: Weight of the squared error.
        l1: Weight of the absolute error.
        huber: Weight of the Huber loss.
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

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        known = target.isfinite()
        error = torch.where(known, prediction - torch.where(known, target, 0.0), 0.0)
        loss = torch.zeros_like(error)
        if self.mse:
            loss = loss + self.mse * error.square()
        if self.l1:
            loss = loss + self.l1 * error.abs()
        if self.huber:
            huber = F.huber_loss(error, torch.zeros_like(error), reduction="none")
            loss = loss + self.huber * huber
        if weight is not None:
            loss = weight * loss
        return loss.sum() / known.sum().clamp(min=1)


class Likelihood(nn.Module):
    r"""Mean negative log-likelihood of the labels, up to a constant, with predicted deviations.

    With the error :math:`e` and the predicted standard deviation :math:`\sigma`:

    - `gaussian`: :math:`\log\sigma + (e / \sigma)^2 / 2` (Nix & Weigend, ICNN 1994)
    - `laplace`: :math:`\log\sigma + \sqrt{2} |e| / \sigma`, which is more robust to outliers

    Shapes: prediction, target, log_std [n_graphs, n_targets] -> scalar.

    Args:
        distribution: Distribution of the errors.
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

    def forward(
        self, prediction: Tensor, target: Tensor, log_std: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        known = target.isfinite()
        error = torch.where(known, prediction - torch.where(known, target, 0.0), 0.0)
        log_std = log_std.clamp(min=MIN_LOG_STD)
        relative = error * torch.exp(-log_std)
        if self.distribution == "gaussian":
            misfit = relative.square() / 2
        else:
            misfit = 2**0.5 * relative.abs()
        loss = torch.where(known, log_std + misfit, 0.0)
        if weight is not None:
            loss = weight * loss
        return loss.sum() / known.sum().clamp(min=1)


class MultiTaskLoss(nn.Module):
    r"""Weighted mean of the losses of all targets.

    The loss :math:`L_t` of a number is `regression`, that of a class the cross entropy, each a mean
    over the known labels of the batch.

    - Fixed weights: :math:`\sum_t w_t L_t / \sum_t w_t`.
    - Learned weights (Kendall, Gal & Cipolla, CVPR 2018): the mean of :math:`\exp(-s_t) L_t / 2 +
      s_t / 2` with the parameter :math:`s_t`, the logarithm of the noise variance; without the
      first factor 1/2 for classes. With the squared error this is the likelihood of a Gaussian. A
      target without a known label in the batch contributes 0.

    Shapes: outputs [n_graphs, sum of n_outputs + n_log_std], target [n_graphs, sum of n_labels] ->
    scalar. Outputs are standardized values and logits in the order of the targets, then for a
    `Likelihood` the log_std of each number. Targets are standardized values and positions of
    classes, NaN where missing. An optional `weight` [n_graphs, 1] is a factor of the loss of each
    crystal, for targets of both kinds.

    Args:
        regression: Loss of numbers.
        n_outputs: Outputs per target: 1 for a number, else the number of classes or points.
        weights: Weight of each target; default: equal weights.
        class_weights: Weights of the classes of each target [n_outputs], ignored for numbers;
            default: equal weights.
        learn_weights: Whether the weights of the targets are learned.
        grids: Grid of each target whose integrals are compared, see `cumulative`; None for others.
        n_labels: Values per target: the number of points of a grid, else 1; default: 1.

    Raises:
        ConfigError: The weights of a likelihood cannot be learned: it has no lower bound.
    """

    weights: Tensor
    class_weights: Tensor
    precision_factor: Tensor

    def __init__(
        self,
        regression: RegressionLoss,
        n_outputs: Sequence[int] = (1,),
        weights: Sequence[float] | None = None,
        class_weights: Sequence[Tensor] | None = None,
        learn_weights: bool = False,
        grids: Sequence[Sequence[float] | None] | None = None,
        n_labels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if learn_weights and isinstance(regression, Likelihood):
            raise ConfigError(LEARNED_WEIGHTS_OF_LIKELIHOOD)
        self.regression = regression
        self.n_outputs = list(n_outputs)
        self.n_labels = list(n_labels or [1] * len(self.n_outputs))
        self.grids = list(grids or [None] * len(self.n_outputs))
        n_targets = len(self.n_outputs)
        fixed = torch.tensor(weights or [1.0] * n_targets)
        of_classes = torch.cat(list(class_weights or [torch.ones(n) for n in n_outputs]))
        sizes = zip(self.n_outputs, self.n_labels, strict=True)
        precision_factor = torch.tensor([0.5 if n == n_values else 1.0 for n, n_values in sizes])
        self.register_buffer("weights", fixed / fixed.sum())
        self.register_buffer("class_weights", of_classes)
        self.register_buffer("precision_factor", precision_factor)
        self.log_variance = nn.Parameter(torch.zeros(n_targets)) if learn_weights else None

    @property
    def task_weights(self) -> Tensor:
        """Factor of the loss of each target, fixed or as learned so far: [n_targets]."""
        if self.log_variance is None:
            return self.weights
        return self.precision_factor * torch.exp(-self.log_variance.detach()) / len(self.n_outputs)

    def forward(self, outputs: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        of_rows = {} if weight is None else {"weight": weight}
        outputs, log_std = outputs.tensor_split([sum(self.n_outputs)], dim=1)
        log_stds = iter(log_std.t().unsqueeze(2))
        parts = outputs.split(self.n_outputs, 1)
        weights = self.class_weights.split(self.n_outputs)
        labels = target.split(self.n_labels, 1)
        losses = torch.stack(
            [
                self.regression(*cumulative(output, label, grid), *islice(log_stds, 1), **of_rows)
                if output.shape[1] == label.shape[1]
                else cross_entropy(output, label.squeeze(1), class_weights, weight)
                for output, label, class_weights, grid in zip(
                    parts, labels, weights, self.grids, strict=True
                )
            ]
        )
        if self.log_variance is None:
            return (self.weights * losses).sum()
        precision = self.precision_factor * torch.exp(-self.log_variance)
        terms = precision * losses + self.log_variance / 2
        is_known = torch.stack([label.isfinite().any() for label in labels])
        return torch.where(is_known, terms, 0.0).mean()


def build_loss(
    config: Mapping[str, Any], targets: Sequence[Target], train: Tensor
) -> MultiTaskLoss:
    """Build the loss that a configuration describes.

    Args:
        config: Configuration of a run; reads loss, dataset.task_weights, dataset.class_weights and
            trainer.learn_task_weights.
        targets: The targets.
        train: Labels of the training rows [n_rows, sum of n_labels], NaN where missing.

    Raises:
        ConfigError: dataset.task_weights names a column that is not a target, or the loss takes no
            weights of rows.
    """
    options = config["dataset"]
    task_weights, grid_loss = options["task_weights"], options.get("grid_loss") or {}
    check_names("dataset.task_weights", task_weights, [target.name for target in targets])
    is_balanced = options["class_weights"] == "balanced"
    class_weights = [
        balanced_class_weights(labels.squeeze(1), target.n_outputs)
        if is_balanced and target.classes
        else torch.ones(target.n_outputs)
        for target, labels in zip(targets, label_columns(train, targets), strict=True)
    ]
    loss = instantiate(config["loss"])
    call = getattr(loss, "forward", loss)
    if options.get("weight_column") and "weight" not in signature(call).parameters:
        raise ConfigError(
            f"dataset.weight_column: the loss {type(loss).__name__} has no argument weight; omit it"
        )
    return MultiTaskLoss(
        loss,
        [target.n_outputs for target in targets],
        [task_weights.get(target.name, 1.0) for target in targets],
        class_weights,
        config["trainer"]["learn_task_weights"],
        [t.grid if grid_loss.get(t.name) == "cumulative" else None for t in targets],
        [target.n_labels for target in targets],
    )
