"""Figure of the best, the median and the worst prediction of a target with a grid."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from csgcnn.config.settings.plot import PlotSettings
from csgcnn.data.targets import Target, with_unit
from csgcnn.errors import one_line
from csgcnn.evaluation.figure_files import legend_above, panels, write_numbers

MAX_ID = 20  # characters of an id that fit above a panel


def plot_spectra(
    prediction: Tensor,
    truth: Tensor,
    ids: Sequence[str],
    target: Target,
    path: Path,
    plot: PlotSettings,
) -> None:
    """Draw the crystals with the lowest, the median and the highest mean absolute error.

    Args:
        prediction: Values in units [n_rows, n_points].
        truth: Likewise known values, NaN where unknown.
        ids: Ids of the rows.
        target: The target.
        path: The figure, without suffix.
        plot: Settings of the figures.
    """
    error = (prediction - truth).abs().nanmean(1)
    known = error.isfinite().nonzero().squeeze(1)
    order = known[error[known].argsort(stable=True)].tolist()
    if not order:
        return
    shown = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    columns = {"grid": list(target.grid)}
    limits = torch.cat([values[[*shown.values()]].flatten() for values in (prediction, truth)])
    low, high = limits[limits.isfinite()].aminmax()
    margin = 0.05 * (high - low).item()
    with panels(path, plot, len(shown), 0.7) as (_, axes):
        for axis, (name, row) in zip(axes, shown.items(), strict=True):
            parts = {plot.reference_label: truth[row], "predicted": prediction[row]}
            for label, values in parts.items():
                columns[f"{name}_{label}"] = values.tolist()
                color = "black" if label == plot.reference_label else None
                axis.plot(target.grid, values, label=label, color=color, linewidth=0.8)
            shown_id = one_line(ids[row], MAX_ID)
            unit = f" {target.unit}" if target.unit else ""
            axis.set(
                xlabel=with_unit("grid", target.grid_unit),
                ylabel=with_unit(target.title, target.unit),
                ylim=(low.item() - margin, high.item() + margin),
            )
            legend_above(axis, f"{name} of {len(order)}: {shown_id}\nMAE {error[row]:.3g}{unit}")
    write_numbers(path, columns)
