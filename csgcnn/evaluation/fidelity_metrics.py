"""Errors of each fidelity."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from csgcnn.data.dataset import Dataset
from csgcnn.data.inputs import own_values
from csgcnn.data.splits import Split
from csgcnn.data.targets import Target
from csgcnn.evaluation.metrics import TASKS, Metrics, task_of
from csgcnn.evaluation.unit_metrics import reported_metrics

# Metrics of each target, by name of the fidelity.
ByFidelity = Mapping[str, Mapping[str, Metrics]]


def metrics_by_fidelity(dataset: Dataset, prediction: Tensor, rows: Tensor) -> ByFidelity:
    """Return the metrics of the rows of each fidelity; nothing without fidelities.

    Args:
        dataset: The data set.
        prediction: Values as they are trained, and probabilities [n_rows, sum of n_outputs].
        rows: [n_rows] int64.
    """
    found: dict[str, Mapping[str, Metrics]] = {}
    for column, values in own_values(dataset.store, dataset.inputs, rows):
        for position, label in enumerate(column.categories if column.is_fidelity else ()):
            is_one = values == position
            truth = dataset.values[rows[is_one]]
            found[label] = reported_metrics(prediction[is_one], truth, dataset.targets)
    return found


def fidelity_entries(
    dataset: Dataset, prediction: Mapping[str, Tensor], split: Split
) -> dict[str, Any]:
    """Return the entry of metrics.json about fidelities; nothing without any.

    Args:
        dataset: The data set.
        prediction: Predictions of each part [n_rows, sum of n_outputs].
        split: Rows of each part.
    """
    found = {p: metrics_by_fidelity(dataset, of, split[p]) for p, of in prediction.items()}
    return {"fidelities": found} if any(found.values()) else {}


def format_fidelities(metrics: ByFidelity, targets: Sequence[Target], part: str = "") -> list[str]:
    """Return a line for each target: "MAE of band_gap: gga 0.2 eV (67), hse 0.25 eV (67)".

    Args:
        metrics: Metrics of each target, by name of the fidelity.
        targets: The targets.
        part: Part of the split that the rows belong to.
    """
    lines = []
    for target in targets if metrics else ():
        metric = TASKS[task_of(target)].baseline
        unit = f" {target.unit}" if metric.has_unit and target.unit else ""
        of_each = [
            f"{label} {of[target.name][metric.name]:.4g}{unit} ({of[target.name]['n']} rows)"
            for label, of in metrics.items()
            if of[target.name]["n"]
        ]
        lines.append(f"{part} {metric.label} of {target.title}: {', '.join(of_each)}".strip())
    return lines
