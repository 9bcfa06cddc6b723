"""What the composition alone tells of a property: the baseline that a network which sees the structure must beat."""

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
from csgcnn.evaluation.metrics import Metrics, target_metrics

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)

Answer = Callable[
    [Tensor], Tensor
]  # features [n_rows, n_features] -> predictions [n_rows, n_outputs]


def composition_features(store: GraphStore) -> Tensor:
    """Fractions of the elements, mean and deviation of their properties: [n_graphs, 301] float64."""
    return torch.cat([_features(block) for block in store.blocks()])


def _features(graphs: CrystalGraphs) -> Tensor:
    table = np.hstack([elemental(), atom_init()]).astype(np.float64)
    count = np.zeros((len(graphs), len(table)))
    np.add.at(
        count,
        (np.repeat(np.arange(len(graphs)), graphs.n_atoms), graphs.atomic_number),
        graphs.atom_multiplicity,
    )
    fraction = count / count.sum(1, keepdims=True)
    mean = fraction @ table
    deviation = np.sqrt(np.maximum(fraction @ table**2 - mean**2, 0))
    return torch.from_numpy(np.hstack([fraction, mean, deviation]))


def predict_by_composition(
    features: Tensor, labels: Tensor, split: Split, n_classes: int = 0
) -> Tensor:
    """Predict the test rows by ridge regression (classes: logistic regression) of the others, those with a label.

    The validation rows choose the penalty; then they are fitted, too.

    Shapes: features [n_graphs, n_features], labels [n_graphs], NaN where missing -> [n_test, 1 or n_classes].
    """
    train, val = (rows[labels[rows].isfinite()] for rows in (split["train"], split["val"]))
    both, fit = torch.cat([train, val]), _logistic if n_classes else _ridge
    width = features[train].std(0)
    x = (features - features[train].mean(0)) / torch.where(width > 1e-9, width, torch.inf)
    y = (
        F.one_hot(labels.nan_to_num().long(), n_classes).double()
        if n_classes
        else labels.double().unsqueeze(1)
    )
    answer = fit(x[train], y[train])
    errors = {
        penalty: (answer(penalty)(x[val]) - y[val]).abs().mean().item() for penalty in PENALTIES
    }
    return fit(x[both], y[both])(min(errors, key=errors.__getitem__))(x[split["test"]]).float()


def _ridge(x: Tensor, y: Tensor) -> Callable[[float], Answer]:
    """Minimize the mean of (x w + b - y)² + penalty w², in closed form."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    values, vectors = torch.linalg.eigh((x - x_mean).T @ (x - x_mean) / len(x))
    projected = vectors.T @ ((x - x_mean).T @ (y - y_mean) / len(x))

    def answer(penalty: float) -> Answer:
        weight = vectors @ (projected / (values.clamp(min=0).unsqueeze(1) + penalty))
        return lambda rows: (rows - x_mean) @ weight + y_mean

    return answer


def _logistic(x: Tensor, y: Tensor) -> Callable[[float], Answer]:
    """Minimize the mean cross entropy of softmax(x w + b) + penalty w², by L-BFGS."""

    def answer(penalty: float) -> Answer:
        weight, bias = (
            x.new_zeros(*shape, requires_grad=True)
            for shape in ((x.shape[1], y.shape[1]), y.shape[1:])
        )
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=30, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(x @ weight + bias, y) + penalty * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return lambda rows: (rows @ weight.detach() + bias.detach()).softmax(1)

    return answer


def baseline_metrics(train: Tensor, truth: Tensor, targets: Sequence[Target]) -> dict[str, Metrics]:
    """Metrics of answering every row of `truth` by the mean, or the shares of the classes, of the `train` labels.

    Any model must beat them. Shapes: train, truth [n_rows, n_targets], NaN where missing.
    """
    constants = []
    for target, column in zip(targets, train.unbind(1), strict=True):
        known = column[column.isfinite()]
        shares = (
            torch.bincount(known.long(), minlength=target.n_outputs) / len(known)
            if target.classes
            else None
        )
        constants.append(known.double().mean().float().reshape(1) if shares is None else shares)
    return target_metrics(torch.cat(constants).expand(len(truth), -1), truth, targets)
