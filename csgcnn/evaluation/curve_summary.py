"""Summary and figure of a learning curve: errors by size, power law, extrapolated errors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby, pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from csgcnn.config.settings.plot import PlotSettings
from csgcnn.data.targets import Target, with_unit
from csgcnn.evaluation.benchmark_summary import Fold
from csgcnn.evaluation.figure_files import (
    axis_label,
    decade_ticks,
    legend_above,
    panels,
)
from csgcnn.evaluation.learning_curve import FACTORS, Array, PowerLaw, contradiction
from csgcnn.evaluation.metrics import TASKS, task_of

# Points of the curve of a law.
RESOLUTION = 50


def summarize(
    facts: Mapping[str, Any], target: Target, points: Sequence[tuple[int | str, Fold]], n_runs: int
) -> dict[str, Any]:
    """Return the content of summary.json.

    Args:
        facts: First entries, about the command.
        target: The target, whose ranking metric is shown as an error.
        points: Finished runs, by repeat and increasing size: the number of training crystals or
            "all", and the results, whose number is that of the repeat.
        n_runs: Number of all runs.
    """
    metric = TASKS[task_of(target)].ranking
    runs = [
        {
            "repeat": result.number,
            "size": size,
            "n_train": result.n_rows["train"],
            "error": metric.error(result.metrics[metric.name]),
            "best_epoch": result.best_epoch,
            "epochs": result.epochs,
            "minutes": result.minutes,
        }
        for size, result in points
    ]
    unit = target.unit if metric.has_unit else ""
    summary = {
        **facts,
        "target": target.name,
        "error": metric.error_label,
        "unit": unit,
        "machines": sorted({result.machine for _, result in points}),
        "shortfall": f"{len(runs)} of {n_runs} runs are finished" if len(runs) < n_runs else None,
        "sizes": [_of_size(size, runs) for size in dict.fromkeys(run["size"] for run in runs)],
        "runs": runs,
        "power_law": None,
        "contradiction": None,
    }
    return summary if len(runs) < n_runs else summary | _fitted(runs, unit)


def _of_size(size: Any, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over the repeats."""
    own = [run for run in runs if run["size"] == size]
    names = ("n_train", "error", "best_epoch", "epochs", "minutes")
    means = {name: fmean(run[name] for run in own) for name in names}
    std = stdev(run["error"] for run in own) if len(own) > 1 else None
    return {"size": size, **means, "std": std}


def _fitted(runs: Sequence[Mapping[str, Any]], unit: str) -> dict[str, Any]:
    sizes, errors = _matrix(runs, "n_train"), _matrix(runs, "error")
    if reason := contradiction(sizes, errors, unit):
        return {"contradiction": reason}
    law, largest = PowerLaw.fit(sizes, errors), float(sizes[:, -1].mean())
    extrapolated = [
        {"factor": factor, "n_train": factor * largest, **asdict(law.at(factor * largest))}
        for factor in FACTORS
    ]
    return {
        "power_law": {
            "prefactor": float(np.exp(law.log_a.mean())),
            "exponent": asdict(law.exponent),
            "extrapolated": extrapolated,
            "log_prefactors": law.log_a.tolist(),
            "exponents": law.b.tolist(),
        }
    }


def _matrix(runs: Sequence[Mapping[str, Any]], name: str) -> Array:
    """Return an entry of the runs [n_repeats, n_sizes]."""
    by_repeat = groupby(runs, lambda run: run["repeat"])
    return np.array([[run[name] for run in of_repeat] for _, of_repeat in by_repeat], dtype=float)


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the content of summary.md from that of summary.json."""
    overrides = f", with {' '.join(summary['overrides'])}" if summary["overrides"] else ""
    lines = [
        f"# learning curve of {summary['dataset']}: "
        f"{with_unit(summary['target'], summary['unit'])}",
        "",
        f"csgcnn {summary['csgcnn']}, recipe {summary['recipe']}{overrides}; "
        f"seed {summary['seed']}, split {summary['method']} with seed {summary['split_seed']}.",
        "",
        f"**{_headline(summary)}**",
        "",
        f"| training crystals | {with_unit(summary['error'], summary['unit'])} | best epoch "
        "| minutes |",
        "| --- | --- | --- | --- |",
        *_rows(summary),
        "",
        *_notes(summary),
    ]
    return "\n".join(lines) + "\n"


def _headline(summary: Mapping[str, Any]) -> str:
    if summary["shortfall"]:
        return f"{summary['shortfall']}: no power law yet"
    if summary["contradiction"]:
        return f"No extrapolation: {summary['contradiction']}"
    law, unit = summary["power_law"], f" {summary['unit']}" if summary["unit"] else ""
    interval = _interval(law["exponent"], ".2f")
    return (
        f"{summary['error']} = {law['prefactor']:.3g}{unit} × n^-{law['exponent']['value']:.2f}"
        f"{interval and f' (exponent {interval})'}"
    )


def _interval(estimate: Mapping[str, float], digits: str) -> str:
    low, high = estimate["low"], estimate["high"]
    return f"{low:{digits}} to {high:{digits}}" if math.isfinite(low) else ""


def _rows(summary: Mapping[str, Any]) -> Iterator[str]:
    for size in summary["sizes"]:
        name = f"{size['n_train']:,.0f}" + " (all)" * (size["size"] == "all")
        error = f"{size['error']:.4f}" + ("" if size["std"] is None else f" ± {size['std']:.4f}")
        epoch = f"{size['best_epoch']:.0f} of {size['epochs']:.0f}"
        yield f"| {name} | {error} | {epoch} | {size['minutes']:.1f} |"
    for point in (summary["power_law"] or {}).get("extrapolated", ()):
        interval = _interval(point, ".4f")
        error = f"{point['value']:.4f}{interval and f' ({interval})'}"
        yield f"| {point['n_train']:,.0f} ({point['factor']}×) | {error}, extrapolated | | |"


def _notes(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["repeats"] > 1:
        yield "Mean ± standard deviation over the repeats."
    if summary["power_law"] and summary["repeats"] > 1:
        yield "In parentheses: 95 % interval over the repeats."
    elif summary["power_law"]:
        yield "One repeat: no intervals, and the law is not checked. Give repeats=3."
    if summary["same_test_rows"]:
        yield "The repeats have the same test rows; the intervals leave out the choice of these."
    yield from (f"Trained on {machine}." for machine in summary["machines"])


def plot_curve(summary: Mapping[str, Any], target: Target, path: Path, plot: PlotSettings) -> None:
    """Draw errors against the number of training crystals, with the law and its interval.

    Args:
        summary: The content of summary.json.
        target: The target.
        path: The figure, without suffix.
        plot: Settings of the figure.
    """
    runs, law = summary["runs"], summary["power_law"]
    with panels(path, plot, height=0.8) as (_, [axis]):
        axis.set(xscale="log", yscale="log")
        sizes, errors = ([run[name] for run in runs] for name in ("n_train", "error"))
        axis.scatter(sizes, errors, s=9, label="measured", zorder=3)
        if law:
            fitted = PowerLaw(np.array(law["log_prefactors"]), np.array(law["exponents"]))
            _draw_law(axis, fitted, min(sizes), max(sizes))
        for ticks in (axis.xaxis, axis.yaxis):
            decade_ticks(ticks)
        unit = summary["unit"]
        label = axis_label(f"test {summary['error']} of {target.title}", unit)
        axis.set(xlabel="training crystals", ylabel=label)
        legend_above(axis)


def _draw_law(axis: Any, law: PowerLaw, smallest: float, largest: float) -> None:
    """Draw a law over the measured sizes, and dashed beyond these, with marks at the factors."""
    ends = (smallest, largest, FACTORS[-1] * largest)
    sizes = np.concatenate([np.geomspace(*pair, RESOLUTION) for pair in pairwise(ends)])
    estimates = [law.at(size) for size in sizes]
    mean = np.array([estimate.value for estimate in estimates])
    for style, part in (("-", slice(RESOLUTION)), ("--", slice(RESOLUTION, None))):
        axis.plot(sizes[part], mean[part], style, color="black")
    axis.lines[0].set_label("power law")
    marks = [factor * largest for factor in FACTORS]
    label = " and ".join(f"{factor}×" for factor in FACTORS)
    values = [law.at(mark).value for mark in marks]
    axis.scatter(marks, values, s=14, color="white", edgecolor="black", label=label, zorder=3)
    if len(law.b) > 1:
        low, high = ([getattr(e, end) for e in estimates] for end in ("low", "high"))
        axis.fill_between(sizes, low, high, color="0.85", label="95 % interval", zorder=0.5)
