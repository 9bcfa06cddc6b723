"""Figures of a run, drawn without pyplot: they need no display and keep the user's backend."""

import csv
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.data.targets import Target, with_unit
from csgcnn.data.transforms import labels_in_unit, predictions_in_unit
from csgcnn.errors import one_line
from csgcnn.evaluation.calibration import covered, known_errors
from csgcnn.evaluation.class_metrics import confusion_matrix, roc_auc, roc_curve
from csgcnn.evaluation.metrics import MAE, TASKS, known_labels, task_of
from csgcnn.io import write_bytes

log = logging.getLogger(__name__)

CROWDED = 500  # points from which their density is shown
READABLE = 12  # classes up to which figures name and count each


def draw(*figures: Callable[[], None]) -> None:
    """Draw figures; a figure that cannot be drawn is a warning, because the results are complete.

    Args:
        figures: Functions that draw one or several files each.
    """
    for figure in figures:
        try:
            figure()
        except Exception as error:
            log.warning("a figure could not be drawn: %s", one_line(error))


def plot_test(prediction: Tensor, values: Tensor, targets: Sequence[Target], folder: Path) -> None:
    """Draw parity.png of all numbers, and confusion_<target>.png and roc_<target>.png of classes.

    Args:
        prediction: Values as they are trained, and probabilities [n_rows, sum of n_outputs].
        values: Likewise values and positions of classes [n_rows, n_targets], NaN where unknown.
        targets: The targets.
        folder: Folder of the figures.
    """
    prediction = predictions_in_unit(prediction, targets)
    values = labels_in_unit(values, targets)
    numbers = [i for i, target in enumerate(targets) if not target.classes]
    if numbers:
        columns = [i for i, target in enumerate(targets) for _ in range(target.n_outputs)]
        predicted = prediction[:, [column for column, i in enumerate(columns) if i in numbers]]
        labels = [with_unit(targets[i].title, targets[i].unit) for i in numbers]
        plot_parity(predicted, values[:, numbers], labels, folder / "parity.png")
    for target, probability, label in known_labels(prediction, values, targets):
        if target.classes and len(label):
            name = re.sub(r"[^\w.-]+", "_", target.name)
            plot_confusion(probability, label.long(), target, folder / f"confusion_{name}.png")
            plot_roc(probability, label.long(), target, folder / f"roc_{name}.png")


def plot_parity(prediction: Tensor, truth: Tensor, labels: Sequence[str], path: Path) -> None:
    """Draw predicted against DFT values, one panel per target; many points as their density.

    Args:
        prediction: Predictions [n_rows, n_targets].
        truth: DFT values [n_rows, n_targets], NaN where unknown.
        labels: Names of the targets with their units.
        path: The figure.
    """
    figure, axes = _subplots(1, len(labels), figsize=(4.2 * len(labels), 4), squeeze=False)
    for i, axis in enumerate(axes[0]):
        known = truth[:, i].isfinite()
        if not known.any():
            axis.set_title(f"{labels[i]}: no known values", fontsize=10)
            continue
        x, y = truth[known, i].cpu(), prediction[known, i].cpu()
        _draw_parity(figure, axis, x.numpy(), y.numpy())
        axis.set(xlabel=f"DFT {labels[i]}", ylabel=f"predicted {labels[i]}")
        error = MAE.compute(y, x)
        axis.set_title(f"test, n = {len(x)}, {MAE.label} = {error:.3g}", fontsize=10)
    _save(figure, path)


def _draw_parity(figure: Any, axis: Any, x: NDArray[Any], y: NDArray[Any]) -> None:
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.03 * (high - low) or 0.03 * abs(high) or 1.0
    limits = (low - margin, high + margin)
    if len(x) >= CROWDED:
        bins = axis.hexbin(
            x, y, gridsize=60, bins="log", mincnt=1, cmap="viridis", extent=(*limits, *limits)
        )
        figure.colorbar(bins, ax=axis, label="crystals", shrink=0.8)
    else:
        axis.scatter(x, y, s=12, alpha=0.6, linewidths=0)
    axis.plot(limits, limits, color="black", linewidth=0.8)
    axis.set(xlim=limits, ylim=limits, aspect="equal")


def plot_calibration(
    prediction: Tensor, std: Tensor, values: Tensor, targets: Sequence[Target], path: Path
) -> None:
    """Draw observed against nominal coverage of the errors, one curve per number.

    Args:
        prediction: Predictions [n_rows, sum of n_outputs].
        std: Standard deviations, of the same shape.
        values: Values [n_rows, n_targets], NaN where unknown.
        targets: The targets.
        path: The figure.
    """
    levels = [level / 100 for level in range(2, 100, 2)]
    figure, axis = _subplots(figsize=(4.2, 4))
    for target, error, deviation in known_errors(prediction, std, values, targets):
        fractions = covered(error, deviation, levels)
        axis.plot(levels, fractions, label=f"{target.trained_title}, n = {len(error)}")
    _draw_diagonal(axis)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="nominal coverage", ylabel="coverage of test errors")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def plot_confusion(probability: Tensor, label: Tensor, target: Target, path: Path) -> None:
    """Draw the numbers of crystals by true and predicted class, colored by recall.

    Args:
        probability: Probabilities [n_rows, n_classes].
        label: Positions of the true classes [n_rows] int64.
        target: The target.
        path: The figure.
    """
    count = confusion_matrix(probability, label)
    fraction = (count / count.sum(1, keepdim=True).clamp(min=1)).numpy()
    size = min(4 + 0.25 * max(0, len(target.classes) - 5), 12)
    figure, axis = _subplots(figsize=(size + 0.6, size))
    image = axis.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, label="fraction of the true class", shrink=0.8)
    if len(target.classes) <= READABLE:
        for (i, j), n in np.ndenumerate(count.numpy()):
            color = "white" if fraction[i, j] > 0.5 else "black"
            axis.text(j, i, str(n), ha="center", va="center", color=color)
    ticks = range(len(target.classes))
    axis.set_xticks(ticks, target.classes, rotation=0 if max(map(len, target.classes)) < 4 else 45)
    axis.set_yticks(ticks, target.classes)
    axis.set(xlabel=f"predicted {target.title}", ylabel=f"true {target.title}")
    axis.set_title(f"test, n = {len(label)}", fontsize=10)
    _save(figure, path)


def plot_roc(probability: Tensor, label: Tensor, target: Target, path: Path) -> None:
    """Draw the ROC curve of the second of two classes, or of each of several against the rest.

    Args:
        probability: Probabilities [n_rows, n_classes].
        label: Positions of the true classes [n_rows] int64.
        target: The target.
        path: The figure.
    """
    figure, axis = _subplots(figsize=(4.2, 4))
    shown = range(len(target.classes)) if len(target.classes) > 2 else [1]
    for c in shown:
        auc = roc_auc(probability[:, c], label == c)
        # NaN if all rows or no rows are of this class
        if auc == auc:
            false_rate, true_rate = roc_curve(probability[:, c], label == c)
            axis.plot(false_rate, true_rate, label=f"{target.classes[c]}, AUC {auc:.3f}")
    _draw_diagonal(axis)
    axis.set(xlabel="false positive rate", ylabel="true positive rate")
    axis.set_title(f"{target.title}, test, n = {len(label)}", fontsize=10)
    if axis.get_legend_handles_labels()[0] and len(target.classes) <= READABLE:
        axis.legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, path)


def _draw_diagonal(axis: Any) -> None:
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axis.set(aspect="equal")


def plot_learning_curve(metrics_csv: Path, targets: Sequence[Target], path: Path) -> None:
    """Draw losses, and the ranking metric of each task on the validation rows, by epoch.

    Args:
        metrics_csv: The file metrics.csv of a run.
        targets: Its targets.
        path: The figure.
    """
    with open(metrics_csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    losses = {part: column[f"{part}_loss"] for part in ("train", "val")}
    # without validation rows
    losses = {part: values for part, values in losses.items() if np.isfinite(values).any()}
    panels = {"loss (standardized targets)": (losses, True)}
    for task, roles in TASKS.items():
        metric = roles.ranking
        curves = {
            with_unit(t.trained_title, t.trained_unit if metric.has_unit else ""): column[
                f"val_{metric.name}_{t.name}"
            ]
            for t in targets
            if task_of(t) == task
        }
        if curves and "val" in losses:
            panels[f"validation {metric.label}"] = (curves, metric.lower_is_better)
    figure, axes = _subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), squeeze=False)
    for axis, (label, (curves, is_error)) in zip(axes[0], panels.items(), strict=True):
        _draw_curves(axis, column["epoch"], curves, is_error)
        axis.set(xlabel="epoch", ylabel=label)
        axis.legend(frameon=False)
    _save(figure, path)


def _draw_curves(
    axis: Any, epoch: NDArray[Any], curves: Mapping[str, NDArray[Any]], is_error: bool
) -> None:
    for name, values in curves.items():
        axis.plot(epoch, values, label=name)
    # with learned task weights the loss may be negative
    is_positive = all((values[np.isfinite(values)] > 0).all() for values in curves.values())
    axis.set_yscale("log" if is_error and is_positive else "linear")


def _subplots(rows: int = 1, columns: int = 1, squeeze: bool = True, **keys: Any) -> Any:
    """Return a figure and its axes, as `pyplot.subplots` does."""
    figure = _figure_class()(layout="constrained", **keys)
    return figure, figure.subplots(rows, columns, squeeze=squeeze)


def _figure_class() -> Any:
    """Import matplotlib, also where MPLBACKEND names a backend that is not installed here."""
    is_first = "matplotlib" not in sys.modules
    messages = logging.getLogger("matplotlib")
    level = messages.level
    # An absent cache folder is of no interest to the user.
    messages.setLevel(logging.ERROR)
    # Importing matplotlib fails if the variable is wrong; nothing here needs it.
    backend = os.environ.pop("MPLBACKEND", None) if is_first else None
    try:
        import matplotlib
        from matplotlib.figure import Figure

        if backend is not None:
            with suppress(ValueError):
                matplotlib.rcParams["backend"] = backend
    finally:
        messages.setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return Figure


def _save(figure: Any, path: Path) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=200)
    write_bytes(path, image.getvalue())
