"""Style, layout and files of figures, without pyplot: no display is needed."""

import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from csgcnn.config.settings.plot import PlotSettings
from csgcnn.data.targets import with_unit
from csgcnn.errors import log_level, one_line
from csgcnn.io import write_bytes, write_csv

log = logging.getLogger(__name__)

STYLE = Path(__file__).with_name("figures.mplstyle")
MM_PER_INCH = 25.4
UNIT_TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)
CHARACTER_WIDTH, LEGEND_MARGIN = 1.5, 1.0  # of legends, in mm
HANDLE_LENGTH = 8  # of legends, in characters
NARROWEST = 60.0  # width of a panel beside another one, in mm


@contextmanager
def panels(
    path: Path, plot: PlotSettings, n_panels: int = 1, height: float = 1.0, margin: float = 0.0
) -> Iterator[tuple[Any, list[Any]]]:
    """Provide the panels of a figure, and write the figure when the block succeeds.

    Args:
        path: The files, without the suffix, which is that of the format.
        plot: Settings of the figures.
        n_panels: Number of panels.
        height: Height of a panel, relative to its width.
        margin: Further height of a panel in mm, for titles.

    Yields:
        The figure and its axes.
    """
    matplotlib = _matplotlib()
    n_columns = max(1, min(n_panels, int(plot.width // NARROWEST)))
    n_rows = -(-n_panels // n_columns)
    width = plot.width / MM_PER_INCH
    size = (width, n_rows * (height * width / n_columns + margin / MM_PER_INCH))
    with matplotlib.style.context(["default", STYLE]):
        figure = matplotlib.figure.Figure(size, layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for axis in axes[n_panels:]:
            axis.remove()
        yield figure, [*axes[:n_panels]]
        added = np.zeros(n_rows * n_columns)
        added[:n_panels] = [_legend_height(axis) for axis in axes[:n_panels]]
        figure.set_figheight(size[1] + added.reshape(n_rows, n_columns).max(1).sum())
        for name in plot.formats:
            image = io.BytesIO()
            with log_level("fontTools", logging.WARNING):  # it lists each table of a font
                figure.savefig(image, format=name)
            write_bytes(path.with_name(f"{path.name}.{name}"), image.getvalue())


def _matplotlib() -> Any:
    """Import matplotlib, also where MPLBACKEND names a backend that is not installed here."""
    is_first = "matplotlib" not in sys.modules
    # Importing matplotlib fails if the variable is wrong; nothing here needs it.
    backend = os.environ.pop("MPLBACKEND", None) if is_first else None
    try:
        with log_level("matplotlib", logging.ERROR):  # an absent cache folder interests nobody
            import matplotlib
            import matplotlib.figure
            import matplotlib.style

        if backend is not None:
            with suppress(ValueError):
                matplotlib.rcParams["backend"] = backend
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


def axis_label(name: str, unit: str) -> str:
    """Return the label of an axis, with each function and unit once.

    Args:
        name: Name of the quantity, such as "band gap" or "log10 K".
        unit: Its unit, such as "eV" or "log10(GPa)".

    Returns:
        "band gap [eV]", or "log10(K / GPa)" for the logarithm of a quantity with a unit.
    """
    if function := re.fullmatch(r"(\w+)\((.+)\)", unit):
        quantity = re.fullmatch(rf"{function[1]}(?:\((.+)\)|[ _](.+))", name)
        if quantity:
            return f"{function[1]}({quantity[1] or quantity[2]} / {function[2]})"
    return with_unit(name, unit)


def color_bar(figure: Any, axis: Any, colors: Any, label: str) -> Any:
    """Draw a color bar to the right of an axis, with its height; return the bar.

    Args:
        figure: The figure.
        axis: The axis.
        colors: What it explains.
        label: Its label.
    """
    return figure.colorbar(colors, cax=axis.inset_axes((1.03, 0, 0.05, 1)), label=label)


def legend_above(axis: Any, title: str = "") -> None:
    """Place the legend of an axis above it, where it covers nothing; the figure grows by its lines.

    Args:
        axis: The axis.
        title: First line of the legend.
    """
    labels = axis.get_legend_handles_labels()[1]
    width = axis.figure.get_figwidth() * MM_PER_INCH / axis.get_gridspec().ncols
    n_columns = width // (CHARACTER_WIDTH * (max(map(len, labels)) + HANDLE_LENGTH))
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.02),
        title=title or None,
        alignment="left",
        ncols=max(1, min(int(n_columns), len(labels))),
    )


def _legend_height(axis: Any) -> float:
    """Return the height of the legend of an axis, in inches."""
    legend = axis.get_legend()
    if legend is None:
        return 0.0
    return legend.get_window_extent().height / axis.figure.dpi + LEGEND_MARGIN / MM_PER_INCH


def show_unit_square(axis: Any, diagonal: bool = True) -> None:
    """Set the limits of an axis to those of fractions, with equal ticks.

    Args:
        axis: The axis.
        diagonal: Whether to draw the diagonal.
    """
    if diagonal:
        axis.axline((0, 0), slope=1, color="black", linewidth=0.6, zorder=0.5)
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axis.set(xticks=UNIT_TICKS, yticks=UNIT_TICKS)


def decade_ticks(axis: Any) -> None:
    """Label 1, 2 and 5 of each decade of a logarithmic x or y axis, in plain numbers."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def write_numbers(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write the numbers of a figure beside it, as csv.

    Args:
        path: The figure, without suffix.
        columns: Columns of equal length by their names.
    """
    rows = zip(*columns.values(), strict=True)
    write_csv(path.with_name(f"{path.name}.csv"), [*columns], rows)


def draw(*figures: Callable[[], None]) -> None:
    """Draw figures; one that cannot be drawn is a warning, because the results are complete."""
    for figure in figures:
        try:
            figure()
        except Exception as error:
            log.warning("a figure could not be drawn: %s", one_line(error))
