"""Predict records, and rows of built graphs, in chunks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.checks import FormulaMismatch
from csgcnn.crystals.graph_builder import CHUNK_SIZE, GraphPlan
from csgcnn.crystals.records import Record, Scalar
from csgcnn.data.domain import Domain
from csgcnn.data.embeddings import Embeddings
from csgcnn.data.given_inputs import NOTHING_GIVEN, Given, input_cells, points, repeated, set_point
from csgcnn.data.inputs import reference_inputs, usable_rows
from csgcnn.data.record_stores import stores_of
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.data.training_set import TrainingSet
from csgcnn.data.transforms import interval_in_unit, predictions_in_unit
from csgcnn.errors import UserError
from csgcnn.evaluation.calibration import interval_stds
from csgcnn.evaluation.conformal import ConformalScores
from csgcnn.evaluation.inference import predict_with_pooled, predicted
from csgcnn.hardware import find_device
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.runs.models import TrainedModel, differing_settings
from csgcnn.runs.predictions import (
    Bounds,
    Prediction,
    comparison_cells,
    comparison_columns,
    with_nearest,
)

STORE_ROWS = 4096  # rows of a store that are predicted at once


class RowPredictor:
    """A trained model that predicts records and rows of a store; for attributes see `Predictor`.

    Args:
        model: The model.
        device: Device that computes.
    """

    def __init__(self, model: TrainedModel, device: torch.device | str = "cpu") -> None:
        self.device = find_device(device)
        self.network: CrystalGraphNetwork | Ensemble = model.network.to(self.device).eval()
        self.graph: GraphSettings = model.graph
        self.targets: list[Target] = model.targets
        self.columns = [name for target in model.targets for name in target.outputs]
        self.input_columns = [*reference_inputs(model.targets), *model.inputs]
        self.has_std: bool = model.network.has_std
        self.domain: Domain = model.domain
        self.training_set: TrainingSet = model.training_set
        self.embeddings: Embeddings | None = model.embeddings
        self.conformal: ConformalScores | None = model.conformal
        self.has_intervals = self.has_std or self.conformal is not None
        self.is_laplace = model.is_laplace
        self.n_networks = self.conformal.n_networks if self.conformal else 1

    def stream(
        self,
        records: Iterable[Record],
        batch_size: int = 256,
        workers: int | None = None,
        chunk_size: int = CHUNK_SIZE,
        formula_mismatch: FormulaMismatch = "refuse",
        given: Given = NOTHING_GIVEN,
    ) -> Iterator[Prediction]:
        """Predict records in chunks, in order; memory does not grow with their number.

        Args:
            records: Records with structures.
            batch_size: Crystals per forward pass.
            workers: Processes that build graphs; None: one per core.
            chunk_size: Records per chunk.
            formula_mismatch: What happens to a crystal that differs from the formula in its file.
            given: Values of inputs for all records, from `given_values`.
        """
        plan = GraphPlan(self.graph, workers, formula_mismatch, chunk_size=chunk_size)
        columns = [column.name for column in self.input_columns]
        for chunk, store in stores_of(records, plan, columns, self.device):
            found = self.empty()
            if store is not None:
                found = self.predict_rows(store, range(len(store)), batch_size, given)
            rejected = [*chunk.rejected, *found.rejected]
            yield replace(found, rejected=rejected, warnings=chunk.warnings)

    def stream_store(
        self,
        store: GraphStore,
        batch_size: int = 256,
        first: int = 0,
        chunk_size: int = STORE_ROWS,
        given: Given = NOTHING_GIVEN,
    ) -> Iterator[Prediction]:
        """Predict the rows of a store in chunks, in order.

        Args:
            store: Graphs, on the device of the model.
            batch_size: Crystals per forward pass.
            first: First row to predict.
            chunk_size: Rows per chunk.
            given: Values of inputs for all rows, from `given_values`.

        Raises:
            UserError: The graphs have other settings than those of the model.
        """
        self.check_settings(store)
        for start in range(first, len(store), chunk_size):
            rows = range(start, min(start + chunk_size, len(store)))
            yield self.predict_rows(store, rows, batch_size, given)

    def predict_rows(
        self,
        store: GraphStore,
        rows: range,
        batch_size: int = 256,
        given: Given = NOTHING_GIVEN,
    ) -> Prediction:
        """Predict consecutive rows of a store, each for every combination of the given values.

        Args:
            store: Graphs with the settings of the model, on its device.
            rows: Rows to predict.
            batch_size: Crystals per forward pass.
            given: Values of inputs for all rows, from `given_values`.
        """
        index, rejected = usable_rows(store, rows, self.input_columns, [*given])
        if not len(index):
            return replace(self.empty(), rejected=rejected)
        found = []
        for point in points(given):
            set_point(store, self.input_columns, point)
            found.append(
                predict_with_pooled(self.network, store, index, batch_size, self.n_networks > 1)
            )
        outputs = [predicted(self.network, of_point) for of_point, _ in found]
        values = _interleaved([values for values, _ in outputs])
        std = _interleaved([std for _, std in outputs]) if self.has_std else None
        by_network = _interleaved([of_point for of_point, _ in found]) if self.conformal else None
        cells: dict[str, list[Any]] = {
            name: repeated(column, len(found))
            for name, column in comparison_cells(
                self.domain, self.training_set, store, index
            ).items()
        }
        if self.embeddings:
            pooled = _interleaved([pooled for _, pooled in found])
            cells = with_nearest(cells, self.embeddings.nearest(pooled))
        return Prediction(
            repeated([store.ids[row] for row in index.tolist()], len(found)),
            predictions_in_unit(values, self.targets).numpy(),
            None if std is None else std.numpy(),
            cells,
            rejected,
            inputs=input_cells(store, index, self.input_columns, given),
            outputs=None if by_network is None else by_network.numpy(),
        )

    def bounds(self, found: Prediction, level: float | None) -> Bounds | None:
        """Return the ends of intervals in the units of the targets, if the model has intervals.

        Args:
            found: Predictions.
            level: Coverage of the intervals; None: one standard deviation to each side.

        Returns:
            Lower and upper ends, both [n_ids, n_columns].

        Raises:
            ConfigError: The level is not between 0 and 1, or needs more calibration labels.
        """
        if level is not None and self.conformal and found.outputs is not None:
            outputs = torch.from_numpy(found.outputs)
            found_ends = self.conformal.bounds(outputs, self.targets, level)
            lower, upper = (predictions_in_unit(end, self.targets) for end in found_ends)
        elif found.std is not None:
            n_stds = 1.0 if level is None else interval_stds(level, self.is_laplace)
            values, std = (torch.from_numpy(part).double() for part in (found.values, found.std))
            lower, upper = interval_in_unit(values, std, self.targets, n_stds)
        else:
            return None
        return lower.numpy(), upper.numpy()

    def check_settings(self, store: GraphStore) -> None:
        """Check that a store holds the graphs that the model reads.

        Raises:
            UserError: It does not; the message names the settings that differ.
        """
        if found := differing_settings(asdict(self.graph), asdict(store.settings)):
            keys = ", ".join(f"graph.{key}={own} (not {other})" for key, own, other in found)
            raise UserError(f"the model needs graphs with {keys}; build the store with these")

    def empty(self) -> Prediction:
        """Return the prediction of no crystal."""
        values = np.empty((0, len(self.columns)), "f4")
        names = comparison_columns(self.domain, self.embeddings)
        cells: dict[str, list[Any]] = {name: [] for name in names}
        own = [column.name for column in self.input_columns if not column.is_reference]
        inputs = {name: list[Scalar]() for name in own}
        outputs = np.empty((0, 2, self.n_networks, len(self.columns)), "f4")
        return Prediction(
            [],
            values,
            values if self.has_std else None,
            cells,
            inputs=inputs,
            outputs=outputs if self.conformal else None,
        )


def _interleaved(parts: Sequence[Tensor]) -> Tensor:
    """Join predictions for several points [n_rows, ...]; those of a row follow each other."""
    return torch.stack([part.cpu() for part in parts], dim=1).flatten(0, 1)
