"""How predictions are told: columns of csv files and lines on the terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from csgcnn.data.targets import Target
from csgcnn.training.metrics import Metrics
from csgcnn.training.run_directory import with_unit


def predicted_columns(targets: Sequence[Target]) -> list[str]:
    """Header of the predictions of new structures: a number's value, a class and the probabilities of all classes."""
    return [
        column
        for target in targets
        for column in ([target.name, *target.outputs] if target.classes else [with_unit(target.name, target.unit)])
    ]


def predicted_cells(row: Sequence[float], targets: Sequence[Target]) -> list[Any]:
    """What stands below `predicted_columns` for a row of predictions [sum of n_outputs]."""
    return [
        cell
        for target, outputs in zip(targets, _parts(row, targets), strict=True)
        for cell in ([_likeliest(target, outputs), *outputs] if target.classes else outputs)
    ]


def compared_columns(targets: Sequence[Target]) -> list[str]:
    """Header of predictions beside known values."""
    columns = []
    for target in targets:
        name, unit = target.name, target.unit
        if target.classes:
            columns += [name, f"{name}_prediction", *target.outputs]
        else:
            columns += [with_unit(column, unit) for column in (name, f"{name}_prediction", f"{name}_error")]
    return columns


def compared_rows(prediction: Tensor, values: Tensor, targets: Sequence[Target]) -> Iterator[list[Any]]:
    """What stands below `compared_columns` for each row; an unknown number is NaN, an unknown class empty.

    Shapes: prediction [n_rows, sum of n_outputs], values [n_rows, n_targets].
    """
    for row, known in zip(prediction.tolist(), values.tolist(), strict=True):
        cells: list[Any] = []
        for target, outputs, value in zip(targets, _parts(row, targets), known, strict=True):
            if target.classes:
                true_class = "" if value != value else target.classes[int(value)]
                cells += [true_class, _likeliest(target, outputs), *outputs]
            else:
                cells += [value, *outputs, outputs[0] - value]
        yield cells


def told(target: Target, metrics: Metrics, baseline: Metrics) -> str:
    """The line of a target on the terminal; `baseline`: of `baseline_metrics`."""
    n, unit = metrics["n"], f" {target.unit}" if target.unit else ""
    if target.classes:
        return (
            f"accuracy of {target.name}: {metrics['accuracy']:.4g}, balanced {metrics['balanced_accuracy']:.4g}, "
            f"ROC-AUC {metrics['roc_auc']:.4g}, {n} crystals "
            f"(always the most frequent class: {baseline['accuracy']:.4g})"
        )
    return (
        f"MAE of {target.name}: {metrics['mae']:.4g}{unit}, RMSE {metrics['rmse']:.4g}, R2 {metrics['r2']:.4f}, "
        f"{n} crystals (predicting the mean: {baseline['mae']:.4g}{unit})"
    )


def _parts(row: Sequence[float], targets: Sequence[Target]) -> Iterator[list[float]]:
    start = 0
    for target in targets:
        yield list(row[start : start + target.n_outputs])
        start += target.n_outputs


def _likeliest(target: Target, probabilities: Sequence[float]) -> str:
    return target.classes[max(range(len(probabilities)), key=probabilities.__getitem__)]
