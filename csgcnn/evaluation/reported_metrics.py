"""Metrics that are reported: in the units of the targets, by domain and by fidelity."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from csgcnn.data.dataset import Dataset
from csgcnn.data.inputs import own_values
from csgcnn.data.splits import Split
from csgcnn.data.targets import Target
from csgcnn.data.transforms import labels_in_unit, predictions_in_unit
from csgcnn.evaluation.metrics import TASKS, Metrics, metrics_of, target_metrics, task_of

# Metrics of each target, by name of the fidelity.
ByFidelity = Mapping[str, Mapping[str, Metrics]]


def reported_metrics(
    prediction: Tensor, truth: Tensor, targets: Sequence[Target]
) -> dict[str, Metrics]:
    """Compute the metrics of every target in its unit; of a transformed one on both scales.

    Args:
        prediction: Values as they are trained, and probabilities [n_rows, sum of n_outputs].
        truth: Values as they are trained, and positions of classes [n_rows, sum of n_labels].
        targets: The targets.

    Returns:
        The metrics of `target_metrics` in the unit of the target, and with a transform those on
        its scale, such as `mae_log10`.
    """
    in_unit = predictions_in_unit(prediction, targets), labels_in_unit(truth, targets)
    found = target_metrics(*in_unit, targets)
    if any(target.transform != "none" for target in targets):
        trained = target_metrics(prediction, truth, targets)
        for target in targets:
            if target.transform != "none":
                names = [metric.name for metric in metrics_of(task_of(target))]
                found[target.name] |= {
                    f"{name}_{target.transform}": trained[target.name][name] for name in names
                }
    return found


def metrics_with_domain(
    prediction: Tensor, truth: Tensor, targets: Sequence[Target], reasons: Sequence[str]
) -> dict[str, Metrics]:
    """Compute the metrics of every target, and compare rows inside and outside the domain.

    Args:
        prediction: Values as they are trained, and probabilities [n_rows, sum of n_outputs].
        truth: Values and positions of classes [n_rows, sum of n_labels], NaN where unknown.
        targets: The targets.
        reasons: Why each row is outside the domain [n_rows]; empty: it is inside.

    Returns:
        The metrics of `reported_metrics`, `n_out_of_domain`, and if both kinds of rows exist,
        `mae_in_domain` and `mae_out_of_domain` (of a class: `accuracy_in_domain`, ...).
    """
    is_outside = torch.tensor([text != "" for text in reasons], dtype=torch.bool)
    parts = {
        name: reported_metrics(prediction[rows], truth[rows], targets)
        for name, rows in (("in_domain", ~is_outside), ("out_of_domain", is_outside))
    }
    found = reported_metrics(prediction, truth, targets)
    for target in targets:
        compared = TASKS[task_of(target)].baseline.name
        of_target = {name: part[target.name] for name, part in parts.items()}
        found[target.name]["n_out_of_domain"] = of_target["out_of_domain"]["n"]
        if all(metrics["n"] for metrics in of_target.values()):
            found[target.name] |= {
                f"{compared}_{name}": metrics[compared] for name, metrics in of_target.items()
            }
    return found


def format_domain_metrics(target: Target, metrics: Metrics, part: str = "") -> str | None:
    """Return the line about rows outside the domain, or None if there are none.

    Args:
        target: The target.
        metrics: Its metrics, from `metrics_with_domain`.
        part: Part of the split that the crystals belong to.
    """
    outsiders = f"{part} crystals are out of the domain of the training set".strip()
    compared = TASKS[task_of(target)].baseline
    inside, outside = (metrics.get(f"{compared.name}_{part}_domain") for part in ("in", "out_of"))
    if inside is None or outside is None:
        n_outside = metrics.get("n_out_of_domain", 0)
        return f"{n_outside} of {metrics['n']} {outsiders}" if n_outside else None
    errors = [compared.format(value, target.unit) for value in (outside, inside)]
    return (
        f"{metrics['n_out_of_domain']} of {metrics['n']} {outsiders}: "
        f"{compared.label} of {target.title} {errors[0]}, of the others {errors[1]}"
    )


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
        of_target = {label: of[target.name] for label, of in metrics.items()}
        of_each = [
            f"{label} {metric.format(of[metric.name], target.unit)} ({of['n']} rows)"
            for label, of in of_target.items()
            if of["n"]
        ]
        lines.append(f"{part} {metric.label} of {target.title}: {', '.join(of_each)}".strip())
    return lines
