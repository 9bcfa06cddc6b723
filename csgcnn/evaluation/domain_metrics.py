"""Errors inside and outside the domain of a model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from csgcnn.data.targets import Target
from csgcnn.evaluation.metrics import TASKS, Metrics, task_of
from csgcnn.evaluation.unit_metrics import reported_metrics

OUTSIDE = "crystals are out of the domain of the training set"


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
    outsiders = f"{part} {OUTSIDE}".strip()
    compared = TASKS[task_of(target)].baseline
    inside, outside = (metrics.get(f"{compared.name}_{part}_domain") for part in ("in", "out_of"))
    if inside is None or outside is None:
        n_outside = metrics.get("n_out_of_domain", 0)
        return f"{n_outside} of {metrics['n']} {outsiders}" if n_outside else None
    unit = f" {target.unit}" if compared.has_unit and target.unit else ""
    return (
        f"{metrics['n_out_of_domain']} of {metrics['n']} {outsiders}: "
        f"{compared.label} of {target.title} {outside:.4g}{unit}, of the others {inside:.4g}{unit}"
    )
