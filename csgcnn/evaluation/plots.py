"""Figures of a run: of its predictions, and of its epochs."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.config.settings.plot import PlotSettings
from csgcnn.data.targets import Target, with_unit
from csgcnn.data.transforms import interval_in_unit, labels_in_unit, predictions_in_unit
from csgcnn.evaluation.calibration import covered, known_errors
from csgcnn.evaluation.class_plots import CLASS_FIGURES
from csgcnn.evaluation.element_plots import plot_element_errors
from csgcnn.evaluation.figure_files import (
    axis_label,
    color_bar,
    decade_ticks,
    draw,
    legend_above,
    panels,
    show_unit_square,
    write_numbers,
)
from csgcnn.evaluation.grid_plots import plot_spectra
from csgcnn.evaluation.metrics import MAE, R2, RMSE, TASKS, known_labels, task_of
from csgcnn.io import read_csv

CROWDED = 500  # points from which their density is shown
# Ratios of the largest to the smallest error from which axes are logarithmic, and up to which 1, 2
# and 5 are labeled.
DISTINCT, THREE_DECADES = 5, 1000
# Names of the files, whose suffix is that of the format, or .csv for the numbers.
FILES = (
    "parity",
    "spectra",
    "calibration",
    "element_errors",
    *(f"{stem}_*" for stem in CLASS_FIGURES),
)

# Values by epoch and the value of a constant prediction, by name.
Curves = Mapping[str, tuple[NDArray[Any], float | None]]


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions of rows beside their known values, on the host.

    Attributes:
        values: Values as they are trained, and probabilities [n_rows, sum of n_outputs].
        std: Standard deviations of what is trained, of the same shape, if there are any.
        labels: Values as they are trained and positions of classes [n_rows, sum of n_labels], NaN
            where unknown.
        ids: Ids of the rows.
    """

    values: Tensor
    std: Tensor | None
    labels: Tensor
    ids: Sequence[str] = ()

    def in_units(self, targets: Sequence[Target]) -> "Predicted":
        """Return values and labels in the units of the targets; the deviations remain."""
        values = predictions_in_unit(self.values, targets)
        return Predicted(values, self.std, labels_in_unit(self.labels, targets), self.ids)


def plot_test(
    predicted: Predicted,
    has_element: Tensor,
    targets: Sequence[Target],
    folder: Path,
    plot: PlotSettings,
) -> None:
    """Draw the figures of predictions; one that cannot be drawn is a warning.

    Args:
        predicted: The predictions.
        has_element: Whether a crystal holds an element [n_rows, n_elements], by atomic number.
        targets: The targets.
        folder: Folder of the figures.
        plot: Settings of the figures.
    """
    in_units, figures = predicted.in_units(targets), list[Callable[[], None]]()
    if targets[0].grid:
        shown = (in_units.values, in_units.labels, predicted.ids, targets[0])
        figures.append(partial(plot_spectra, *shown, folder / "spectra", plot))
    elif any(not target.classes for target in targets):
        figures.append(partial(plot_parity, in_units, targets, folder / "parity", plot))
    for target, probability, label in known_labels(in_units.values, in_units.labels, targets):
        if target.classes and len(label):
            name = re.sub(r"[^\w.-]+", "_", target.name)
            figures += [
                partial(
                    of_class, probability, label.long(), target, folder / f"{stem}_{name}", plot
                )
                for stem, of_class in CLASS_FIGURES.items()
            ]
    if predicted.std is not None:
        figures.append(partial(_plot_calibration, predicted, targets, folder / "calibration", plot))
    errors = (in_units.values, in_units.labels, has_element, targets)
    figures.append(partial(plot_element_errors, *errors, folder / "element_errors", plot))
    draw(*figures)


def plot_parity(
    predicted: Predicted, targets: Sequence[Target], path: Path, plot: PlotSettings
) -> None:
    """Draw predicted against known values, one panel per number; many points as their density.

    The bars of fewer than 500 points extend one standard deviation to each side. The numbers are
    those of predictions.csv.

    Args:
        predicted: The predictions, in the units of the targets.
        targets: The targets.
        path: The figure, without suffix.
        plot: Settings of the figures.
    """
    ends = None
    if predicted.std is not None:
        ends = interval_in_unit(predicted.values, predicted.std, targets)
    first = np.cumsum([0, *(target.n_outputs for target in targets)])
    columns = [(i, first[i]) for i, target in enumerate(targets) if not target.classes]
    is_crowded = int(predicted.labels.isfinite().sum(0).max()) >= CROWDED
    height, margin = (0.92, 4) if is_crowded else (1, 8)
    with panels(path, plot, len(columns), height, margin) as (figure, axes):
        for axis, (i, output) in zip(axes, columns, strict=True):
            known = predicted.labels[:, i].isfinite()
            label = axis_label(targets[i].title, targets[i].unit)
            if not known.any():
                axis.set_title(f"{label}: no known values")
                continue
            x, y = predicted.labels[known, i], predicted.values[known, output]
            has_bars = ends is not None and len(x) < CROWDED
            bars = [end[known, output].numpy() for end in ends or ()] if has_bars else None
            _draw_parity(figure, axis, x.numpy(), y.numpy(), bars)
            axis.set(xlabel=f"{plot.reference_label} {label}", ylabel=f"predicted {label}")
            axis.set_title(_summary(x, y, targets[i].unit, has_bars), loc="left")


def _summary(truth: Tensor, prediction: Tensor, unit: str, has_bars: bool) -> str:
    mae, rmse, r2 = (metric.compute(prediction, truth) for metric in (MAE, RMSE, R2))
    unit = f" {unit}" if unit else ""
    parts = [f"$R^2$ {r2:.3f}"] * (r2 == r2) + [f"n = {len(truth)}"]
    parts += ["bars: one standard deviation"] * has_bars
    return f"MAE {mae:.3g}{unit}, RMSE {rmse:.3g}{unit}\n{', '.join(parts)}"


def _draw_parity(
    figure: Any,
    axis: Any,
    x: NDArray[Any],
    y: NDArray[Any],
    bars: Sequence[NDArray[Any]] | None,
) -> None:
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.03 * (high - low) or 0.03 * abs(high) or 1.0
    limits = (low - margin, high + margin)
    axis.axline((low, low), slope=1, color="black", linewidth=0.6, zorder=0.5)
    if len(x) >= CROWDED:
        bins = axis.hexbin(
            *(x, y), gridsize=50, bins="log", mincnt=1, cmap="viridis", extent=(*limits, *limits)
        )
        bar = color_bar(figure, axis, bins, "crystals per hexagon")
        decade_ticks(bar.ax.yaxis)
    else:
        if bars:
            axis.vlines(x, *bars, color="0.75", linewidth=0.5, zorder=0.8)
        axis.scatter(x, y, s=7, alpha=0.7, linewidths=0)
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    axis.locator_params(nbins=5)
    axis.set_yticks(axis.get_xticks())
    axis.set(xlim=limits, ylim=limits)


def _plot_calibration(
    predicted: Predicted, targets: Sequence[Target], path: Path, plot: PlotSettings
) -> None:
    """Draw observed against nominal coverage of the errors, one curve per number."""
    assert predicted.std is not None
    levels = [level / 100 for level in range(2, 100, 2)]
    columns = {"nominal_coverage": levels}
    with panels(path, plot) as (_, [axis]):
        show_unit_square(axis)
        found = known_errors(predicted.values, predicted.std, predicted.labels, targets)
        for target, error, deviation in found:
            columns[target.name] = fractions = covered(error, deviation, levels)
            axis.plot(levels, fractions, label=f"{target.trained_title}, n = {len(error)}")
        axis.set(xlabel="nominal coverage", ylabel="coverage of the errors")
        if len(columns) > 1:
            legend_above(axis)
    write_numbers(path, columns)


def plot_learning_curve(
    metrics_csv: Path,
    targets: Sequence[Target],
    path: Path,
    plot: PlotSettings,
    best_epoch: int = 0,
    baselines: Mapping[str, float] | None = None,
) -> None:
    """Draw losses, and the ranking metric of each task on the validation rows, by epoch.

    The numbers are those of metrics.csv.

    Args:
        metrics_csv: The file metrics.csv of a run.
        targets: Its targets.
        path: The figure, without suffix.
        plot: Settings of the figures.
        best_epoch: Epoch that was kept; 0: none is marked.
        baselines: Metric of a constant prediction by target, on the validation rows.
    """
    column, refit = _columns(metrics_csv), metrics_csv.with_name("refit.csv")
    losses = {part: column[f"{part}_loss"] for part in ("train", "val")}
    # without validation rows
    losses = {part: values for part, values in losses.items() if np.isfinite(values).any()}
    if refit.exists():
        again = _columns(refit)["train_loss"]
        missing = (0, len(column["epoch"]) - len(again))
        losses["train, refit"] = np.pad(again, missing, constant_values=np.nan)
    curves: list[tuple[str, Curves, bool]] = [
        ("loss of standardized targets", {k: (v, None) for k, v in losses.items()}, True)
    ]
    if "val" in losses:
        curves += _metric_curves(column, targets, baselines or {})
    with panels(path, plot, len(curves), 0.75) as (_, axes):
        for axis, (label, of_panel, is_error) in zip(axes, curves, strict=True):
            _draw_curves(axis, column["epoch"], of_panel, is_error)
            if best_epoch:
                axis.axvline(
                    best_epoch, color="0.5", linewidth=0.6, label=f"best epoch {best_epoch}"
                )
            axis.set(xlabel="epoch", ylabel=label)
            axis.locator_params(axis="x", integer=True)
            legend_above(axis)


def _columns(table: Path) -> dict[str, NDArray[Any]]:
    rows = read_csv(table)
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def _metric_curves(
    column: Mapping[str, NDArray[Any]], targets: Sequence[Target], baselines: Mapping[str, float]
) -> Iterator[tuple[str, Curves, bool]]:
    """Yield a panel for each task: its label, its curves and whether lower is better."""
    for task, roles in TASKS.items():
        metric, of_task = roles.ranking, [t for t in targets if task_of(t) == task]
        units = {t.trained_unit if metric.has_unit else "" for t in of_task}
        # One unit stands on the axis, different ones stand in the legend.
        unit = units.pop() if len(units) == 1 else None
        label = with_unit(f"validation {metric.label}", unit or "")
        curves = {
            t.trained_title if unit is not None else axis_label(t.trained_title, t.trained_unit): (
                column[f"val_{metric.name}_{t.name}"],
                baselines.get(t.name),
            )
            for t in of_task
        }
        if curves:
            yield label, curves, metric.lower_is_better


def _draw_curves(axis: Any, epoch: NDArray[Any], curves: Curves, is_error: bool) -> None:
    for name, (values, baseline) in curves.items():
        [line] = axis.plot(epoch, values, label=name)
        if baseline is not None and math.isfinite(baseline):
            label = "constant prediction" if len(curves) == 1 else f"{name}, constant"
            axis.axhline(baseline, color=line.get_color(), linestyle=":", label=label)
    # with learned task weights the loss may be negative
    shown = np.concatenate([v[np.isfinite(v)] for v, _ in curves.values()])
    low, high = shown.min(initial=np.inf), shown.max(initial=-np.inf)
    if is_error and low > 0 and high > DISTINCT * low:
        axis.set_yscale("log")
        if high < THREE_DECADES * low:
            decade_ticks(axis.yaxis)
