"""References: what is subtracted from the targets before training, and added to predictions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from csgcnn.data.batch import GraphBatch
from csgcnn.data.composition_model import (
    N_FEATURES,
    composition_features,
    features_of_atoms,
    fit_ridge,
)
from csgcnn.data.inputs import COMPOSITION
from csgcnn.data.store import GraphStore

BATCH = 1024  # crystals at once


class Reference(nn.Module):
    """What is subtracted from targets, all of which are numbers, on the scale that is trained.

    Shapes: GraphBatch -> [n_graphs, n_targets].
    """

    def fit(self, store: GraphStore, values: Tensor, rows: Tensor) -> None:
        """Fit to training rows.

        Args:
            store: The graphs.
            values: Values as they are trained [n_graphs, n_targets], NaN where missing.
            rows: Training rows [n_rows] int64, on the host.
        """

    def of_store(self, store: GraphStore) -> Tensor:
        """Return the reference of each crystal of a store [n_graphs, n_targets] float64."""
        with torch.no_grad():
            rows = torch.arange(len(store)).split(BATCH)
            return torch.cat([self(batch) for batch in store.batches(rows)])


class CompositionReference(Reference):
    """Predict targets from the composition alone, by ridge regression on the training rows.

    It is the composition baseline, `csgcnn.data.composition_model`. The sums of elemental reference
    energies are among the functions that it can represent.

    Args:
        n_targets: Number of targets, all of which are numbers.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, n_targets: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(N_FEATURES, n_targets, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(n_targets, dtype=torch.float64))

    def fit(self, store: GraphStore, values: Tensor, rows: Tensor) -> None:
        """Fit each target to the training rows that have a value.

        Args:
            store: The graphs.
            values: Values as they are trained [n_graphs, n_targets], NaN where missing.
            rows: Training rows [n_rows] int64, on the host.
        """
        features = composition_features(store)[rows]
        for i, labels in enumerate(values[rows].unbind(1)):
            known = labels.isfinite()
            fit = fit_ridge(features[known], labels[known])
            self.weight[:, i].copy_(fit.weight)
            self.bias[i] = fit.bias

    def forward(self, graph: GraphBatch) -> Tensor:
        atoms = (graph.graph_index, graph.atomic_number, graph.atom_multiplicity)
        return features_of_atoms(*atoms, graph.n_graphs) @ self.weight + self.bias


class InputReference(Reference):
    """Return the column of `dataset.delta`, which is subtracted from all targets.

    Args:
        n_targets: Number of targets.
    """

    def __init__(self, n_targets: int) -> None:
        super().__init__()
        self.n_targets = n_targets

    def forward(self, graph: GraphBatch) -> Tensor:
        if graph.inputs is None:
            raise ValueError("the batch has no inputs")
        return graph.inputs[:, :1].expand(-1, self.n_targets)


def build_reference(delta: str | None, n_outputs: Sequence[int]) -> Reference | None:
    """Build the reference that `dataset.delta` names.

    Args:
        delta: The key; None: nothing is subtracted.
        n_outputs: Outputs per target.
    """
    if not delta:
        return None
    return (CompositionReference if delta == COMPOSITION else InputReference)(len(n_outputs))
