"""The report of one model: the answer, whether to trust it, where it fails, and how it trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from csgcnn.crystals.descriptors import CRYSTAL_SYSTEMS
from csgcnn.data.targets import with_unit
from csgcnn.errors import plural
from csgcnn.evaluation.metrics import TASKS, metrics_of, task_of
from csgcnn.reports import figures
from csgcnn.reports.checks import checks_of
from csgcnn.reports.class_charts import calibration_chart, class_charts
from csgcnn.reports.crystals import CrystalFacts
from csgcnn.reports.intervals import label_groups, mean_interval, quantile_groups
from csgcnn.reports.page import Chart, Headline, Page, Section, Table
from csgcnn.reports.predicted import PredictedTarget, Predictions
from csgcnn.reports.worst import (
    MAX_POINTS,
    MAX_WORST,
    SiteValues,
    points_of,
    shown_rows,
    worst_crystals,
)

N_RANGES = 8


@dataclass(frozen=True)
class Result:
    """What is known of a model and its predictions.

    Attributes:
        name: Name of the run or table.
        metrics: Content of metrics.json; empty for a table alone.
        minutes: Time of the training, if it is known.
        history: Columns of metrics.csv.
        warnings: Summary of the warnings about structures.
        changes: Key, value and default of each setting that differs from the default.
        facts: Lines at the end of the page.
        site_values: Contributions of the sites by target, from `csgcnn explain`.
    """

    name: str
    predictions: Predictions
    crystals: CrystalFacts
    metrics: Mapping[str, Any] = field(default_factory=dict)
    minutes: float | None = None
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    changes: Sequence[tuple[str, str, str]] = ()
    facts: Sequence[str] = ()
    site_values: Mapping[str, SiteValues] = field(default_factory=dict)


def result_page(result: Result) -> Page:
    """Return the report of one model."""
    targets = [target for target in result.predictions.targets if len(target.rows)]
    n_rows = len(result.predictions.ids)
    titles = ", ".join(target.target.title for target in result.predictions.targets)
    sections = [section for target in targets for section in _of_target(result, target)]
    return Page(
        title=titles,
        subtitle=f"{result.name}: {n_rows:,} {result.predictions.of_rows}",
        headlines=[_headline(result, target) for target in targets],
        checks=[*checks_of(result.predictions, result.metrics, result.warnings)],
        sections=[*sections, *_training(result), *_data(result)],
        facts=result.facts,
    )


def _baselines(result: Result, target: PredictedTarget) -> dict[str, float]:
    """Return the metric of simple models on the same rows, by their names."""
    name, part, truth, found = target.metric.name, result.predictions.part, target.truth, {}
    constant = "always the most frequent class" if target.target.classes else "predicting the mean"
    for label, prefix in (("composition alone", "composition"), (constant, "baseline")):
        value = result.metrics.get(f"{prefix}_{part}_{name}", {}).get(target.target.name)
        if value is not None:
            found[label] = float(value)
    if constant not in found:
        if target.target.classes:
            value = np.bincount(truth.astype(int)).max() / len(truth)
        else:
            value = np.abs(truth - truth.mean()).mean()
        found[f"{constant} of these crystals"] = float(value)
    return found


def _headline(result: Result, target: PredictedTarget) -> Headline:
    metric, values = target.metric, target.metrics
    unit = _space(target.unit)
    ends = sorted(map(metric.error, mean_interval(target.loss)[1:]))
    details = [f"95 % interval {ends[0]:.3g} to {ends[1]:.3g}"]
    details += [
        f"{other.label} {values[other.name]:.3g}{unit * other.has_unit}"
        for other in metrics_of(task_of(target.target))
        if other != metric and np.isfinite(values[other.name])
    ]
    if not target.target.classes:
        details.append(f"median error {np.median(target.loss):.3g}{unit}")
    bars = {"this model": values[metric.name], **_baselines(result, target)}
    longest = max(bars.values()) or 1.0
    return Headline(
        target=target.target.title,
        metric=metric.label,
        value=f"{values[metric.name]:.3g}",
        unit=target.unit,
        detail=", ".join(details),
        bars=[(name, f"{value:.3g}{unit}", value / longest) for name, value in bars.items()],
    )


def _of_target(result: Result, target: PredictedTarget) -> Iterator[Section]:
    """Yield the sections about one target: predictions, where it fails, the worst crystals."""
    n_targets = len(result.predictions.targets)
    shown = shown_rows(target, max(MAX_POINTS // n_targets, MAX_WORST))
    start = f"{target.target.title}: " if n_targets > 1 else ""
    name = f"points-{result.predictions.targets.index(target)}"
    points = points_of(target, result.predictions, result.crystals, shown)
    is_sample = len(shown) < len(target.rows)
    some = f"{len(shown):,} of {len(target.rows):,} crystals: the largest errors, and others "
    sample = f"{some} at random. " * is_sample
    yield Section(
        f"{start}{'Predicted classes' if target.target.classes else 'Predicted and known values'}",
        [*_prediction_charts(result, target, points, name, sample)],
    )
    blocks = [*_failures(result, target)]
    if blocks:
        yield Section(
            f"{start}Where it fails",
            blocks,
            "Bars are mean errors with their 95 % intervals; the dotted line is the mean of all "
            "crystals.",
        )
    table = worst_crystals(
        target, result.crystals, points, name, result.site_values.get(target.target.name, {})
    )
    yield Section(f"{start}Crystals with the largest errors", [table])


def _prediction_charts(
    result: Result, target: PredictedTarget, points: Any, name: str, sample: str
) -> Iterator[Chart]:
    if target.target.classes:
        yield from class_charts(target)
        return
    truth, prediction = np.array(points["truth"]), np.array(points["prediction"])
    outside = np.array([note != "" for note in points["note"]], dtype=bool)
    groups = {"in the domain of the training set": np.flatnonzero(~outside)}
    groups |= {"outside": np.flatnonzero(outside)} if outside.any() else {}
    hover = [
        " ".join(filter(None, (f"{id_}", formula, f"error {error:.3g}{_space(target.unit)}")))
        for id_, formula, error in zip(
            points["id"], points["formula"], points["error"], strict=True
        )
    ]
    yield Chart(
        figures.parity(truth, prediction, groups, target.label, hover),
        f"{sample}Drag a box around crystals to list them in the table below.",
        "Parity",
        points=name,
    )
    yield Chart(
        figures.error_histogram(target.error, f"predicted - known {target.label}"),
        f"{(target.loss < np.mean(target.loss)).mean():.0%} of the errors are below the MAE. "
        "The outermost 0.5 % are in the last bins.",
        "Errors",
    )
    if target.std is not None:
        yield calibration_chart(target)


def _failures(result: Result, target: PredictedTarget) -> Iterator[Chart]:
    """Yield the mean errors of groups of crystals."""
    loss, overall = target.loss, float(target.loss.mean())
    y = target.error_label

    def chart(groups: Mapping[str, Any], x: str, title: str, caption: str = "") -> Chart:
        losses = {group: loss[rows] for group, rows in groups.items()}
        return Chart(figures.loss_by_group(losses, x, y, overall), caption, title)

    atoms = result.crystals.atoms[target.rows]
    if (atoms > 0).any():
        holds = atoms > 0
        count = holds.sum(0)
        mean = (holds * loss[:, None]).sum(0) / count.clip(1)
        yield Chart(
            figures.element_table(mean, count, y, _space(target.unit) or " "),
            "Mean error of the crystals that hold an element. The colors end at the largest error "
            f"of an element with at least {figures.FEW} crystals.",
            "By element",
            is_wide=True,
        )
    if target.target.classes:
        names = [target.target.classes[int(i)] for i in target.truth]
        yield chart(label_groups(names, target.target.classes), "true class", "By class")
    else:
        groups = quantile_groups(target.truth, N_RANGES)
        yield chart(groups, f"known {target.label}", "By known value", "Groups of equal size.")
    systems = [result.crystals.systems.get(id_, "") for id_ in target.ids]
    if any(systems):
        n_known = sum(map(bool, systems))
        some = f"{n_known:,} of {len(systems):,} crystals." if n_known < len(systems) else ""
        groups = label_groups(systems, CRYSTAL_SYSTEMS)
        yield chart(groups, "crystal system", "By crystal system", f"To 0.01 Å. {some}")
    distance, meaning = result.crystals.distance, "other atoms than the nearest composition"
    caption = "Fraction of the atoms that differ from the nearest training composition."
    if "nearest_distance" in result.predictions.numbers:
        distance = result.predictions.numbers["nearest_distance"]
        meaning = caption = "distance to the nearest training crystal"
    groups = quantile_groups(distance[target.rows], N_RANGES)
    if len(groups) > 1:
        yield chart(groups, meaning, "By distance to the training set", caption)


def _space(unit: str) -> str:
    return f" {unit}" if unit else ""


def _training(result: Result) -> Iterator[Section]:
    """Yield the learning curves."""
    history = result.history
    if not history:
        return
    epoch = history["epoch"]
    # Each member of an ensemble has its own.
    best = None if "member" in history else result.metrics.get("best_epoch")
    mark = {"type": "line", "x0": best, "x1": best, "yref": "paper", "y0": 0, "y1": 1}
    mark |= {"line": {"color": "--muted", "width": 1, "dash": "dot"}}
    layout: dict[str, Any] = {"shapes": [mark] if best else []}
    caption = f"The dotted line is the best epoch, {best} of {len(epoch)}." if best else ""
    losses = {
        name: (epoch, history[f"{part}_loss"])
        for part, name in (("train", "training"), ("val", "validation"))
        if np.isfinite(history.get(f"{part}_loss", [np.nan])).any()
    }
    charts = [Chart(figures.lines(losses, "epoch", "loss", **layout), caption, "Loss")]
    for target in result.predictions.targets:
        ranking = TASKS[task_of(target.target)].ranking
        values = history.get(f"val_{ranking.name}_{target.target.name}", [np.nan])
        if np.isfinite(values).any():
            label = with_unit(ranking.label, target.target.unit if ranking.has_unit else "")
            curve = {target.target.title: (epoch, values)}
            chart = figures.lines(curve, "epoch", f"validation {label}", **layout)
            charts.append(Chart(chart, "", f"Validation {ranking.label}"))
    yield Section("Training", charts)


def _data(result: Result) -> Iterator[Section]:
    """Yield the sizes of the data, and the settings that differ from the default."""
    metrics, tables = result.metrics, list[Table]()
    sizes = [(part, f"{n:,}") for part, n in metrics.get("n_rows", {}).items()]
    if n_rejected := metrics.get("n_rejected"):
        sizes.append(("rejected", f"{n_rejected:,}"))
    if sizes:
        tables.append(Table(("part", "crystals"), sizes, title="Data"))
    if result.changes:
        header = ("key", "value", "default")
        n_keys = plural(len(result.changes), "key")
        title = f"Configuration: {n_keys} other than the default"
        tables.append(Table(header, result.changes, title=title, is_folded=True))
    if tables:
        yield Section("Data and configuration", tables)
