"""How predictions and trainings are told: columns of csv files and lines on the terminal."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from csgcnn.data.targets import Target, with_unit
from csgcnn.io import write_csv

T = TypeVar("T")


def predicted_columns(targets: Sequence[Target], with_std: bool = False) -> list[tuple[str, str]]:
    """Name and unit of what is told of new structures: a number, a class and the probabilities of all classes.

    `with_std`: the standard deviation behind each number and probability.
    """
    columns = []
    for target in targets:
        unit = "" if target.classes else target.unit
        columns += [(target.name, "")] if target.classes else []
        for name in target.outputs:
            columns += [(name, unit), (f"{name}_std", unit)] if with_std else [(name, unit)]
    return columns


def predicted_cells(
    row: Sequence[float], targets: Sequence[Target], std: Sequence[float] | None = None
) -> list[Any]:
    """What stands below `predicted_columns` for a row of predictions, and their deviations: [sum of n_outputs]."""
    told = list(zip(row, strict=True)) if std is None else list(zip(row, std, strict=True))
    cells: list[Any] = []
    for target, outputs, of_target in zip(
        targets, _parts(row, targets), _parts(told, targets), strict=True
    ):
        cells += [_likeliest(target, outputs)] if target.classes else []
        cells += chain.from_iterable(of_target)
    return cells


def compared_columns(targets: Sequence[Target], with_std: bool = False) -> list[str]:
    """Header of predictions beside known values; `with_std`: and the standard deviations of numbers."""
    columns = []
    for target in targets:
        name, unit = target.name, target.unit
        if target.classes:
            columns += [name, f"{name}_prediction", *target.outputs]
        else:
            own = (name, f"{name}_prediction", f"{name}_error", *[f"{name}_std"] * with_std)
            columns += [with_unit(column, unit) for column in own]
    return columns


def compared_rows(
    prediction: Tensor, values: Tensor, targets: Sequence[Target], std: Tensor | None = None
) -> Iterator[list[Any]]:
    """What stands below `compared_columns` for each row; an unknown number is NaN, an unknown class empty.

    Shapes: prediction, std [n_rows, sum of n_outputs], values [n_rows, n_targets].
    """
    deviations = [[None] * prediction.shape[1]] * len(values) if std is None else std.tolist()
    for row, known, of_row in zip(prediction.tolist(), values.tolist(), deviations, strict=True):
        cells: list[Any] = []
        parts = zip(targets, _parts(row, targets), known, _parts(of_row, targets), strict=True)
        for target, outputs, value, deviation in parts:
            if target.classes:
                true_class = "" if value != value else target.classes[int(value)]
                cells += [true_class, _likeliest(target, outputs), *outputs]
            else:
                cells += [
                    value,
                    *outputs,
                    outputs[0] - value,
                    *(deviation if std is not None else []),
                ]
        yield cells


def _parts(row: Sequence[T], targets: Sequence[Target]) -> Iterator[list[T]]:
    start = 0
    for target in targets:
        yield list(row[start : start + target.n_outputs])
        start += target.n_outputs


def _likeliest(target: Target, probabilities: Sequence[float]) -> str:
    return target.classes[max(range(len(probabilities)), key=probabilities.__getitem__)]


def write_predictions(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a csv of predictions."""
    write_csv(path, header, (list(map(short_cell, row)) for row in rows))


def rejected_path(output: Path) -> Path:
    """Where the records rejected on the way to `output` are listed: predictions.csv -> predictions.rejected.csv."""
    return output.parent / (output.name.removesuffix(".csv") + ".rejected.csv")


def short_cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if value != value else f"{value:.7g}"
    return value
