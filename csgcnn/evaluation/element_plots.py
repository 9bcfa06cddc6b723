"""Figure of the errors of the crystals that hold an element, for each element."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.config.settings.plot import PlotSettings
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.data.targets import Target, label_columns, with_unit
from csgcnn.evaluation.figure_files import panels, write_numbers
from csgcnn.evaluation.metrics import MAE

# Noble gases end the periods of the periodic table.
NOBLE_GASES = (2, 10, 18, 36, 54, 86, 118)
FEW = 3  # crystals with an element below which its error does not set the range of the colors


def plot_element_errors(
    prediction: Tensor,
    labels: Tensor,
    has_element: Tensor,
    targets: Sequence[Target],
    path: Path,
    plot: PlotSettings,
) -> None:
    """Draw the mean error of the crystals that hold an element, in a periodic table per target.

    Args:
        prediction: Values in units and probabilities [n_rows, sum of n_outputs].
        labels: Values in units and positions of classes [n_rows, sum of n_labels], NaN where
            unknown.
        has_element: Whether a crystal holds an element [n_rows, n_elements], by atomic number.
        targets: The targets.
        path: The figure, without suffix.
        plot: Settings of the figures.
    """
    columns: dict[str, Any] = {}
    parts = prediction.split([target.n_outputs for target in targets], dim=1)
    truths = label_columns(labels, targets)
    with panels(path, plot, len(targets), 0.62) as (figure, axes):
        for axis, target, part, truth in zip(axes, targets, parts, truths, strict=True):
            error = (part - truth).abs().nanmean(1)
            if target.classes:
                error = torch.where(
                    truth.isfinite(), part.argmax(1, keepdim=True) != truth, torch.nan
                ).squeeze(1)
            known = error.isfinite()
            of_element = has_element[known].double()
            count = of_element.sum(0)
            mean = (of_element.T @ error[known].double() / count).numpy()
            name = "error rate" if target.classes else MAE.label
            unit = "" if target.classes else target.unit
            label = with_unit(f"{name} of {target.title}", unit)
            _draw_table(figure, axis, mean, count.numpy(), label)
            header = "error_rate" if target.classes else MAE.name
            columns[with_unit(f"{target.name}_{header}", unit)] = mean
            columns[f"{target.name}_n"] = count.long().numpy()
    occurs = np.flatnonzero(has_element.any(0).numpy())
    numbers = {name: values[occurs].tolist() for name, values in columns.items()}
    write_numbers(path, {"element": [SYMBOLS[z] for z in occurs], **numbers})


def _draw_table(
    figure: Any, axis: Any, error: NDArray[Any], count: NDArray[Any], label: str
) -> None:
    rows, columns = element_positions()
    table = np.full((rows.max() + 1, 18), np.nan)
    z = np.arange(1, len(error))
    table[rows[z], columns[z]] = np.where(count[z] > 0, error[z], np.nan)
    is_frequent = count >= min(FEW, count.max())
    largest = error[is_frequent & (count > 0)].max(initial=0) or 1
    extend = "max" if np.nanmax(table, initial=0) > largest else "neither"
    image = axis.pcolormesh(table, cmap="YlOrRd", vmin=0, vmax=largest, edgecolors="white")
    figure.colorbar(
        *(image, None, axis), label=label, extend=extend, location="top", aspect=40, pad=0.02
    )
    # in points, of 72 per inch
    size = 0.4 * 72 * figure.get_figwidth() / axis.get_gridspec().ncols / 18
    for number in z:
        is_dark = count[number] and error[number] > 0.6 * largest
        color = "white" if is_dark else "black" if count[number] else "0.75"
        place = columns[number] + 0.5, rows[number] + 0.5
        axis.text(*place, SYMBOLS[number], ha="center", va="center", color=color, fontsize=size)
    axis.set(ylim=(len(table), 0), aspect="equal")
    axis.axis("off")


def element_positions() -> tuple[NDArray[Any], NDArray[Any]]:
    """Return row and column of each element in the periodic table; row 0 and column 0 for none.

    The lanthanides and actinides stand below, one row apart.
    """
    rows, columns = np.zeros(len(SYMBOLS), int), np.zeros(len(SYMBOLS), int)
    start = 1
    for period, end in enumerate(NOBLE_GASES):
        length = end - start + 1
        for z in range(start, end + 1):
            n, n_left = z - start, end - z
            is_f_block = length == 32 and 2 <= n < 17
            rows[z] = period + 3 if is_f_block else period
            columns[z] = n if is_f_block or (n < 2 and n_left) else 17 - n_left
        start = end + 1
    return rows, columns
