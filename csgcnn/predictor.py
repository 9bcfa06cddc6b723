"""Predict properties of crystal structures with a trained model."""

import warnings as python_warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from csgcnn.config.targets import plugins_allowed
from csgcnn.data.given_inputs import (
    NO_INPUTS,
    Inputs,
    records_of,
)
from csgcnn.data.targets import with_unit
from csgcnn.data.transforms import std_in_unit
from csgcnn.errors import DataWarning, StructureError, UserError
from csgcnn.runs.models import TrainedModel, checkpoint_paths, load_model
from csgcnn.runs.predictions import (
    Floats,
    Prediction,
    concatenate,
    model_notes,
    prediction_frame,
    warning_lines,
)
from csgcnn.runs.row_predictor import RowPredictor

if TYPE_CHECKING:
    import pandas as pd


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


class Predictor(RowPredictor):
    """A trained model, or an ensemble of models, that predicts structures.

    It predicts a column for each number, in `units`, and for each class of a classification
    target, its probability; `columns` names them. An ensemble predicts the mean of its members.
    Ensembles, and models trained with a likelihood as loss, also predict standard deviations
    (`has_std`), which are calibrated on the validation rows if they come from one training. Models
    with calibration rows have conformal intervals (`conformal`).

    Attributes:
        names: Names of the targets.
        units: Units of the targets.
        columns: Names of the predicted columns.
        targets: The targets.
        inputs: Names of the columns that it reads beside the structures.
        input_columns: These columns, with their categories.
        domain: What occurred in the training set: elements, pairs of neighbors, ranges.
        training_set: The training crystals, as far as they are known.
        embeddings: Embeddings of training crystals, if the checkpoint holds some.
        conformal: Scores of calibration rows, if the checkpoint holds some.
        has_intervals: Whether `level` gives intervals.
        is_laplace: Whether the standard deviations are of Laplace distributions.
        uncalibrated: Names of the targets whose standard deviations are not calibrated.
        split: Ids of the train, val and test rows, if they are known.
    """

    def __init__(self, model: TrainedModel, device: torch.device | str = "cpu") -> None:
        super().__init__(model, device)
        self.names = [target.name for target in model.targets]
        self.units = [target.unit for target in model.targets]
        self.inputs = list(dict.fromkeys(column.name for column in self.input_columns))
        self.uncalibrated = list(model.uncalibrated)
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
            inputs: Columns that the model reads beside the structures (`self.inputs`), by name; or
                one value for all. A text such as "100:1000:100", a range with both ends, or "all"
                categories gives a row for each structure and value.
            as_frame: Whether to return a DataFrame, with units in its columns, standard
                deviations if the model predicts them, the codes of warnings about each structure,
                and the index of a column that was given.
            level: Coverage of intervals, such as 0.9; their bounds are columns of the DataFrame,
                if the model has intervals.

        Returns:
            Predictions [n_structures, n_columns], or a DataFrame with a row for each structure.
            With several values of an input, the rows of a structure follow each other.

        Raises:
            StructureError: A structure cannot be used; the message gives position and reason.
            ConfigError: The level needs more calibration labels than there were.

        Warns:
            DataWarning: A structure may be wrong, or is outside the domain of the training set, so
                that its prediction may be far off.
        """
        found = self._predict(structures, inputs, with_std=as_frame)
        if as_frame:
            # a column of a DataFrame keeps its index
            index = structures.index if hasattr(structures, "iloc") else None
            bounds = self.bounds(found, level)
            return prediction_frame(found, self.targets, index, bounds, level is not None)
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

    def __repr__(self) -> str:
        targets = ", ".join(map(with_unit, self.names, self.units))
        return f"Predictor({targets}; {len(self.domain.elements)} elements)"

    def _predict(self, structures: Any, inputs: Inputs, with_std: bool) -> Prediction:
        records, given = records_of(structures, inputs, self.input_columns)
        chunks = list(self.stream(records, workers=1, given=given))
        found = concatenate([self.empty(), *chunks])
        for id_, reason in found.rejected:
            raise StructureError(f"{id_}: {reason}")
        notes = model_notes(self.domain, self.uncalibrated if with_std else ())
        for line in [*warning_lines(found), *(note for note in notes if note not in self._told)]:
            python_warnings.warn(line, DataWarning, stacklevel=3)
        self._told.update(notes)
        return found
