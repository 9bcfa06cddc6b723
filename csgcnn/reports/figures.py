"""Charts of a report, as data and layout of plotly.js."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.elements import SYMBOLS
from csgcnn.evaluation.element_plots import element_positions
from csgcnn.reports.page import Figure

Array = NDArray[Any]

ACCENT, SECOND, FAINT, TEXT = "--accent", "--second", "--line", "--text"
WEBGL = 1000  # points from which they are drawn by WebGL
N_BINS = 40
FEW = 3  # crystals with an element below which its error does not set the range of the colors


def figure(traces: Sequence[Any], x: str, y: str, **layout: Any) -> Figure:
    """Return a chart with titles of its axes.

    Args:
        traces: The traces.
        x: Title of the horizontal axis.
        y: Title of the vertical axis.
        **layout: Further layout; `xaxis` and `yaxis` are added to the titles.
    """
    axes = {
        name: {"title": {"text": text(title)}, **layout.pop(name, {})}
        for name, title in (("xaxis", x), ("yaxis", y))
    }
    return {"data": [*traces], "layout": {**axes, **layout}}


def numbers(values: Iterable[float]) -> list[float | None]:
    """Return numbers with five digits; None for those that are not finite."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in map(float, values)]


def text(given: object) -> str:
    """Return a text of untrusted data as plotly.js shows it unchanged."""
    return html.escape(str(given), quote=False)


def parity(
    truth: Array, prediction: Array, groups: Mapping[str, Array], label: str, hover: Sequence[str]
) -> Figure:
    """Return predicted against known values.

    Args:
        truth: Known values [n_points].
        prediction: Predictions [n_points].
        groups: Positions of the points of each group, by the name of the group.
        label: Name of the quantity with its unit.
        hover: Text of each point.
    """
    kind = "scattergl" if len(truth) > WEBGL else "scatter"
    low, high = min(truth.min(), prediction.min()), max(truth.max(), prediction.max())
    margin = 0.03 * (high - low) or 1.0
    ends = numbers([low - margin, high + margin])
    traces: list[Figure] = [
        {
            "type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip",
            "line": {"color": "--muted", "width": 1}, "showlegend": False,
        }
    ]  # fmt: skip
    size = 4 if len(truth) > 5 * WEBGL else 6
    for (name, rows), color in zip(groups.items(), (ACCENT, SECOND), strict=False):
        traces.append(
            {
                "type": kind, "mode": "markers", "name": text(name),
                "x": numbers(truth[rows]), "y": numbers(prediction[rows]),
                "customdata": rows.tolist(), "text": [text(hover[row]) for row in rows],
                "hovertemplate": "%{text}<br>known %{x}, predicted %{y}<extra></extra>",
                "marker": {"color": color, "size": size, "opacity": 0.55},
                "unselected": {"marker": {"opacity": 0.08}},
            }
        )  # fmt: skip
    square = {"range": ends, "constrain": "domain"}
    return figure(
        traces, f"known {label}", f"predicted {label}",
        xaxis=square, yaxis=square | {"scaleanchor": "x", "scaleratio": 1},
        showlegend=len(groups) > 1, dragmode="select", height=520,
    )  # fmt: skip


def error_histogram(error: Array, label: str) -> Figure:
    """Return the distribution of errors; the outermost 0.5 % at both ends are in the last bins.

    Args:
        error: Errors [n_rows].
        label: Name of the error with its unit.
    """
    low, high = np.percentile(error, [0.5, 99.5])
    edges = np.linspace(low, high if high > low else low + 1, N_BINS + 1)
    count = np.histogram(error.clip(low, high), edges)[0]
    trace = bars_between(edges, count)
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1}
    zero |= {"line": {"color": TEXT, "width": 1}}
    return figure([trace], label, "crystals", shapes=[zero], bargap=0)


def bars_between(edges: Array, count: Array) -> Figure:
    """Return a trace of bars between edges, for a histogram.

    Args:
        edges: Edges of the bins [n_bins + 1].
        count: Crystals in the bins [n_bins].
    """
    ends = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges)]
    return {
        "type": "bar", "x": numbers((edges[:-1] + edges[1:]) / 2), "y": count.tolist(),
        "width": numbers(np.diff(edges)), "marker": {"color": ACCENT},
        "text": ends, "textposition": "none",
        "hovertemplate": "%{text}<br>%{y} crystals<extra></extra>",
    }  # fmt: skip


def loss_by_group(groups: Mapping[str, Array], x: str, y: str, overall: float) -> Figure:
    """Return the mean error of groups of crystals, with 95 % intervals of the mean.

    Args:
        groups: Errors of the crystals of each group, by its name.
        x: What distinguishes the groups.
        y: Name of the mean error with its unit.
        overall: Mean error of all crystals, which is a line.
    """
    mean = [float(of_group.mean()) for of_group in groups.values()]
    spread = [
        1.96 * float(of_group.std(ddof=1)) / len(of_group) ** 0.5 if len(of_group) > 1 else 0.0
        for of_group in groups.values()
    ]
    trace = {
        "type": "bar", "x": [*map(text, groups)], "y": numbers(mean),
        "marker": {"color": ACCENT}, "customdata": [*map(len, groups.values())],
        "error_y": {"type": "data", "array": numbers(spread), "color": TEXT, "thickness": 1,
                    "width": 3},
        "hovertemplate": "%{x}<br>%{y:.3g}, %{customdata} crystals<extra></extra>",
    }  # fmt: skip
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": overall, "y1": overall}
    line |= {"line": {"color": SECOND, "width": 1, "dash": "dot"}}
    return figure(
        [trace], x, y, shapes=[line], xaxis={"type": "category"}, yaxis={"rangemode": "tozero"}
    )


def element_table(values: Array, count: Array, label: str, unit: str = "") -> Figure:
    """Return a periodic table whose cells are colored by a value of each element.

    Args:
        values: Values by atomic number [n_elements].
        count: Number of crystals that hold the element [n_elements]; 0: no color.
        label: Name of the values with their unit.
        unit: What the hover text adds to the value; empty: it gives the number of crystals alone.
    """
    rows, columns = element_positions()
    present = [z for z in range(1, len(count)) if count[z]]
    absent = [z for z in range(1, len(SYMBOLS)) if z not in set(present)]
    frequent = [z for z in present if count[z] >= min(FEW, count.max())]
    cells = np.full((3, int(rows.max()) + 1, 18), "", object)
    cells[0] = None
    for z in present:
        value = f"{values[z]:.3g}{unit}, " if unit else ""
        hover = f"{SYMBOLS[z]}: {value}{count[z]:,} crystals"
        cells[:, rows[z], columns[z]] = float(f"{values[z]:.4g}"), SYMBOLS[z], hover
    known = {
        "type": "heatmap", "z": cells[0].tolist(), "text": cells[1].tolist(),
        "texttemplate": "%{text}", "customdata": cells[2].tolist(),
        "hovertemplate": "%{customdata}<extra></extra>", "hoverongaps": False, "xgap": 2,
        "ygap": 2, "zmin": 0, "zmax": float(values[frequent].max(initial=0)) or 1,
        "colorscale": "--sequential",
        "colorbar": {"title": {"text": text(label), "side": "top"}, "orientation": "h",
                     "thickness": 8, "len": 0.5, "x": 0.42, "y": 0.99, "yanchor": "top"},
    }  # fmt: skip
    others = {
        "type": "scatter", "mode": "text", "x": columns[absent].tolist(),
        "y": rows[absent].tolist(), "text": [SYMBOLS[z] for z in absent], "hoverinfo": "skip",
        "textfont": {"color": FAINT}, "showlegend": False,
    }  # fmt: skip
    hidden = {"visible": False, "fixedrange": True}
    return figure(
        [known, others], "", "", xaxis=hidden | {"range": [-0.5, 17.5]},
        yaxis=hidden | {"range": [len(cells[0]) - 0.5, -0.5]},
        height=430, margin={"l": 0, "r": 0, "t": 0, "b": 0}, dragmode=False,
    )  # fmt: skip


def lines(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str,
          **layout: Any) -> Figure:  # fmt: skip
    """Return curves.

    Args:
        curves: Horizontal and vertical coordinates by name.
        x: Title of the horizontal axis.
        y: Title of the vertical axis.
        **layout: Further layout.
    """
    traces = [
        {
            "type": "scatter", "mode": "lines+markers" if len(xs) < 30 else "lines",
            "name": text(name), "x": numbers(xs), "y": numbers(ys), "marker": {"size": 4},
        }
        for name, (xs, ys) in curves.items()
    ]  # fmt: skip
    return figure(traces, x, y, showlegend=True, **layout)


def unit_lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, diagonal: bool
) -> Figure:
    """Return curves of fractions against fractions.

    Args:
        curves: Horizontal and vertical coordinates by name.
        x: Title of the horizontal axis.
        y: Title of the vertical axis.
        diagonal: Whether to draw the diagonal.
    """
    shape = {"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1}
    shape |= {"line": {"color": "--muted", "width": 1}}
    unit = {"range": [-0.02, 1.02]}
    return lines(curves, x, y, xaxis=unit, yaxis=unit, shapes=[shape] * diagonal)


def confusion(count: Array, classes: Sequence[str], target: str) -> Figure:
    """Return the numbers of crystals by true and predicted class, colored by recall.

    Args:
        count: Numbers [n_classes, n_classes].
        classes: Names of the classes.
        target: Title of the target.
    """
    fraction = count / count.sum(1, keepdims=True).clip(1)
    trace = {
        "type": "heatmap", "z": fraction.round(4).tolist(), "zmin": 0, "zmax": 1,
        "x": [*map(text, classes)], "y": [*map(text, classes)], "text": count.tolist(),
        "texttemplate": "%{text}" if len(classes) <= 12 else "", "colorscale": "--sequential",
        "hovertemplate": "true %{y}, predicted %{x}: %{text} (%{z:.0%})<extra></extra>",
        "colorbar": {"title": {"text": "of the true class"}, "thickness": 8},
    }  # fmt: skip
    axis = {"type": "category"}
    return figure(
        [trace], f"predicted {target}", f"true {target}",
        xaxis=axis, yaxis=axis | {"autorange": "reversed"}, dragmode=False,
    )  # fmt: skip
