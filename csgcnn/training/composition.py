"""What the composition alone tells of a property: the baseline that a network which sees the structure must beat."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from csgcnn.crystals.elements import atom_init, elemental
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore

ALPHAS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # per training row, of standardised features

Answer = Callable[[Tensor], Tensor]  # features [n_rows, n_features] -> predictions [n_rows, n_outputs]


def composition_features(store: GraphStore) -> Tensor:
    """Fractions of the elements, mean and deviation of their properties: [n_graphs, 301] float64."""
    return torch.cat([_features(block) for block in store.blocks()])


def _features(graphs: CrystalGraphs) -> Tensor:
    table = np.hstack([elemental(), atom_init()]).astype(np.float64)
    graph = np.repeat(np.arange(len(graphs)), graphs.n_atoms)
    count = np.zeros((len(graphs), len(table)))
    np.add.at(count, (graph, graphs.atomic_number), graphs.atom_multiplicity)
    fraction = count / count.sum(1, keepdims=True)
    mean = fraction @ table
    deviation = np.sqrt(np.maximum(fraction @ table**2 - mean**2, 0))
    return torch.from_numpy(np.hstack([fraction, mean, deviation]))


def predict_by_composition(features: Tensor, labels: Tensor, split: Split, n_classes: int = 0) -> Tensor:
    """Predict the test rows by ridge regression, of classes by logistic regression, that never saw them.

    The penalty is chosen on the validation rows; then both parts are fitted. Rows without a label are not.

    Shapes: features [n_graphs, n_features], labels [n_graphs], NaN where missing -> [n_test, 1 or n_classes].
    """
    fit = _logistic if n_classes else _ridge
    train, val = (rows[labels[rows].isfinite()] for rows in (split["train"], split["val"]))
    middle, width = features[train].mean(0), features[train].std(0)
    x = (features - middle) / torch.where(width > 1e-9, width, torch.inf)
    y = F.one_hot(labels.nan_to_num().long(), n_classes).double() if n_classes else labels.double().unsqueeze(1)

    def error(answer: Answer) -> float:
        return (answer(x[val]) - y[val]).abs().mean().item()

    best = min(fit(x[train], y[train]).items(), key=lambda item: error(item[1]))[0]
    both = torch.cat([train, val])
    return fit(x[both], y[both], (best,))[best](x[split["test"]]).float()


def _ridge(x: Tensor, y: Tensor, alphas: tuple[float, ...] = ALPHAS) -> dict[float, Answer]:
    """Minimise mean (x w + b - y)² + alpha |w|², in closed form."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    values, vectors = torch.linalg.eigh((x - x_mean).T @ (x - x_mean) / len(x))
    projected = vectors.T @ ((x - x_mean).T @ (y - y_mean) / len(x))

    def answer(alpha: float) -> Answer:
        weight = vectors @ (projected / (values.clamp(min=0).unsqueeze(1) + alpha))
        return lambda rows: (rows - x_mean) @ weight + y_mean

    return {alpha: answer(alpha) for alpha in alphas}


def _logistic(x: Tensor, y: Tensor, alphas: tuple[float, ...] = ALPHAS[2:5]) -> dict[float, Answer]:
    """Minimise the mean cross entropy of softmax(x w + b) + alpha |w|² / 2, by L-BFGS."""

    def answer(alpha: float) -> Answer:
        weight = torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype, requires_grad=True)
        bias = torch.zeros(y.shape[1], dtype=x.dtype, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=50, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = F.cross_entropy(x @ weight + bias, y) + alpha / 2 * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return lambda rows: (rows @ weight.detach() + bias.detach()).softmax(1)

    return {alpha: answer(alpha) for alpha in alphas}
