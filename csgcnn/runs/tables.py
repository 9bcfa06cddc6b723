"""Columns and rows of csv files with predictions.

A regression target has a column with its unit; a classification target has columns for its most
probable class and for the probability of each class. A target with a grid has a column for each
point; beside known values, which `write_vectors` writes, it has columns of errors instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.data.targets import Target, with_unit
from csgcnn.data.transforms import interval_in_unit, labels_in_unit, predictions_in_unit
from csgcnn.evaluation.number_metrics import wasserstein_distances
from csgcnn.io import replacing

Array = NDArray[np.floating[Any]]
T = TypeVar("T")


def predicted_columns(
    targets: Sequence[Target], with_std: bool = False, with_bounds: bool = False
) -> list[tuple[str, str]]:
    """Return name and unit of the columns of predictions for new structures.

    Args:
        targets: Targets of the model.
        with_std: Whether a column of standard deviations follows each number and probability, or
            two columns with the ends of an interval if the target is transformed.
        with_bounds: Whether the ends of an interval follow each number.
    """
    columns = []
    for target in targets:
        unit = "" if target.classes else target.unit
        columns += [(target.name, "")] if target.classes else []
        for name in target.outputs:
            endings = _endings(target, with_std, with_bounds)
            columns += [(f"{name}{ending}", unit) for ending in ("", *endings)]
    return columns


def predicted_rows(
    values: Array,
    targets: Sequence[Target],
    std: Array | None = None,
    bounds: tuple[Array, Array] | None = None,
    with_bounds: bool = False,
) -> Iterator[list[Any]]:
    """Yield the cells below `predicted_columns` for each row.

    Args:
        values: Values in the units of the targets, and probabilities [n_rows, sum of n_outputs].
        targets: Targets of the model.
        std: Standard deviations of what is trained [n_rows, sum of n_outputs].
        bounds: Lower and upper ends of intervals in the units, both likewise.
        with_bounds: Whether there are columns of the ends for all numbers.
    """
    ends = _end_rows(std, bounds, targets, with_bounds, len(values))
    for row, of_row in zip(values.tolist(), ends, strict=True):
        cells: list[Any] = []
        parts = zip(targets, _split(row, targets), _split(of_row, targets), strict=True)
        for target, outputs, of_outputs in parts:
            cells += [_most_probable(target, outputs)] if target.classes else []
            cells += chain.from_iterable(
                [value, *of_output] for value, of_output in zip(outputs, of_outputs, strict=True)
            )
        yield cells


def compared_columns(targets: Sequence[Target], with_std: bool = False) -> list[str]:
    """Return the header of predictions beside known values.

    Args:
        targets: Targets of the model.
        with_std: Whether there is a column of standard deviations for each regression target.
    """
    columns = []
    for target in targets:
        name = target.name
        if target.classes:
            columns += [name, f"{name}_prediction", *target.outputs]
        elif target.grid:
            columns += [with_unit(f"{name}_mae", target.unit)]
            columns += [with_unit(f"{name}_wasserstein", target.grid_unit)]
        else:
            own = [name, f"{name}_prediction", f"{name}_error"]
            own += [f"{name}{ending}" for ending in _endings(target, with_std)]
            columns += [with_unit(column, target.unit) for column in own]
    return columns


def compared_rows(
    prediction: Tensor, values: Tensor, targets: Sequence[Target], std: Tensor | None = None
) -> Iterator[list[Any]]:
    """Yield the cells below `compared_columns` for each row.

    Args:
        prediction: Values as they are trained, and probabilities [n_rows, sum of n_outputs].
        values: Likewise values and positions of classes [n_rows, sum of n_labels], NaN where
            unknown.
        targets: Targets of the model.
        std: Standard deviations of what is trained [n_rows, sum of n_outputs].

    Yields:
        A row; an unknown number is NaN, an unknown class is empty.
    """
    prediction, values = predictions_in_unit(prediction, targets), labels_in_unit(values, targets)
    if targets[0].grid:
        # it is the only target
        distances = wasserstein_distances(prediction, values, torch.tensor(targets[0].grid))
        errors = (prediction - values).abs().nanmean(1)
        yield from map(list, zip(errors.tolist(), distances.tolist(), strict=True))
        return
    bounds = None
    if std is not None and any(target.transform != "none" for target in targets):
        lower, upper = interval_in_unit(prediction.double(), std.double(), targets)
        bounds = lower.numpy(), upper.numpy()
    deviations = None if std is None else std.numpy()
    ends = _end_rows(deviations, bounds, targets, False, len(values))
    for row, known, of_row in zip(prediction.tolist(), values.tolist(), ends, strict=True):
        cells: list[Any] = []
        parts = zip(targets, _split(row, targets), known, _split(of_row, targets), strict=True)
        for target, outputs, value, of_outputs in parts:
            if target.classes:
                true_class = "" if value != value else target.classes[int(value)]
                cells += [true_class, _most_probable(target, outputs), *outputs]
            else:
                cells += [value, *outputs, outputs[0] - value]
                cells += chain.from_iterable(of_outputs)
        yield cells


def _endings(target: Target, with_std: bool, with_bounds: bool = False) -> list[str]:
    is_transformed = target.transform != "none"
    has_bounds = (with_bounds and not target.classes) or (with_std and is_transformed)
    has_std = with_std and not is_transformed
    return [*(["_std"] if has_std else []), *(["_lower", "_upper"] if has_bounds else [])]


def _end_rows(
    std: Array | None,
    bounds: tuple[Array, Array] | None,
    targets: Sequence[Target],
    with_bounds: bool,
    n_rows: int,
) -> Iterator[list[list[float]]]:
    """Yield the cells below `_endings` for each output of each row."""
    columns = {} if std is None else {"_std": std}
    columns |= {} if bounds is None else dict(zip(("_lower", "_upper"), bounds, strict=True))
    lists = {ending: column.tolist() for ending, column in columns.items()}
    of_output = [target for target in targets for _ in target.outputs]
    endings = [_endings(target, std is not None, with_bounds) for target in of_output]
    for row in range(n_rows):
        yield [[lists[ending][row][place] for ending in own] for place, own in enumerate(endings)]


def _split(row: Sequence[T], targets: Sequence[Target]) -> Iterator[list[T]]:
    start = 0
    for target in targets:
        yield list(row[start : start + target.n_outputs])
        start += target.n_outputs


def _most_probable(target: Target, probabilities: Sequence[float]) -> str:
    return target.classes[max(range(len(probabilities)), key=probabilities.__getitem__)]


def write_vectors(
    path: Path, dataset: Dataset, prediction: Mapping[str, Tensor], split: Split
) -> None:
    """Write predictions beside known values of a target with a grid, as npz; else remove the file.

    Args:
        path: The file.
        dataset: The data set.
        prediction: Values of each part as they are trained [n_rows, n_points].
        split: Rows of each part.
    """
    if not dataset.targets[0].grid:
        path.unlink(missing_ok=True)
        return
    rows, values = (torch.cat([of[part] for part in prediction]) for of in (split, prediction))
    arrays: dict[str, Any] = {
        "id": np.array([dataset.store.ids[row] for row in rows.tolist()], dtype=str),
        "split": np.array([part for part in prediction for _ in split[part]], dtype=str),
        "grid": np.array(dataset.targets[0].grid),
        "true": labels_in_unit(dataset.values[rows], dataset.targets).numpy(),
        "predicted": predictions_in_unit(values, dataset.targets).numpy(),
    }
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)
