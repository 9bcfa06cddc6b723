"""Figures of the predictions of one classification target."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csgcnn.config.settings.plot import PlotSettings
from csgcnn.data.targets import Target
from csgcnn.evaluation.class_metrics import (
    average_precision,
    confusion_matrix,
    precision_recall_curve,
    roc_auc,
    roc_curve,
)
from csgcnn.evaluation.figure_files import (
    CHARACTER_WIDTH,
    color_bar,
    legend_above,
    panels,
    show_unit_square,
    write_numbers,
)

READABLE = 12  # classes up to which figures name and count each; of more some are named
MAX_POINTS = 1000  # of a curve


def _plot_confusion(
    probability: Tensor, label: Tensor, target: Target, path: Path, plot: PlotSettings
) -> None:
    """Draw the numbers of crystals by true and predicted class, colored by recall."""
    count = confusion_matrix(probability, label)
    fraction = (count / count.sum(1, keepdim=True).clamp(min=1)).numpy()
    n_classes = len(target.classes)
    ticks = range(0, n_classes, -(-n_classes // READABLE))
    names = [target.classes[i] for i in ticks]
    with panels(path, plot, height=0.85) as (figure, [axis]):
        image = axis.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
        color_bar(figure, axis, image, "fraction of the true class")
        if n_classes <= READABLE:
            size = min(7, plot.width * 0.8 / n_classes)
            for (i, j), n in np.ndenumerate(count.numpy()):
                color = "white" if fraction[i, j] > 0.5 else "black"
                axis.text(j, i, str(n), ha="center", va="center", color=color, fontsize=size)
        is_wide = sum(len(name) + 1 for name in names) * CHARACTER_WIDTH > 0.6 * plot.width
        axis.set_xticks(ticks, names, rotation=90 * is_wide)
        axis.set_yticks(ticks, names)
        axis.set(
            xlabel=f"predicted {target.title}", ylabel=f"{plot.reference_label} {target.title}"
        )
        axis.set_title(f"n = {len(label)}", loc="left")
    columns = {
        f"predicted_{name}": column.tolist()
        for name, column in zip(target.classes, count.T, strict=True)
    }
    write_numbers(path, {"true_class": target.classes, **columns})


def _plot_curves(
    probability: Tensor,
    label: Tensor,
    target: Target,
    path: Path,
    plot: PlotSettings,
    names: tuple[str, str],
    curve: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, str]],
) -> None:
    """Draw a curve for the second of two classes, or for each of several against the rest.

    A class without rows, and the class of all rows, have no curve.
    """
    columns: dict[str, list[Any]] = {"class": [], **{name.replace(" ", "_"): [] for name in names}}
    shown = range(len(target.classes)) if len(target.classes) > 2 else [1]
    with panels(path, plot, height=1.0) as (_, [axis]):
        for c in shown:
            if not 0 < (n_positive := int((label == c).sum())) < len(label):
                continue
            x, y, summary = curve(probability[:, c], label == c)
            kept = torch.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().long()
            points = [[target.classes[c]] * len(kept), x[kept].tolist(), y[kept].tolist()]
            axis.plot(*points[1:], label=f"{target.classes[c]}, {summary}, n = {n_positive}")
            for column, cells in zip(columns.values(), points, strict=True):
                column += cells
        show_unit_square(axis, diagonal=names[1] != "precision")
        axis.set(xlabel=names[0], ylabel=names[1])
        if columns["class"] and len(target.classes) <= READABLE:
            legend_above(axis, f"{target.title}, n = {len(label)}")
    write_numbers(path, columns)


def _roc(score: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, str]:
    return *roc_curve(score, positive), f"AUC {roc_auc(score, positive):.3f}"


def _precision_recall(score: Tensor, positive: Tensor) -> tuple[Tensor, Tensor, str]:
    recall, precision = precision_recall_curve(score, positive)
    return recall, precision, f"AP {average_precision(recall, precision):.3f}"


# Each takes probabilities, true classes, the target, the path without suffix and the settings.
CLASS_FIGURES: dict[str, Callable[..., None]] = {
    "confusion": _plot_confusion,
    "roc": partial(_plot_curves, names=("false positive rate", "true positive rate"), curve=_roc),
    "precision_recall": partial(
        _plot_curves, names=("recall", "precision"), curve=_precision_recall
    ),
}
