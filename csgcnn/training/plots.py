"""Two figures of a run, readable on paper."""

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from torch import Tensor

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CROWDED = 500  # points from which their density is shown instead of themselves


def plot_parity(prediction: Tensor, target: Tensor, labels: Sequence[str], maes: Sequence[float], path: Path) -> None:
    """Predicted against DFT values, one panel per target; density where points overlap.

    Shapes: prediction, target [n_rows, n_targets]; NaN targets are left out. `labels` carry the unit.
    """
    figure, axes = plt.subplots(1, len(labels), figsize=(4.2 * len(labels), 4), squeeze=False, layout="constrained")
    for i, axis in enumerate(axes[0]):
        known = target[:, i].isfinite()
        if not known.any():
            axis.set_title(f"{labels[i]}: no known values", fontsize=10)
            continue
        x, y = target[known, i].cpu().numpy(), prediction[known, i].cpu().numpy()
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        margin = 0.03 * (high - low) or 1.0
        limits = (low - margin, high + margin)
        if len(x) >= CROWDED:
            bins = axis.hexbin(x, y, gridsize=60, bins="log", mincnt=1, cmap="viridis", extent=(*limits, *limits))
            figure.colorbar(bins, ax=axis, label="crystals", shrink=0.8)
        else:
            axis.scatter(x, y, s=12, alpha=0.6, linewidths=0)
        axis.plot(limits, limits, color="black", linewidth=0.8)
        axis.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"DFT {labels[i]}", ylabel=f"predicted {labels[i]}")
        axis.set_title(f"test, n = {len(x)}, MAE = {maes[i]:.3g}", fontsize=10)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def plot_learning_curve(metrics_csv: Path, names: Sequence[str], units: Sequence[str], path: Path) -> None:
    """Losses and validation MAE of every epoch in metrics.csv."""
    with open(metrics_csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    for part in ("train", "val"):
        left.plot(column["epoch"], column[f"{part}_loss"], label=part)
    left.set(xlabel="epoch", ylabel="loss (standardised targets)", yscale="log")
    left.legend(frameon=False)
    for name, unit in zip(names, units, strict=True):
        right.plot(column["epoch"], column[f"val_mae_{name}"], label=f"{name} [{unit}]" if unit else name)
    right.set(xlabel="epoch", ylabel="validation MAE", yscale="log")
    right.legend(frameon=False)
    figure.savefig(path, dpi=200)
    plt.close(figure)
