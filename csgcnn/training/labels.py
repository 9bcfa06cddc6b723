"""Labels of a training: the values of the targets, and what the network is trained on."""

from itertools import accumulate

import torch
from torch import Tensor

from csgcnn.data.dataset import Dataset
from csgcnn.nn.heads import TargetScaler
from csgcnn.nn.network import CrystalGraphNetwork


class Labels:
    """Values of the targets, and the standardized differences from the reference of the network.

    Reference and scaler of the network are fitted on the training rows.

    Args:
        model: The network.
        dataset: Graphs, which lie on the device to train on, and values of the targets.
        train_rows: Training rows [n_rows] int64, on the host.

    Attributes:
        values: Values as they are trained, without a change by a reference [n_graphs, sum of
            n_labels].
        reference: What is subtracted from them, of this shape or zeros [n_graphs, 1].
    """

    def __init__(self, model: CrystalGraphNetwork, dataset: Dataset, train_rows: Tensor) -> None:
        self.model, self.store = model, dataset.store
        self.values = dataset.values.to(self.store.device)
        of_values = TargetScaler(model.scaler.n_outputs)
        sizes = [target.n_labels for target in dataset.targets]
        self._first = [0, *accumulate(sizes)][:-1]
        of_values.fit(dataset.values[train_rows], sizes)
        self._stds = of_values.std
        if model.reference is not None:
            model.reference.fit(self.store, dataset.values, train_rows)
        self.read_reference()
        differences = (self.values - self.reference)[train_rows.to(self.store.device)]
        model.scaler.fit(differences, sizes)

    def read_reference(self) -> None:
        """Compute the reference of each crystal; to be called when weights are replaced."""
        self.reference = torch.zeros_like(self.values[:, :1])
        if self.model.reference is not None:
            self.reference = self.model.reference.of_store(self.store).to(self.values)

    @property
    def stds(self) -> list[float]:
        """Standard deviation of each target, in which the score of an epoch measures errors."""
        has_reference = self.model.reference is not None
        return (self._stds if has_reference else self.model.scaler.std)[self._first].tolist()

    def standardized(self, rows: Tensor) -> Tensor:
        """Return what the loss compares outputs with.

        Args:
            rows: [n_rows] int64.

        Returns:
            [n_rows, sum of n_labels], NaN where missing.
        """
        rows = rows.to(self.store.device)
        differences = self.values.index_select(0, rows) - self.reference.index_select(0, rows)
        return self.model.scaler.standardize(differences)

    def predicted(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return values in physical units and probabilities [n_rows, sum of n_outputs].

        Args:
            outputs: What the network returns for rows, as `CrystalGraphNetwork.standardized`.
            rows: The rows [n_rows] int64.
        """
        reference = self.reference.index_select(0, rows.to(self.store.device))
        return self.model.scaler(outputs) + reference
