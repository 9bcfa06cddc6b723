"""Baselines that a structure-based network must beat: a constant, and the composition alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from csgcnn.data.composition_model import PENALTIES, Predict, ridge, standardized
from csgcnn.data.splits import Split
from csgcnn.data.targets import Target
from csgcnn.data.transforms import labels_in_unit
from csgcnn.evaluation.metrics import TASKS, Metrics, target_metrics, task_of
from csgcnn.evaluation.unit_metrics import reported_metrics

# Every row of this number validates where there are no validation rows.
HELD_OUT = 10


def predict_by_composition(
    features: Tensor, labels: Tensor, split: Split, n_classes: int = 0
) -> Tensor:
    """Predict the test rows by ridge regression, or classes by logistic regression.

    The penalty is the one of `PENALTIES` with the lowest error on the validation rows, or without
    these on every tenth training row; the final model is fitted to training and validation rows.

    Args:
        features: Features [n_graphs, n_features].
        labels: Values or positions of the true classes [n_graphs], NaN where unknown.
        split: Rows of train, val and test.
        n_classes: Number of classes; 0 for a number.

    Returns:
        Predictions [n_test, 1 or n_classes] float32.
    """
    train, val = (rows[labels[rows].isfinite()] for rows in (split["train"], split["val"]))
    if not len(val):
        is_val = torch.arange(len(train)) % HELD_OUT == 0
        train, val = train[~is_val], train[is_val]
    both, fit = torch.cat([train, val]), _logistic if n_classes else ridge
    x = standardized(features, features[train])
    if n_classes:
        y = F.one_hot(labels.nan_to_num().long(), n_classes).double()
    else:
        y = labels.double().unsqueeze(1)
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
        values: Values as they are trained [n_graphs, n_targets], NaN where unknown.
        split: Rows of train, val and test.
        targets: The targets.
    """
    predictions = [
        predict_by_composition(features, column, split, len(target.classes))
        for target, column in zip(targets, values.unbind(1), strict=True)
    ]
    return reported_metrics(torch.cat(predictions, 1), values[split["test"]], targets)


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
        train: Values of the training rows as they are trained [n_train, n_targets], NaN where
            unknown. The mean is that in the unit of the target.
        truth: Likewise those of the rows to predict [n_rows, n_targets], NaN where unknown.
        targets: The targets.
    """
    train, truth = labels_in_unit(train, targets), labels_in_unit(truth, targets)
    constants = []
    for target, column in zip(targets, train.unbind(1), strict=True):
        known = column[column.isfinite()]
        if target.classes:
            count = torch.bincount(known.long(), minlength=target.n_outputs)
            constants.append(count / len(known))
        else:
            constants.append(known.double().mean().float().reshape(1))
    return target_metrics(torch.cat(constants).expand(len(truth), -1), truth, targets)


def trained_baseline(values: Tensor, split: Split, targets: Sequence[Target]) -> dict[str, float]:
    """Return the ranking metric of a constant prediction on the validation rows, by target.

    It is that of the learning curve: on the scale on which the target is trained.

    Args:
        values: Values as they are trained [n_graphs, n_targets], NaN where unknown.
        split: Rows of train and val.
        targets: The targets.
    """
    trained = [replace(target, transform="none") for target in targets]
    found = baseline_metrics(values[split["train"]], values[split["val"]], trained)
    return {t.name: found[t.name][TASKS[task_of(t)].ranking.name] for t in targets}
