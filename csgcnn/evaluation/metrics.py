"""Metrics of predictions: of numbers in their unit, of classes from their probabilities.

A `Metric` knows its name, label, unit, direction and formula. The columns of metrics.csv, the
entries of metrics.json, tables, figures, benchmarks and messages derive from it. A plugin adds one
with `register_metric`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from csgcnn.errors import plural
from csgcnn.evaluation import number_metrics
from csgcnn.evaluation.class_metrics import (
    NAN,
    accuracy,
    balanced_accuracy,
    class_roc_auc,
    mean_cross_entropy,
)

# `csgcnn table` imports this module without torch, whose import takes seconds.
if TYPE_CHECKING:
    from torch import Tensor

    from csgcnn.data.targets import Target

# By the names of the metrics; `n` is the number of rows.
Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """Describe a metric of one target over the rows where it is known.

    Attributes:
        name: Key in metrics.json; metrics.csv has the column val_<name>_<target>.
        label: Name in messages, tables and figures.
        task: Task of its targets, regression, classification, or grid: regression at its points.
        compute: Maps a prediction and the truth of at least one row to the value. Regression:
            both [n_rows]. Classification: probabilities [n_rows, n_classes] and positions of the
            true classes [n_rows] int64. Grid: both [n_rows, n_points], the truth NaN where unknown,
            and the points [n_points].
        has_unit: Whether it has the unit of the target.
        lower_is_better: Direction.
        each_epoch: Whether metrics.csv contains it.
        complement: Name of 1 - value, where that is an error.
    """

    name: str
    label: str
    task: str
    compute: Callable[..., float]
    has_unit: bool = False
    lower_is_better: bool = False
    each_epoch: bool = False
    complement: str = ""

    @property
    def error_label(self) -> str:
        """Name of `error`."""
        return self.label if self.lower_is_better else self.complement or f"1 - {self.label}"

    def error(self, value: float) -> float:
        """Return a value as an error: the lower the better."""
        return value if self.lower_is_better else 1 - value

    def format(self, value: float, unit: str) -> str:
        """Return a value as text, with the unit of its target if the metric has it: "0.2 eV".

        Args:
            value: The value.
            unit: Unit of the target.
        """
        return f"{value:.4g}{f' {unit}' if unit and self.has_unit else ''}"

    def sort_key(self, value: float) -> tuple[bool, float]:
        """Return a key that sorts values from the best to the worst, NaN last."""
        is_nan = value != value
        return is_nan, 0.0 if is_nan else value if self.lower_is_better else -value


REGRESSION, CLASSIFICATION, GRID = "regression", "classification", "grid"
MAE = Metric(
    "mae", "MAE", REGRESSION, number_metrics.mean_absolute_error,
    has_unit=True, lower_is_better=True, each_epoch=True,
)  # fmt: skip
RMSE = Metric(
    "rmse",
    "RMSE",
    REGRESSION,
    number_metrics.root_mean_square_error,
    has_unit=True,
    lower_is_better=True,
)
R2 = Metric("r2", "R2", REGRESSION, number_metrics.r2)
ACCURACY = Metric("accuracy", "accuracy", CLASSIFICATION, accuracy, complement="error rate")
BALANCED_ACCURACY = Metric(
    "balanced_accuracy", "balanced accuracy", CLASSIFICATION, balanced_accuracy, each_epoch=True
)
ROC_AUC = Metric("roc_auc", "ROC-AUC", CLASSIFICATION, class_roc_auc)
CROSS_ENTROPY = Metric(
    "cross_entropy", "cross entropy", CLASSIFICATION, mean_cross_entropy,
    lower_is_better=True, each_epoch=True,
)  # fmt: skip

# Those of a target with a grid have the names of those of a number.
MAE_OF_GRID, RMSE_OF_GRID, R2_OF_GRID = (replace(each, task=GRID) for each in (MAE, RMSE, R2))
WASSERSTEIN = Metric(
    "wasserstein", "Wasserstein distance", GRID, number_metrics.wasserstein, lower_is_better=True
)

_REGISTRY = [
    *(MAE, RMSE, R2, ACCURACY, BALANCED_ACCURACY, ROC_AUC, CROSS_ENTROPY),
    *(MAE_OF_GRID, RMSE_OF_GRID, R2_OF_GRID, WASSERSTEIN),
]


@dataclass(frozen=True, slots=True)
class TaskMetrics:
    """Describe what the metrics of a task are used for.

    Attributes:
        ranking: Ranks models in benchmarks, and is plotted for each epoch. Matbench ranks
            classifiers by the ROC-AUC of predicted labels, which is their balanced accuracy.
        secondary: Is listed beside it.
        baseline: Is compared with a constant prediction.
        selection: Decides on the best epoch, the lower the better.
    """

    ranking: Metric
    secondary: Metric
    baseline: Metric
    selection: Metric


TASKS = {
    REGRESSION: TaskMetrics(ranking=MAE, secondary=RMSE, baseline=MAE, selection=MAE),
    CLASSIFICATION: TaskMetrics(
        ranking=BALANCED_ACCURACY,
        secondary=ROC_AUC,
        baseline=ACCURACY,
        # the accuracy of few rows would tie between epochs
        selection=CROSS_ENTROPY,
    ),
    GRID: TaskMetrics(
        ranking=MAE_OF_GRID, secondary=WASSERSTEIN, baseline=MAE_OF_GRID, selection=MAE_OF_GRID
    ),
}


def register_metric(metric: Metric) -> None:
    """Add a metric to all results of its task; for plugins.

    Raises:
        ValueError: Its task is unknown, or another metric has its name.
    """
    if metric.task not in TASKS:
        raise ValueError(f"task={metric.task}: expected {' or '.join(TASKS)}")
    others = [known for known in _REGISTRY if known.name == metric.name]
    if others and metric not in others:
        raise ValueError(f"there is another metric with the name {metric.name}")
    _REGISTRY.extend([] if others else [metric])


def unregister_metric(metric: Metric) -> None:
    """Remove a metric that `register_metric` added."""
    if metric in _REGISTRY:
        _REGISTRY.remove(metric)


def metric_named(name: str) -> Metric:
    """Return the registered metric of this name; that of a number, if a grid has one, too."""
    return next(metric for metric in _REGISTRY if metric.name == name)


def metrics_of(task: str) -> list[Metric]:
    """Return the registered metrics of a task."""
    return [metric for metric in _REGISTRY if metric.task == task]


def task_metrics(task: str, prediction: Tensor, truth: Tensor, *grid: Tensor) -> Metrics:
    """Compute the metrics of one target in the rows where it is known.

    Args:
        task: Its task.
        prediction: Predictions, of the shape that `Metric.compute` expects.
        truth: Values or positions of the true classes [n_rows], or values [n_rows, n_points].
        *grid: The points [n_points] of a target with a grid.

    Returns:
        The metrics by their names, NaN without rows, and `n`, the number of rows.
    """
    found = {
        metric.name: metric.compute(prediction, truth, *grid) if len(truth) else NAN
        for metric in metrics_of(task)
    }
    return {**found, "n": len(truth)}


def task_of(target: Target) -> str:
    """Return the task of a target."""
    return CLASSIFICATION if target.classes else GRID if target.grid else REGRESSION


def target_metrics(
    prediction: Tensor, truth: Tensor, targets: Sequence[Target]
) -> dict[str, Metrics]:
    """Compute the metrics of every target over its known values.

    Args:
        prediction: Values and probabilities [n_rows, sum of n_outputs].
        truth: Values and positions of classes [n_rows, sum of n_labels], NaN where unknown.
        targets: The targets.
    """
    return {
        target.name: task_metrics(
            task_of(target),
            predicted if target.n_outputs > 1 else predicted.squeeze(1),
            column.long() if target.classes else column,
            *([truth.new_tensor(target.grid)] if target.grid else ()),
        )
        for target, predicted, column in known_labels(prediction, truth, targets)
    }


def known_labels(
    prediction: Tensor, truth: Tensor, targets: Sequence[Target]
) -> Iterator[tuple[Target, Tensor, Tensor]]:
    """Yield every target with its predictions and values in the rows where it is known.

    Args:
        prediction: Values and probabilities [n_rows, sum of n_outputs].
        truth: Values and positions of classes [n_rows, sum of n_labels], NaN where unknown.
        targets: The targets.

    Yields:
        The target, its predictions [n_known, n_outputs] and its values [n_known], of a target with
        a grid [n_known, n_points] in the rows where some are known.
    """
    parts = prediction.split([target.n_outputs for target in targets], dim=1)
    labels = truth.split([target.n_labels for target in targets], dim=1)
    for target, part, of_target in zip(targets, parts, labels, strict=True):
        known = of_target.isfinite().any(1)
        column = of_target if target.grid else of_target.squeeze(1)
        yield target, part[known], column[known]


def format_metrics(
    target: Target,
    metrics: Metrics,
    baseline: Metrics,
    composition: Metrics | None = None,
    nearest: Metrics | None = None,
) -> str:
    """Return the line about a target that is printed to the user.

    Args:
        target: The target.
        metrics: Its metrics.
        baseline: Metrics of a constant prediction, see `baselines.baseline_metrics`.
        composition: Those of `baselines.composition_metrics`; None: not shown.
        nearest: Those of the nearest training composition; None: not shown.
    """
    if not metrics["n"]:
        return f"{target.title}: none of the crystals has a known value"
    task = task_of(target)
    compared = TASKS[task].baseline
    others = [metric for metric in metrics_of(task) if metric != compared]
    constant = "always the most frequent class" if target.classes else "predicting the mean"
    simple = {constant: baseline} | ({"composition alone": composition} if composition else {})
    simple |= {"nearest training composition": nearest} if nearest else {}
    compared_with = "; ".join(
        f"{name}: {compared.format(of_simple[compared.name], target.unit)}"
        for name, of_simple in simple.items()
    )
    return ", ".join(
        [
            f"{compared.label} of {target.title}: "
            f"{compared.format(metrics[compared.name], target.unit)}",
            *(f"{metric.label} {metrics[metric.name]:.4g}" for metric in others),
            *_trained_text(target, metrics),
            f"{plural(int(metrics['n']), 'crystal')} ({compared_with})",
        ]
    )


def _trained_text(target: Target, metrics: Metrics) -> Iterator[str]:
    name = f"{TASKS[task_of(target)].baseline.name}_{target.transform}"
    if name in metrics:
        label = TASKS[task_of(target)].baseline.label
        yield f"{label} of {target.trained_title} {metrics[name]:.4g}"
