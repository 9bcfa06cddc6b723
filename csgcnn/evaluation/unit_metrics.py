"""Metrics in the units of the targets."""

from collections.abc import Sequence

from torch import Tensor

from csgcnn.data.targets import Target
from csgcnn.data.transforms import labels_in_unit, predictions_in_unit
from csgcnn.evaluation.metrics import Metrics, metrics_of, target_metrics, task_of


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
