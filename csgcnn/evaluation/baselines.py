"""Baselines that a structure-based network must beat: a constant, and the composition alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from csgcnn.data.composition_model import PENALTIES, Predict, ridge, standardized
from csgcnn.data.splits import Split
from csgcnn.data.targets import Target, label_columns
from csgcnn.data.transforms import labels_in_unit
from csgcnn.evaluation.metrics import TASKS, Metrics, target_metrics, task_of
from csgcnn.evaluation.reported_metrics import reported_metrics

# Every row of this number validates where there are no validation rows.
HELD_OUT = 10
# Rows whose distances from the training set are in memory at once.
AT_ONCE = 1024


def predict_by_composition(
    features: Tensor, labels: Tensor, split: Split, n_classes: int = 0
) -> Tensor:
    """Predict the test rows by ridge regression, or classes by logistic regression.

    The penalty is the one of `PENALTIES` with the lowest error on the validation rows, or without
    these on every tenth training row; the final model is fitted to training and validation rows.

    Args:
        features: Features [n_graphs, n_features].
        labels: Values or positions of the true classes [n_graphs], or values of a target with a
            grid [n_graphs, n_points], NaN where unknown.
        split: Rows of train, val and test.
        n_classes: Number of classes; 0 for a number.

    Returns:
        Predictions [n_test, 1, n_classes or n_points] float32.
    """
    labels = labels if labels.ndim > 1 else labels.unsqueeze(1)
    train, val = (rows[labels[rows].isfinite().any(1)] for rows in (split["train"], split["val"]))
    if not len(val):
        is_val = torch.arange(len(train)) % HELD_OUT == 0
        train, val = train[~is_val], train[is_val]
    both, fit = torch.cat([train, val]), _logistic if n_classes else ridge
    x = standardized(features, features[train])
    if n_classes:
        y = F.one_hot(labels.squeeze(1).nan_to_num().long(), n_classes).double()
    else:
        y = _filled(labels, train).double()
    with_penalty = fit(x[train], y[train])
    errors = {
        penalty: (with_penalty(penalty)(x[val]) - y[val]).abs().mean().item()
        for penalty in PENALTIES
    }
    best = min(errors, key=errors.__getitem__)
    return fit(x[both], y[both])(best)(x[split["test"]]).float()


def composition_metrics(
    features: Tensor, values: Tensor, split: Split, targets: Sequence[Target]
) -> dict[str, Metrics]:
    """Return the metrics of `predict_by_composition` on the test rows.

    Args:
        features: Features [n_graphs, n_features], from `composition_features`.
        values: Values as they are trained [n_graphs, sum of n_labels], NaN where unknown.
        split: Rows of train, val and test.
        targets: The targets.
    """
    predictions = [
        predict_by_composition(features, labels, split, len(target.classes))
        for target, labels in zip(targets, label_columns(values, targets), strict=True)
    ]
    return reported_metrics(torch.cat(predictions, 1), values[split["test"]], targets)


def _nearest_metrics(
    features: Tensor, values: Tensor, split: Split, targets: Sequence[Target]
) -> dict[str, Metrics]:
    """Return the metrics on the test rows of the values of the nearest training composition.

    Distances are those of features that are standardized on the training rows. A missing value is
    that of the mean.
    """
    train, test = split["train"], split["test"]
    known = train[values[train].isfinite().any(1)]
    x = standardized(features, features[known])
    nearest = torch.cat([torch.cdist(rows, x[known]).argmin(1) for rows in x[test].split(AT_ONCE)])
    return reported_metrics(_filled(values, known)[known[nearest]], values[test], targets)


def simple_metrics(
    features: Tensor, values: Tensor, split: Split, targets: Sequence[Target]
) -> dict[str, dict[str, Metrics]]:
    """Return metrics on the test rows by name of the model: `composition_metrics` and `nearest`.

    The latter, of a target with a grid, has the values of the nearest training composition.

    Args:
        features: Features [n_graphs, n_features], from `composition_features`.
        values: Values as they are trained [n_graphs, sum of n_labels], NaN where unknown.
        split: Rows of train, val and test.
        targets: The targets.
    """
    found = {"composition": composition_metrics(features, values, split, targets)}
    if any(target.grid for target in targets):
        found["nearest"] = _nearest_metrics(features, values, split, targets)
    return found


def _filled(labels: Tensor, train: Tensor) -> Tensor:
    """Return values [n_rows, n_values], those that are missing replaced by the mean of `train`."""
    return torch.where(labels.isfinite(), labels, labels[train].nanmean(0).nan_to_num(0.0))


def _logistic(x: Tensor, y: Tensor) -> Callable[[float], Predict]:
    """Minimize the mean cross entropy of softmax(x w + b) plus penalty w², by L-BFGS."""

    def with_penalty(penalty: float) -> Predict:
        weight = x.new_zeros(x.shape[1], y.shape[1], requires_grad=True)
        bias = x.new_zeros(y.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=30, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(x @ weight + bias, y) + penalty * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return lambda rows: (rows @ weight.detach() + bias.detach()).softmax(1)

    return with_penalty


def baseline_metrics(train: Tensor, truth: Tensor, targets: Sequence[Target]) -> dict[str, Metrics]:
    """Return the metrics of a constant prediction: the mean, or the frequencies of the classes.

    Args:
        train: Values of the training rows as they are trained [n_train, sum of n_labels], NaN where
            unknown. The mean is that in the unit of the target.
        truth: Likewise those of the rows to predict [n_rows, sum of n_labels], NaN where unknown.
        targets: The targets.
    """
    train, truth = labels_in_unit(train, targets), labels_in_unit(truth, targets)
    constants = []
    for target, labels in zip(targets, label_columns(train, targets), strict=True):
        known = labels[labels.isfinite()]
        if target.grid:
            constants.append(labels.double().nanmean(0).nan_to_num(0.0).float())
        elif target.classes:
            count = torch.bincount(known.long(), minlength=target.n_outputs)
            constants.append(count / len(known))
        else:
            constants.append(known.double().mean().float().reshape(1))
    return target_metrics(torch.cat(constants).expand(len(truth), -1), truth, targets)


def trained_baseline(values: Tensor, split: Split, targets: Sequence[Target]) -> dict[str, float]:
    """Return the ranking metric of a constant prediction on the validation rows, by target.

    It is that of the learning curve: on the scale on which the target is trained.

    Args:
        values: Values as they are trained [n_graphs, sum of n_labels], NaN where unknown.
        split: Rows of train and val.
        targets: The targets.
    """
    trained = [replace(target, transform="none") for target in targets]
    found = baseline_metrics(values[split["train"]], values[split["val"]], trained)
    return {t.name: found[t.name][TASKS[task_of(t)].ranking.name] for t in targets}
