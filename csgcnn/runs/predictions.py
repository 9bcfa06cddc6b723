"""Predictions of a chunk of structures, and how they are reported."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.structure_warnings import StructureNote, joined_codes
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target, with_unit
from csgcnn.runs.tables import predicted_cells, predicted_columns

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predictions for a chunk of records.

    Attributes:
        ids: Ids of the records that could be predicted.
        values: Predictions [n_ids, n_columns].
        std: Standard deviations [n_ids, n_columns], NaN for probabilities of a single model; None
            if the model predicts none.
        unseen: Atomic numbers that did not occur in the training set, with the first id of each.
        rejected: Records that could not be predicted.
        warnings: Warnings about structures.
    """

    ids: list[str]
    values: Floats
    std: Floats | None
    unseen: dict[int, str] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    warnings: list[StructureNote] = field(default_factory=list)

    @property
    def codes(self) -> list[str]:
        """Codes of the warnings about each structure, joined by `;`: [n_ids]."""
        codes = joined_codes(self.warnings)
        return [codes.get(id_, "") for id_ in self.ids]


def concatenate(parts: Sequence[Prediction]) -> Prediction:
    """Concatenate the predictions of consecutive records."""
    unseen: dict[int, str] = {}
    for part in parts:
        unseen = {**part.unseen, **unseen}
    stds = [part.std for part in parts if part.std is not None]
    return Prediction(
        [id_ for part in parts for id_ in part.ids],
        np.concatenate([part.values for part in parts]),
        np.concatenate(stds) if stds else None,
        unseen,
        [entry for part in parts for entry in part.rejected],
        [note for part in parts for note in part.warnings],
    )


def prediction_frame(
    prediction: Prediction, targets: Sequence[Target], index: Any = None
) -> "pd.DataFrame":
    """Return predictions as a DataFrame, with units in the names of its columns.

    The last column holds the codes of the warnings about each structure.

    Args:
        prediction: Predictions of all structures.
        targets: Targets of the model; a classification target has a column of its likeliest class.
        index: Index of the rows.
    """
    import pandas as pd

    values, std = prediction.values, prediction.std
    deviations = [None] * len(values) if std is None else std.tolist()
    rows = [
        [*predicted_cells(row, targets, deviation), codes]
        for row, deviation, codes in zip(values.tolist(), deviations, prediction.codes, strict=True)
    ]
    columns = [*predicted_columns(targets, std is not None), ("warnings", "")]
    return pd.DataFrame(rows, columns=[with_unit(*column) for column in columns], index=index)


def unseen_elements(store: GraphStore, rows: range, seen: Collection[int]) -> dict[int, str]:
    """Return atomic numbers that did not occur in the training set, with the first id of each.

    Args:
        store: Graphs.
        rows: Consecutive rows of the store.
        seen: Atomic numbers that occurred in the training set.
    """
    n_atoms = store.graphs.n_atoms
    first = int(n_atoms[: rows.start].sum(dtype=np.int64))
    of_rows = n_atoms[rows.start : rows.stop].astype(np.int64)
    atomic_number = store.graphs.atomic_number[first : first + int(of_rows.sum())]
    row_of_atom = np.repeat(np.arange(rows.start, rows.stop), of_rows)
    elements, positions = np.unique(atomic_number, return_index=True)
    return {
        z: store.ids[row_of_atom[position]]
        for z, position in zip(elements.tolist(), positions.tolist(), strict=True)
        if z not in seen
    }


def unseen_line(unseen: Mapping[str, str]) -> list[str]:
    """Return a warning about elements that were not in the training set, if there are any.

    Args:
        unseen: Symbols with the id of the first structure of each.
    """
    if not unseen:
        return []
    listed = ", ".join(f"{symbol} (first in {id_})" for symbol, id_ in sorted(unseen.items()))
    return [f"predictions with elements that were not in the training set are unreliable: {listed}"]
