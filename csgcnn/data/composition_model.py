"""Features of compositions, and the ridge regression of a property on them."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER, atom_init, elemental
from csgcnn.data.store import GraphStore

N_FEATURES = 301
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)

# Maps features [n_rows, n_features] to predictions [n_rows, n_outputs].
Predict = Callable[[Tensor], Tensor]


def composition_features(store: GraphStore) -> Tensor:
    """Return the features of the composition of each crystal [n_graphs, N_FEATURES] float64.

    See `features_of_atoms`.
    """
    blocks = []
    for graphs in store.blocks():
        graph_of_atom = np.repeat(np.arange(len(graphs)), graphs.n_atoms)
        index, z, multiplicity = map(
            torch.from_numpy,
            (graph_of_atom, graphs.atomic_number.astype(int), graphs.atom_multiplicity),
        )
        blocks.append(features_of_atoms(index, z, multiplicity, len(graphs)))
    return torch.cat(blocks)


def elements_in(features: Tensor) -> Tensor:
    """Return whether a crystal holds an element [n_graphs, 101], by atomic number.

    Args:
        features: Features [n_graphs, 301], from `composition_features`.
    """
    return features[:, : MAX_ATOMIC_NUMBER + 1] > 0


def features_of_atoms(
    graph_index: Tensor, atomic_number: Tensor, multiplicity: Tensor, n_graphs: int
) -> Tensor:
    """Return features of the composition of each crystal.

    They are the fractions x_z of the elements, the means Σ x_z p_z of their properties p and the
    standard deviations sqrt(Σ x_z p_z² - mean²), as in Magpie (Ward et al., npj Comput. Mater. 2,
    16028, 2016). They are equal for every cell of a crystal, and for compressed and full graphs.

    Args:
        graph_index: Crystal of each node [n_atoms] int64.
        atomic_number: [n_atoms] int64.
        multiplicity: Number of sites that the node stands for [n_atoms].
        n_graphs: Number of crystals.

    Returns:
        Features [n_graphs, N_FEATURES] float64.
    """
    table = torch.from_numpy(_properties()).to(graph_index.device)
    count = table.new_zeros(n_graphs * len(table))
    # Sums of integers are exact in any order.
    count.index_add_(0, graph_index * len(table) + atomic_number, multiplicity.to(table.dtype))
    count = count.view(n_graphs, len(table))
    fraction = count / count.sum(1, keepdim=True)
    mean = fraction @ table
    deviation = (fraction @ table.square() - mean.square()).clamp(min=0).sqrt()
    return torch.cat([fraction, mean, deviation], dim=1)


@cache
def _properties() -> NDArray[Any]:
    """Return the properties of the elements, which are the rows."""
    return np.hstack([elemental(), atom_init()]).astype(np.float64)


def standardized(features: Tensor, train: Tensor) -> Tensor:
    """Return features with mean 0 and deviation 1 over rows; constants become zero.

    Args:
        features: Features [n_graphs, n_features].
        train: Those of the rows that determine mean and deviation [n_rows, n_features].
    """
    return (features - train.mean(0)) / _width(train)


def ridge(x: Tensor, y: Tensor) -> Callable[[float], Predict]:
    """Minimize the mean of (x w + b - y)² plus penalty w², in closed form.

    Hoerl & Kennard, Technometrics 12, 55, 1970.

    Args:
        x: Features [n_rows, n_features].
        y: Values [n_rows, n_outputs].

    Returns:
        A function that returns the fitted model for a penalty.
    """
    x_mean, y_mean = x.mean(0), y.mean(0)
    values, vectors = torch.linalg.eigh((x - x_mean).T @ (x - x_mean) / len(x))
    projected = vectors.T @ ((x - x_mean).T @ (y - y_mean) / len(x))

    def with_penalty(penalty: float) -> Predict:
        weight = vectors @ (projected / (values.clamp(min=0).unsqueeze(1) + penalty))
        return lambda rows: (rows - x_mean) @ weight + y_mean

    return with_penalty


class RidgeFit(NamedTuple):
    """A ridge regression of one property, and what it says of each row without this row.

    Attributes:
        weight: [n_features] float64.
        bias: Scalar, float64.
        left_out: Prediction of each row by the fit to all other rows [n_rows].
        leverage: Leverage of each row [n_rows].
    """

    weight: Tensor
    bias: Tensor
    left_out: Tensor
    leverage: Tensor


def fit_ridge(features: Tensor, labels: Tensor) -> RidgeFit:
    """Fit labels by ridge regression, with the penalty of the lowest leave-one-out error.

    The residual without a row is e / (1 - h), with its residual e and leverage h in the fit to all
    rows (Allen, Technometrics 16, 125, 1974). The error is the mean of their absolute values.

    Args:
        features: Features [n_rows, n_features].
        labels: Known values [n_rows].
    """
    center, width = features.mean(0), _width(features)
    x, y = (features - center) / width, labels.double()
    n_rows, mean = len(x), y.mean()
    values, vectors = torch.linalg.eigh(x.T @ x / n_rows)
    projected = x @ vectors
    covariance = projected.T @ (y - mean) / n_rows
    fits = []
    for penalty in PENALTIES:
        shrunk = 1 / (values.clamp(min=0) + penalty)
        fitted = mean + projected @ (shrunk * covariance)
        leverage = ((1 + projected.square() @ shrunk) / n_rows).clamp(max=1 - 1e-9)
        fits.append(((y - fitted) / (1 - leverage), leverage, shrunk))
    residual, leverage, shrunk = min(fits, key=lambda fit: fit[0].abs().mean().item())
    weight = vectors @ (shrunk * covariance) / width
    return RidgeFit(weight, mean - center @ weight, y - residual, leverage)


def _width(features: Tensor) -> Tensor:
    """Return the standard deviations of features, infinite for constants."""
    width = features.std(0)
    return torch.where(width > 1e-9, width, torch.inf)
