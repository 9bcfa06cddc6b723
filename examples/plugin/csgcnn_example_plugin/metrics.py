"""A metric, which appears in metrics.json and in the tables."""

from torch import Tensor

from csgcnn.evaluation.metrics import Metric


def median_absolute_error(prediction: Tensor, truth: Tensor) -> float:
    """Return the median of |prediction - truth|. Shapes: both [n_rows]."""
    return (prediction.double() - truth.double()).abs().median().item()


MEDIAN_ABSOLUTE_ERROR = Metric(
    name="median_absolute_error",
    label="median absolute error",
    task="regression",
    compute=median_absolute_error,
    has_unit=True,
    lower_is_better=True,
)
