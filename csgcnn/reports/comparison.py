"""The report of several models: leaderboard, paired differences, and errors against each other."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from csgcnn.data.targets import with_unit
from csgcnn.reports import figures
from csgcnn.reports.intervals import Interval, mean_interval, paired
from csgcnn.reports.page import Chart, Figure, Page, Section, Table
from csgcnn.reports.predicted import PredictedTarget
from csgcnn.reports.result import Result, result_page

N_SCATTERS = 4  # charts of errors against each other
MAX_POINTS = 5000  # of such a chart


def comparison_page(
    results: Sequence[Result], differences: Sequence[str], detailed: Callable[[int], Result]
) -> Page:
    """Return the comparison of several models, and the report of the best one.

    Args:
        results: The models.
        differences: Settings of each one in which they differ.
        detailed: Returns the complete result of a position.
    """
    names = [target.target.name for target in results[0].predictions.targets]
    sections, best = list[Section](), list[int]()
    for name in names:
        found = [(i, target) for i, r in enumerate(results) if (target := _target(r, name))]
        found.sort(key=lambda item: float(item[1].loss.mean()))
        best += [found[0][0]]
        start = f"{found[0][1].target.title}: " if len(names) > 1 else ""
        ranked = [(results[i], differences[i], target) for i, target in found]
        sections.append(_leaderboard(ranked, start))
        if len(ranked) > 1:
            sections += _paired(ranked, start)
    page = result_page(detailed(best[0]))
    first = results[best[0]].name
    details = Section(f"First of the table: {first}", [], f"{page.subtitle}.")
    n_models = len(results)
    return Page(
        title=f"{n_models} models compared: {', '.join(names)}",
        subtitle=", ".join(dict.fromkeys(result.predictions.of_rows for result in results)),
        sections=[*sections, details, *page.sections],
        facts=page.facts,
    )


def _target(result: Result, name: str) -> PredictedTarget | None:
    found = (t for t in result.predictions.targets if t.target.name == name and len(t.rows))
    return next(found, None)


Ranked = Sequence[tuple[Result, str, PredictedTarget]]


def _leaderboard(ranked: Ranked, start: str) -> Section:
    """Return the table of errors with intervals, the best first."""
    rows = []
    for place, (result, difference, target) in enumerate(ranked, 1):
        mean, low, high = mean_interval(target.loss)
        minutes = "" if result.minutes is None else f"{result.minutes:.1f}"
        rows.append(
            (
                *(place, result.name, f"{mean:.4g}", f"{low:.3g} to {high:.3g}", len(target.rows)),
                *(result.metrics.get("epochs", ""), minutes, difference),
            )
        )
    label = ranked[0][2].error_label
    header = ("", "model", label, "95 % interval", "crystals", "epochs", "minutes", "differs in")
    text = (
        "Intervals are those of the bootstrap over crystals. Choose a model by its validation "
        "error: the lowest of many test errors is optimistic."
    )
    return Section(f"{start}Leaderboard", [Table(header, rows)], text)


def _paired(ranked: Ranked, start: str) -> Iterator[Section]:
    """Yield the differences to the best model on common crystals, and scatters of errors."""
    (first, _, best), label = ranked[0], f"difference of the {ranked[0][2].error_label}"
    rows, scatters, intervals = [], list[Chart](), dict[str, Interval]()
    for result, _, target in ranked[1:]:
        one, other = paired(best.ids, target.ids)
        if not len(one):
            continue
        own, theirs = best.loss[one], target.loss[other]
        found = intervals[result.name] = mean_interval(theirs - own)
        better = float((theirs < own).mean())
        cells = (f"{found.mean:+.3g}", f"{found.low:+.3g} to {found.high:+.3g}", f"{better:.0%}")
        rows.append((result.name, *cells, len(one), _verdict(found)))
        has_errors = (own + theirs).any() and not target.target.classes
        if len(scatters) < N_SCATTERS and has_errors:
            ids = [best.ids[row] for row in one]
            chart = _scatter(own, theirs, ids, (first.name, result.name), best.unit)
            scatters.append(Chart(chart, "", f"Errors of {result.name}"))
    if not rows:
        yield Section(f"{start}Differences", [], "The models share no test crystals.")
        return
    header = ("model", label, "95 % interval", "crystals that are better", "common crystals", "")
    text = (
        f"Compared with {first.name} on the same crystals. An interval that holds 0 shows no "
        "difference."
    )
    forest = Chart(_forest(intervals, label), is_wide=True)
    yield Section(f"{start}Paired differences", [forest, Table(header, rows)], text)
    if scatters:
        text = f"Each point is a crystal; below the line {first.name} has the larger error."
        yield Section(f"{start}Errors against each other", scatters, text)


def _verdict(found: Interval) -> str:
    return (
        "larger error" if found.low > 0 else "smaller error" if found.high < 0 else "no difference"
    )


def _forest(intervals: dict[str, Interval], label: str) -> Figure:
    """Return the differences with their intervals, a line for each model."""
    names = [figures.text(name) for name in intervals]
    mean, low, high = (np.array(ends) for ends in zip(*intervals.values(), strict=True))
    trace = {
        "type": "scatter", "mode": "markers", "x": figures.numbers(mean), "y": names,
        "marker": {"color": figures.ACCENT, "size": 9},
        "error_x": {"type": "data", "symmetric": False, "array": figures.numbers(high - mean),
                    "arrayminus": figures.numbers(mean - low), "color": figures.ACCENT,
                    "thickness": 1.5, "width": 4},
        "hovertemplate": "%{y}: %{x:.3g}<extra></extra>",
    }  # fmt: skip
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    zero |= {"line": {"color": figures.TEXT, "width": 1}}
    axis = {"type": "category", "autorange": "reversed"}
    height = 110 + 28 * len(names)
    return figures.figure([trace], label, "", shapes=[zero], yaxis=axis, height=height)


def _scatter(own: np.ndarray, theirs: np.ndarray, ids: Sequence[str], names: tuple[str, str],
             unit: str) -> Figure:  # fmt: skip
    """Return the absolute errors of two models, on logarithmic axes."""
    rows = np.random.default_rng(0).permutation(len(own))[:MAX_POINTS]
    positive = np.concatenate([own[own > 0], theirs[theirs > 0]])
    low, high = (float(np.log10(v)) for v in np.percentile(positive, [0.2, 100]))
    x, y = (with_unit(f"|error| of {name}", unit) for name in names)
    trace = {
        "type": "scattergl" if len(rows) > figures.WEBGL else "scatter", "mode": "markers",
        "x": figures.numbers(own[rows]), "y": figures.numbers(theirs[rows]),
        "text": [figures.text(ids[row]) for row in rows],
        "hovertemplate": "%{text}<br>%{x}, %{y}<extra></extra>",
        "marker": {"color": figures.ACCENT, "size": 5, "opacity": 0.5},
    }  # fmt: skip
    diagonal = {"type": "line", "x0": 10**low, "y0": 10**low, "x1": 10**high, "y1": 10**high}
    diagonal |= {"line": {"color": "--muted", "width": 1}}
    axis = {"type": "log", "range": [low - 0.1, high + 0.1]}
    return figures.figure([trace], x, y, xaxis=axis, yaxis=axis, shapes=[diagonal], height=420)
