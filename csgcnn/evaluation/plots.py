"""The figures of a run, readable on paper."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor

from csgcnn.data.targets import Target, with_unit
from csgcnn.evaluation.calibration import covered, known_errors
from csgcnn.evaluation.metrics import confusion_matrix, known_labels, roc_auc, roc_curve
from csgcnn.io import write_bytes

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CROWDED = 500  # points from which their density is shown instead of themselves
READABLE = 12  # classes up to which figures name and count each


def plot_test(prediction: Tensor, values: Tensor, targets: Sequence[Target], folder: Path) -> None:
    """parity.png of all numbers, and confusion_<target>.png and roc_<target>.png of each class.

    Shapes: prediction [n_rows, sum of n_outputs], values [n_rows, n_targets], NaN where missing.
    """
    numbers = [i for i, target in enumerate(targets) if not target.classes]
    if numbers:
        columns = [i for i, target in enumerate(targets) for _ in range(target.n_outputs)]
        predicted = prediction[:, [column for column, i in enumerate(columns) if i in numbers]]
        truth = values[:, numbers]
        maes = torch.nanmean((predicted - truth).abs(), dim=0).tolist()
        labels = [with_unit(targets[i].name, targets[i].unit) for i in numbers]
        plot_parity(predicted, truth, labels, maes, folder / "parity.png")
    for target, probability, label in known_labels(prediction, values, targets):
        if target.classes and len(label):
            name = re.sub(r"[^\w.-]+", "_", target.name)
            plot_confusion(probability, label.long(), target, folder / f"confusion_{name}.png")
            plot_roc(probability, label.long(), target, folder / f"roc_{name}.png")


def plot_parity(
    prediction: Tensor, target: Tensor, labels: Sequence[str], maes: Sequence[float], path: Path
) -> None:
    """Predicted against DFT values, one panel per target; density where points overlap.

    Shapes: prediction, target [n_rows, n_targets]; NaN targets are left out. `labels` carry the unit.
    """
    figure, axes = plt.subplots(
        1, len(labels), figsize=(4.2 * len(labels), 4), squeeze=False, layout="constrained"
    )
    for i, axis in enumerate(axes[0]):
        known = target[:, i].isfinite()
        if not known.any():
            axis.set_title(f"{labels[i]}: no known values", fontsize=10)
            continue
        x, y = target[known, i].cpu().numpy(), prediction[known, i].cpu().numpy()
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
        axis.set(
            xlim=limits,
            ylim=limits,
            aspect="equal",
            xlabel=f"DFT {labels[i]}",
            ylabel=f"predicted {labels[i]}",
        )
        axis.set_title(f"test, n = {len(x)}, MAE = {maes[i]:.3g}", fontsize=10)
    _save(figure, path)


def plot_calibration(
    prediction: Tensor, std: Tensor, values: Tensor, targets: Sequence[Target], path: Path
) -> None:
    """Share of the errors within the bounds that a normal distribution has for each share, a curve per number.

    Shapes: prediction, std [n_rows, sum of n_outputs], values [n_rows, n_targets], NaN where missing.
    """
    levels = [level / 100 for level in range(2, 100, 2)]
    figure, axis = plt.subplots(figsize=(4.2, 4), layout="constrained")
    for target, error, deviation in known_errors(prediction, std, values, targets):
        axis.plot(
            levels, covered(error, deviation, levels), label=f"{target.name}, n = {len(error)}"
        )
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axis.set(
        aspect="equal",
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="nominal share",
        ylabel="share of the test errors",
    )
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def plot_confusion(probability: Tensor, label: Tensor, target: Target, path: Path) -> None:
    """Crystals of each true class (rows) by predicted class, colored by their share of the true class.

    Shapes: probability [n_rows, n_classes], label [n_rows] int64.
    """
    count = confusion_matrix(probability, label)
    share = (count / count.sum(1, keepdim=True).clamp(min=1)).numpy()
    size = min(4 + 0.25 * max(0, len(target.classes) - 5), 12)
    figure, axis = plt.subplots(figsize=(size + 0.6, size), layout="constrained")
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
    if len(target.classes) <= READABLE:
        for (i, j), n in np.ndenumerate(count.numpy()):
            axis.text(
                j,
                i,
                str(n),
                ha="center",
                va="center",
                color="white" if share[i, j] > 0.5 else "black",
            )
    ticks = range(len(target.classes))
    axis.set_xticks(ticks, target.classes, rotation=0 if max(map(len, target.classes)) < 4 else 45)
    axis.set_yticks(ticks, target.classes)
    axis.set(xlabel=f"predicted {target.name}", ylabel=f"true {target.name}")
    axis.set_title(f"test, n = {len(label)}", fontsize=10)
    _save(figure, path)


def plot_roc(probability: Tensor, label: Tensor, target: Target, path: Path) -> None:
    """ROC curve of the second of two classes, or of each of several against the rest.

    Shapes: probability [n_rows, n_classes], label [n_rows] int64.
    """
    figure, axis = plt.subplots(figsize=(4.2, 4), layout="constrained")
    shown = range(len(target.classes)) if len(target.classes) > 2 else [1]
    for c in shown:
        auc = roc_auc(probability[:, c], label == c)
        if auc == auc:  # else the rows are all of this class, or none is
            false_rate, true_rate = roc_curve(probability[:, c], label == c)
            axis.plot(false_rate, true_rate, label=f"{target.classes[c]}, AUC {auc:.3f}")
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axis.set(aspect="equal", xlabel="false positive rate", ylabel="true positive rate")
    axis.set_title(f"{target.name}, test, n = {len(label)}", fontsize=10)
    if axis.get_legend_handles_labels()[0] and len(target.classes) <= READABLE:
        axis.legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, path)


def plot_learning_curve(metrics_csv: Path, targets: Sequence[Target], path: Path) -> None:
    """Losses, validation MAE of numbers and balanced accuracy of classes, of every epoch in metrics.csv."""
    with open(metrics_csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    numbers = {
        with_unit(t.name, t.unit): column[f"val_mae_{t.name}"] for t in targets if not t.classes
    }
    classes = {t.name: column[f"val_balanced_accuracy_{t.name}"] for t in targets if t.classes}
    losses = {part: column[f"{part}_loss"] for part in ("train", "val")}
    panels = {
        "loss (standardized targets)": losses,
        "validation MAE": numbers,
        "validation balanced accuracy": classes,
    }
    panels = {label: curves for label, curves in panels.items() if curves}
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.4), layout="constrained"
    )
    for axis, (label, curves) in zip(axes, panels.items(), strict=True):
        for name, values in curves.items():
            axis.plot(column["epoch"], values, label=name)
        # learned task weights make a loss that may be negative
        is_positive = all((values[np.isfinite(values)] > 0).all() for values in curves.values())
        axis.set(
            xlabel="epoch",
            ylabel=label,
            yscale="log" if is_positive and curves is not classes else "linear",
        )
        axis.legend(frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    image = io.BytesIO()
    figure.savefig(image, dpi=200)
    plt.close(figure)
    write_bytes(path, image.getvalue())
