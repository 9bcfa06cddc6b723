"""Predict properties of crystal structures with a trained model."""

import warnings as python_warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.targets import plugins_allowed
from csgcnn.crystals.checks import FormulaMismatch
from csgcnn.crystals.graph_builder import CHUNK_SIZE, GraphPlan, build_graphs
from csgcnn.crystals.records import Record
from csgcnn.data.domain import Domain
from csgcnn.data.inputs import NO_INPUTS, Inputs, columns_of, input_columns, records_of, usable_rows
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target, with_unit
from csgcnn.data.training_set import TrainingSet
from csgcnn.data.transforms import predictions_in_unit, std_in_unit
from csgcnn.errors import DataWarning, StructureError, UserError
from csgcnn.evaluation.calibration import interval_stds
from csgcnn.evaluation.inference import predict_with_std
from csgcnn.hardware import find_device
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.runs.models import TrainedModel, checkpoint_paths, differing_settings, load_model
from csgcnn.runs.predictions import (
    Floats,
    Prediction,
    comparison_cells,
    comparison_columns,
    concatenate,
    model_notes,
    prediction_frame,
    warning_lines,
)

if TYPE_CHECKING:
    import pandas as pd

STORE_ROWS = 4096  # rows of a store that are predicted at once
Level = float | None


def load(
    path: str | Path | Sequence[str | Path],
    device: torch.device | str = "cpu",
    plugins: Sequence[str] = (),
) -> "Predictor":
    """Load a trained model from its checkpoint, or an ensemble from several.

    Args:
        path: Checkpoint, run or sweep, a list of these, or a pattern such as `runs/*`.
        device: Device that computes: cpu, cuda, cuda:N, or auto, the GPU if there is one.
        plugins: Packages whose classes the checkpoint may name; their code is executed.

    Returns:
        The model, ready to predict.

    Raises:
        UserError: A file is not a usable checkpoint, or their targets or graphs differ.

    Examples:
        >>> import csgcnn
        >>> model = csgcnn.load("best.ckpt")
        >>> model.predict(structures)  # [n_structures, n_columns]: model.columns
    """
    return Predictor.load(path, device, plugins)


class Predictor:
    """A trained model, or an ensemble of models, that predicts structures.

    It predicts a column for each number, in `units`, and for each class of a classification
    target, its probability; `columns` names them. An ensemble predicts the mean of its members.
    Ensembles, and models trained with a likelihood as loss, also predict standard deviations
    (`has_std`), which are calibrated on the validation rows if they come from one training.

    Attributes:
        names: Names of the targets.
        units: Units of the targets.
        columns: Names of the predicted columns.
        targets: The targets.
        inputs: Names of the columns that it reads beside the structures.
        domain: What occurred in the training set: elements, pairs of neighbors, ranges.
        training_set: The training crystals, as far as they are known.
        is_laplace: Whether the standard deviations are of Laplace distributions.
        uncalibrated: Names of the targets whose standard deviations are not calibrated.
        split: Ids of the train, val and test rows, if they are known.
    """

    def __init__(self, model: TrainedModel, device: torch.device | str = "cpu") -> None:
        self.device = find_device(device)
        self.network: CrystalGraphNetwork | Ensemble = model.network.to(self.device).eval()
        self.graph: GraphSettings = model.graph
        self.targets: list[Target] = model.targets
        self.names = [target.name for target in model.targets]
        self.units = [target.unit for target in model.targets]
        self.columns = [name for target in model.targets for name in target.outputs]
        self.inputs = input_columns(model.targets)
        self.has_std: bool = model.network.has_std
        self.is_laplace = model.is_laplace
        self.uncalibrated = list(model.uncalibrated)
        self.domain: Domain = model.domain
        self.training_set: TrainingSet = model.training_set
        self.split = model.split
        self._told = set[str]()

    @classmethod
    def load(
        cls,
        path: str | Path | Sequence[str | Path],
        device: torch.device | str = "cpu",
        plugins: Sequence[str] = (),
    ) -> "Predictor":
        """Load a model, as `csgcnn.load` does.

        Args:
            path: Checkpoint, several, or a pattern.
            device: Device that computes.
            plugins: Packages whose classes the checkpoint may name.
        """
        with plugins_allowed(plugins):
            return cls(load_model(checkpoint_paths(path), device), device)

    @overload
    def predict(
        self, structures: Any, inputs: Inputs = ..., *, as_frame: Literal[False] = False
    ) -> Floats: ...
    @overload
    def predict(
        self, structures: Any, inputs: Inputs = ..., *, as_frame: Literal[True], level: Level = None
    ) -> "pd.DataFrame": ...
    def predict(
        self,
        structures: Any,
        inputs: Inputs = NO_INPUTS,
        *,
        as_frame: bool = False,
        level: Level = None,
    ) -> "Floats | pd.DataFrame":
        """Predict structures.

        Args:
            structures: One structure, or a list or column of a DataFrame of them: pymatgen
                `Structure`, ASE `Atoms`, `Crystal`, dict, path or text of a structure file.
            inputs: Columns that the model reads beside the structures (`self.inputs`), by name.
            as_frame: Whether to return a DataFrame, with units in its columns, standard
                deviations if the model predicts them, the codes of warnings about each structure,
                and the index of a column that was given.
            level: Coverage of intervals, such as 0.9; their bounds are columns of the DataFrame.

        Returns:
            Predictions [n_structures, n_columns], or a DataFrame with a row for each structure.

        Raises:
            StructureError: A structure cannot be used; the message gives position and reason.

        Warns:
            DataWarning: A structure may be wrong, or is outside the domain of the training set, so
                that its prediction may be far off.
        """
        found = self._predict(structures, inputs, with_std=as_frame)
        if as_frame:
            # a column of a DataFrame keeps its index
            index = structures.index if hasattr(structures, "iloc") else None
            n_stds = None if level is None else interval_stds(level, self.is_laplace)
            return prediction_frame(found, self.targets, index, n_stds)
        return found.values

    def predict_with_std(
        self, structures: Any, inputs: Inputs = NO_INPUTS
    ) -> tuple[Floats, Floats]:
        """Predict structures with standard deviations.

        Args:
            structures: As for `predict`.
            inputs: As for `predict`.

        Returns:
            Predictions and standard deviations, both [n_structures, n_columns]. Of a target with a
            transform, half of the width of the interval that `predict(as_frame=True)` gives.

        Raises:
            StructureError: A structure cannot be used.
            UserError: The model predicts no standard deviation.
        """
        found = self._predict(structures, inputs, with_std=True)
        if found.std is None:
            raise UserError(
                "this model does not predict a standard deviation; load several checkpoints as an "
                "ensemble: load([a, b, c])"
            )
        return found.values, std_in_unit(found.values, found.std, self.targets)

    def stream(
        self,
        records: Iterable[Record],
        batch_size: int = 256,
        workers: int | None = None,
        chunk_size: int = CHUNK_SIZE,
        formula_mismatch: FormulaMismatch = "refuse",
    ) -> Iterator[Prediction]:
        """Predict records in chunks, in order; memory does not grow with their number.

        Args:
            records: Records with structures.
            batch_size: Crystals per forward pass.
            workers: Processes that build graphs; None: one per core.
            chunk_size: Records per chunk.
            formula_mismatch: What happens to a crystal that differs from the formula in its file.
        """
        plan = GraphPlan(self.graph, workers, formula_mismatch, chunk_size=chunk_size)
        for chunk in build_graphs(records, plan):
            found = self._empty()
            if chunk.graphs is not None:
                ids = [record.id for record in chunk.records]
                columns = columns_of(chunk.records, self.inputs)
                store = GraphStore(chunk.graphs, ids, columns, self.graph).to(self.device)
                found = self.predict_rows(store, range(len(store)), batch_size)
            rejected = [*chunk.rejected, *found.rejected]
            yield replace(found, rejected=rejected, warnings=chunk.warnings)

    def stream_store(
        self,
        store: GraphStore,
        batch_size: int = 256,
        first: int = 0,
        chunk_size: int = STORE_ROWS,
    ) -> Iterator[Prediction]:
        """Predict the rows of a store in chunks, in order.

        Args:
            store: Graphs, on the device of the model.
            batch_size: Crystals per forward pass.
            first: First row to predict.
            chunk_size: Rows per chunk.

        Raises:
            UserError: The graphs have other settings than those of the model.
        """
        self.check_settings(store)
        for start in range(first, len(store), chunk_size):
            rows = range(start, min(start + chunk_size, len(store)))
            yield self.predict_rows(store, rows, batch_size)

    def predict_rows(self, store: GraphStore, rows: range, batch_size: int = 256) -> Prediction:
        """Predict consecutive rows of a store.

        Args:
            store: Graphs with the settings of the model, on its device.
            rows: Rows to predict.
            batch_size: Crystals per forward pass.
        """
        index, rejected = usable_rows(store, rows, self.inputs)
        if not len(index):
            return replace(self._empty(), rejected=rejected)
        values, std = predict_with_std(self.network, store, index, batch_size)
        return Prediction(
            [store.ids[row] for row in index.tolist()],
            predictions_in_unit(values.cpu(), self.targets).numpy(),
            None if std is None else std.cpu().numpy(),
            comparison_cells(self.domain, self.training_set, store, index),
            rejected,
        )

    def check_settings(self, store: GraphStore) -> None:
        """Check that a store holds the graphs that the model reads.

        Raises:
            UserError: It does not; the message names the settings that differ.
        """
        if found := differing_settings(asdict(self.graph), asdict(store.settings)):
            keys = ", ".join(f"graph.{key}={own} (not {other})" for key, own, other in found)
            raise UserError(f"the model needs graphs with {keys}; build the store with these")

    def __repr__(self) -> str:
        targets = ", ".join(map(with_unit, self.names, self.units))
        return f"Predictor({targets}; {len(self.domain.elements)} elements)"

    def _predict(self, structures: Any, inputs: Inputs, with_std: bool) -> Prediction:
        records = records_of(structures, inputs, self.inputs)
        chunks = list(self.stream(records, workers=1))
        found = concatenate([self._empty(), *chunks])
        for id_, reason in found.rejected:
            raise StructureError(f"{id_}: {reason}")
        notes = model_notes(self.domain, self.uncalibrated if with_std else ())
        for line in [*warning_lines(found), *(note for note in notes if note not in self._told)]:
            python_warnings.warn(line, DataWarning, stacklevel=3)
        self._told.update(notes)
        return found

    def _empty(self) -> Prediction:
        empty = np.empty((0, len(self.columns)), "f4")
        cells: dict[str, list[str]] = {name: [] for name in comparison_columns(self.domain)}
        return Prediction([], empty, empty if self.has_std else None, cells)
