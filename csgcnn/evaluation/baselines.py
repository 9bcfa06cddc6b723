"""Baselines that a structure-based network must beat: a constant, and the composition alone."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from csgcnn.crystals.elements import atom_init, elemental
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.data.transforms import labels_in_unit
from csgcnn.evaluation.metrics import Metrics, target_metrics
from csgcnn.evaluation.unit_metrics import reported_metrics

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
# Every row of this number validates where there are no validation rows.
HELD_OUT = 10

# Maps features [n_rows, n_features] to predictions [n_rows, n_outputs].
Predict = Callable[[Tensor], Tensor]


def composition_features(store: GraphStore) -> Tensor:
    """Return features of each composition.

    They are the fractions x_z of the elements, the means Σ x_z p_z of their properties p and the
    standard deviations sqrt(Σ x_z p_z² - mean²), as in Magpie (Ward et al., npj Comput. Mater. 2,
    16028, 2016).

    Args:
        store: The crystals.

    Returns:
        Features [n_graphs, 301] float64.
    """
    return torch.cat([_features(block) for block in store.blocks()])


def _features(graphs: CrystalGraphs) -> Tensor:
    table = np.hstack([elemental(), atom_init()]).astype(np.float64)
    count = np.zeros((len(graphs), len(table)))
    graph_of_atom = np.repeat(np.arange(len(graphs)), graphs.n_atoms)
    np.add.at(count, (graph_of_atom, graphs.atomic_number), graphs.atom_multiplicity)
    fraction = count / count.sum(1, keepdims=True)
    mean = fraction @ table
    deviation = np.sqrt(np.maximum(fraction @ table**2 - mean**2, 0))
    return torch.from_numpy(np.hstack([fraction, mean, deviation]))


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
    both, fit = torch.cat([train, val]), _logistic if n_classes else _ridge
    x = _standardized(features, features[train])
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


def leave_one_out(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Predict each row by the ridge regression that is fitted to all other rows.

    The residual without a row is e / (1 - h), with its residual e and leverage h in the fit to all
    rows (Allen, Technometrics 16, 125, 1974). The penalty has the lowest mean absolute residual.

    Args:
        features: Features [n_rows, n_features].
        labels: Known values [n_rows].

    Returns:
        Predictions and leverages [n_rows] float64.
    """
    x, y = _standardized(features, features), labels.double()
    n_rows, mean = len(x), y.mean()
    values, vectors = torch.linalg.eigh(x.T @ x / n_rows)
    projected = x @ vectors
    covariance = projected.T @ (y - mean) / n_rows
    fits = []
    for penalty in PENALTIES:
        shrunk = 1 / (values.clamp(min=0) + penalty)
        fitted = mean + projected @ (shrunk * covariance)
        leverage = ((1 + projected.square() @ shrunk) / n_rows).clamp(max=1 - 1e-9)
        fits.append(((y - fitted) / (1 - leverage), leverage))
    residual, leverage = min(fits, key=lambda fit: fit[0].abs().mean().item())
    return y - residual, leverage


def _standardized(features: Tensor, train: Tensor) -> Tensor:
    """Return features with mean 0 and deviation 1 over the rows `train`; constants become zero."""
    width = train.std(0)
    return (features - train.mean(0)) / torch.where(width > 1e-9, width, torch.inf)


def _ridge(x: Tensor, y: Tensor) -> Callable[[float], Predict]:
    """Minimize the mean of (x w + b - y)² plus penalty w², in closed form.

    Hoerl & Kennard, Technometrics 12, 55, 1970.
    """
    x_mean, y_mean = x.mean(0), y.mean(0)
    values, vectors = torch.linalg.eigh((x - x_mean).T @ (x - x_mean) / len(x))
    projected = vectors.T @ ((x - x_mean).T @ (y - y_mean) / len(x))

    def with_penalty(penalty: float) -> Predict:
        weight = vectors @ (projected / (values.clamp(min=0).unsqueeze(1) + penalty))
        return lambda rows: (rows - x_mean) @ weight + y_mean

    return with_penalty


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
