"""Predictions of a chunk of structures, and how they are reported."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.structure_warnings import StructureNote, joined_codes, summary_lines
from csgcnn.data.domain import MEANINGS, Domain, unseen_elements
from csgcnn.data.embeddings import Embeddings, Nearest
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.data.targets import Target, with_unit
from csgcnn.data.training_set import TrainingSet
from csgcnn.errors import one_line, plural
from csgcnn.runs.tables import predicted_columns, predicted_rows

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
# Lower and upper ends of intervals, both [n_ids, n_columns].
Bounds = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]

IN_TRAINING, TRUE = "in_training", "true"
NEAREST_ID = "nearest_id"
NEAREST_NUMBERS = ("nearest_distance", "nearest_percentile")
UNSEEN_ELEMENTS, OUT_OF_DOMAIN, WARNINGS = "unseen_elements", "out_of_domain", "warnings"
# Separates the symbols or reasons of a cell.
SEPARATOR = ";"
# Ids and details in a warning.
MAX_SHOWN = 3
LISTED_DETAILS = ("unseen_element", "unseen_pair")
NO_DOMAIN = (
    "this model was trained by an earlier version, which stored no ranges: predictions outside its "
    "domain are not marked, except for unseen elements; train again for the column out_of_domain"
)
NOT_CALIBRATED = "the standard deviations of {} are not calibrated"


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predictions for a chunk of records.

    Attributes:
        ids: Ids of the records that could be predicted.
        values: Predictions [n_ids, n_columns].
        std: Standard deviations of what is trained [n_ids, n_columns], NaN for probabilities of a
            single model; None if the model predicts none.
        domain: Columns that compare the crystals with the training set, by name:
            `comparison_columns`, each [n_ids]; texts, and the numbers `NEAREST_NUMBERS`.
        rejected: Records that could not be predicted.
        warnings: Warnings about structures.
        inputs: Values of `dataset.inputs` by name, each [n_ids].
        outputs: Predictions and standard deviations on the trained scale, by network [n_ids, 2,
            n_networks, n_columns]; None if the model has no scores of calibration rows.
    """

    ids: list[str]
    values: Floats
    std: Floats | None
    domain: dict[str, list[Any]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    warnings: list[StructureNote] = field(default_factory=list)
    inputs: dict[str, list[Scalar]] = field(default_factory=dict)
    outputs: Floats | None = None

    @property
    def texts(self) -> dict[str, list[Any]]:
        """The columns that follow the predictions: `domain` and warnings, each [n_ids]."""
        codes = joined_codes(self.warnings)
        return {**self.domain, WARNINGS: [codes.get(id_, "") for id_ in self.ids]}


def concatenate(parts: Sequence[Prediction]) -> Prediction:
    """Concatenate the predictions of consecutive records, of at least one part."""
    stds = [part.std for part in parts if part.std is not None]
    outputs = [part.outputs for part in parts if part.outputs is not None]
    return Prediction(
        [id_ for part in parts for id_ in part.ids],
        np.concatenate([part.values for part in parts]),
        np.concatenate(stds) if stds else None,
        {name: [cell for part in parts for cell in part.domain[name]] for name in parts[0].domain},
        [entry for part in parts for entry in part.rejected],
        [note for part in parts for note in part.warnings],
        {name: [cell for part in parts for cell in part.inputs[name]] for name in parts[0].inputs},
        np.concatenate(outputs) if outputs else None,
    )


def prediction_frame(
    prediction: Prediction,
    targets: Sequence[Target],
    index: Any = None,
    bounds: Bounds | None = None,
    with_bounds: bool = False,
) -> "pd.DataFrame":
    """Return predictions as a DataFrame, with units in the names of its columns.

    The first columns are the inputs beside the structure, the last ones `Prediction.texts`.

    Args:
        prediction: Predictions of all structures.
        targets: Targets of the model; a classification target has a column of its likeliest class.
        index: Index of the rows.
        bounds: Ends of intervals, if there are intervals.
        with_bounds: Whether those of targets without a transform are columns, too.
    """
    import pandas as pd

    values, std = prediction.values, prediction.std
    with_bounds &= bounds is not None
    rows = [*predicted_rows(values, targets, std, bounds, with_bounds)]
    named = predicted_columns(targets, std is not None, with_bounds)
    columns = [with_unit(name, unit) for name, unit in named]
    if index is not None and len(index):
        index = index.repeat(len(values) // len(index))
    inputs = pd.DataFrame(prediction.inputs, index=index)
    frame = pd.DataFrame(rows, columns=columns, index=index).assign(**prediction.texts)
    return frame if inputs.empty else inputs.join(frame)


def model_notes(domain: Domain, uncalibrated: Sequence[str]) -> list[str]:
    """Return warnings about all predictions of a model.

    Args:
        domain: Domain of the model.
        uncalibrated: Names of the numbers with standard deviations that are not calibrated.
    """
    notes = [] if domain.is_known else [NO_DOMAIN]
    return notes + ([NOT_CALIBRATED.format(", ".join(uncalibrated))] if uncalibrated else [])


def comparison_columns(domain: Domain, embeddings: Embeddings | None) -> list[str]:
    """Return the names of the columns that compare crystals with the training set.

    Args:
        domain: Domain of the model.
        embeddings: Embeddings of its training crystals, if they are stored.
    """
    nearest = [NEAREST_ID, *NEAREST_NUMBERS] if embeddings else []
    reasons = [OUT_OF_DOMAIN] if domain.is_known else []
    return [*nearest, IN_TRAINING, UNSEEN_ELEMENTS, *reasons]


def comparison_cells(
    domain: Domain, training_set: TrainingSet, store: GraphStore, rows: Tensor
) -> dict[str, list[str]]:
    """Return the columns that compare crystals with the training set of a model.

    `in_training` is empty where nothing is known of the training crystals.

    Args:
        domain: Domain of the model.
        training_set: Training set of the model.
        store: Graphs with the settings of the model.
        rows: Rows [n_rows] int64, on the host.
    """
    texts = {None: "", False: "false", True: TRUE}
    cells = [texts[is_one] for is_one in training_set.contains(store, rows)]
    return {IN_TRAINING: cells, **domain_cells(domain, store, rows)}


def with_nearest(cells: Mapping[str, list[str]], nearest: Nearest) -> dict[str, list[Any]]:
    """Return `comparison_cells` with the nearest training crystals, and their reasons.

    Args:
        cells: The columns [n_rows].
        nearest: The nearest training crystals.
    """
    found = dict(cells)
    numbers = dict(zip(NEAREST_NUMBERS, (nearest.distance, nearest.percentile), strict=True))
    if OUT_OF_DOMAIN in found:
        pairs = zip(found[OUT_OF_DOMAIN], nearest.reasons, strict=True)
        found[OUT_OF_DOMAIN] = [SEPARATOR.join(filter(None, pair)) for pair in pairs]
    return {NEAREST_ID: nearest.ids, **numbers, **found}


def domain_cells(domain: Domain, store: GraphStore, rows: Tensor) -> dict[str, list[str]]:
    """Return the columns that say how crystals are outside the domain of a model.

    Args:
        domain: Domain of the model.
        store: Graphs with the settings of the model.
        rows: Rows [n_rows] int64, on the host.
    """
    reasons = domain.reasons(store, rows)
    cells = {UNSEEN_ELEMENTS: [SEPARATOR.join(unseen_elements(of_row)) for of_row in reasons]}
    if domain.is_known:
        cells[OUT_OF_DOMAIN] = [SEPARATOR.join(of_row) for of_row in reasons]
    return cells


class DomainSummary:
    """Count the predictions outside the domain of a model, by the code of the reason.

    Attributes:
        counts: Number of predictions by code.
    """

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self._ids: dict[str, list[str]] = {}
        self._details: dict[str, dict[str, str]] = {}

    def add(self, id_: str, cells: Mapping[str, str]) -> None:
        """Count a prediction.

        Args:
            id_: Its id.
            cells: Its cells of the columns of `domain_cells`, and others.
        """
        reasons = [f"unseen_element:{symbol}" for symbol in _items(cells.get(UNSEEN_ELEMENTS, ""))]
        reasons += _items(cells.get(OUT_OF_DOMAIN, ""))
        found = [reason.partition(":")[::2] for reason in dict.fromkeys(reasons)]
        for code in dict.fromkeys(code for code, _ in found):
            self.counts[code] += 1
            ids = self._ids.setdefault(code, [])
            ids += [id_] * (len(ids) <= MAX_SHOWN and id_ not in ids)
        for code, detail in found:
            listed = self._details.setdefault(code, {})
            if code in LISTED_DETAILS and len(listed) <= MAX_SHOWN:
                listed.setdefault(detail, id_)

    def lines(self) -> list[str]:
        """Return a warning for each code that occurred, with the first ids."""
        return [self._line(code) for code in MEANINGS if code in self.counts]

    def _line(self, code: str) -> str:
        n, details = self.counts[code], self._details[code]
        listed = [f"{detail} (first in {one_line(id_)})" for detail, id_ in details.items()]
        first = f": {_first(listed)}" if listed else ""
        return (
            f"{code}: {plural(n, 'prediction')} may be far off; {MEANINGS[code]}{first}; "
            f"ids: {_first([*map(one_line, self._ids[code])])}"
        )


def warning_lines(prediction: Prediction) -> list[str]:
    """Return warnings about structures, and about predictions outside the domain of the model."""
    domain = DomainSummary()
    for position, id_ in enumerate(prediction.ids):
        domain.add(id_, {name: column[position] for name, column in prediction.domain.items()})
    return [*summary_lines(prediction.warnings, told=domain.counts), *domain.lines()]


def _items(cell: str) -> list[str]:
    return cell.split(SEPARATOR) if cell else []


def _first(items: Sequence[str]) -> str:
    more = ", ..." if len(items) > MAX_SHOWN else ""
    return ", ".join(items[:MAX_SHOWN]) + more
