"""Predictions beside known values, as predictions.csv of a run or an evaluation holds them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from csgcnn.data.targets import Target, with_unit
from csgcnn.errors import UserError, first_line
from csgcnn.evaluation.metrics import (
    CLASSIFICATION,
    REGRESSION,
    TASKS,
    Metric,
    Metrics,
    task_metrics,
    task_of,
)
from csgcnn.runs.tables import compared_columns

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]

_PREDICTION = re.compile(r"(?P<name>.+)_prediction(?: \[(?P<unit>.+)\])?")


@dataclass(frozen=True)
class PredictedTarget:
    """A target in the rows where it is known.

    Attributes:
        target: The target.
        ids: Ids of these rows.
        rows: Positions of these rows among all rows [n_known].
        truth: Values, or positions of the true classes [n_known].
        prediction: Values [n_known] or probabilities [n_known, n_classes].
        std: Standard deviations [n_known], if the table has them.
    """

    target: Target
    ids: Sequence[str]
    rows: Array
    truth: Array
    prediction: Array
    std: Array | None

    @cached_property
    def error(self) -> Array:
        """Prediction minus value; of classes 1 where the likeliest one is wrong [n_known]."""
        if self.target.classes:
            return (self.prediction.argmax(1) != self.truth).astype(float)
        return self.prediction - self.truth

    @property
    def loss(self) -> Array:
        """The absolute errors, whose mean is the MAE or the error rate [n_known]."""
        return np.abs(self.error)

    @property
    def metric(self) -> Metric:
        """The metric that is compared with baselines."""
        return TASKS[task_of(self.target)].baseline

    @property
    def unit(self) -> str:
        """Unit of the errors."""
        return self.target.unit if self.metric.has_unit else ""

    @property
    def label(self) -> str:
        """The target with its unit."""
        return with_unit(self.target.title, self.target.unit)

    @property
    def error_label(self) -> str:
        """The mean of `loss` with its unit."""
        return with_unit(self.metric.error_label, self.unit)

    @cached_property
    def metrics(self) -> Metrics:
        """All registered metrics."""
        truth = torch.from_numpy(self.truth)
        prediction = torch.from_numpy(self.prediction)
        is_class = bool(self.target.classes)
        return task_metrics(task_of(self.target), prediction, truth.long() if is_class else truth)


@dataclass(frozen=True)
class Predictions:
    """The rows of a table of predictions.

    Attributes:
        ids: Ids of the rows.
        part: Part of the split that the rows are; "all" without a choice.
        targets: The targets.
        texts: Columns of text by name, such as `out_of_domain`; "" where there is nothing.
        numbers: Other columns of numbers by name, such as `nearest_distance`.
    """

    ids: list[str]
    part: str
    targets: list[PredictedTarget]
    texts: Mapping[str, Sequence[str]]
    numbers: Mapping[str, Array]

    @property
    def of_rows(self) -> str:
        """What the rows are called: "test crystals"."""
        return "crystals" if self.part == "all" else f"{self.part} crystals"


def read_predictions(path: Path, labels: Mapping[str, str]) -> Predictions:
    """Read the test rows of a table of predictions, or all rows where none is a test row.

    Args:
        path: A file predictions.csv of a run or of `csgcnn evaluate`, or a table of it.
        labels: Names of targets in figures.

    Raises:
        UserError: It cannot be read, or has no known values beside predictions.
    """
    import pandas as pd

    try:
        header = [*pd.read_csv(path, nrows=0)]
        targets = [*_targets(header, labels)]
        texts = ["id", "split", *(target.name for target in targets if target.classes)]
        frame = pd.read_csv(path, dtype=dict.fromkeys(texts, str))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table: {first_line(error)}") from None
    if not targets and any(re.search(r"_wasserstein( \[|$)", column) for column in header):
        raise UserError(f"{path}: csgcnn report does not show targets with a grid; see spectra.png")
    if "id" not in frame or not targets:
        raise UserError(
            f"{path} has no known values beside predictions, as predictions.csv of a run has; "
            "csgcnn evaluate output=FOLDER writes them"
        )
    part = "all"
    if "split" in frame and (frame["split"] == "test").any():
        frame, part = frame[frame["split"] == "test"].reset_index(drop=True), "test"
    used = {name for target in targets for name in compared_columns([target], with_std=True)}
    others = frame.drop(columns=[name for name in frame if name in {*used, "id", "split"}])
    numeric = [name for name in others.select_dtypes("number") if others[name].notna().any()]
    texts = others.drop(columns=numeric)
    return Predictions(
        ids=frame["id"].tolist(),
        part=part,
        targets=[_predicted(frame, target, path) for target in targets],
        texts={name: texts[name].astype(object).fillna("").astype(str).tolist() for name in texts},
        numbers={name: others[name].to_numpy(float) for name in numeric},
    )


def _targets(header: Sequence[str], labels: Mapping[str, str]) -> Iterator[Target]:
    """Yield the targets that have columns of predictions."""
    for column in header:
        if found := _PREDICTION.fullmatch(column):
            name, start = found["name"], f"{found['name']}_probability_"
            classes = tuple(c.removeprefix(start) for c in header if c.startswith(start))
            task = CLASSIFICATION if classes else REGRESSION
            yield Target(name, found["unit"] or "", task, classes, label=labels.get(name, ""))


def _predicted(frame: "pd.DataFrame", target: Target, path: Path) -> PredictedTarget:
    own = compared_columns([target], with_std=True)
    if missing := [name for name in own[:2] if name not in frame]:
        raise UserError(f"{path}: the column {missing[0]} is missing")
    if target.classes:
        position = {label: i for i, label in enumerate(target.classes)}
        values = frame[own[0]].map(position).to_numpy(float)
        prediction = frame[target.outputs].to_numpy(float)
    else:
        values, prediction = (frame[name].to_numpy(float) for name in own[:2])
    rows = np.flatnonzero(np.isfinite(values))
    has_std = not target.classes and own[3] in frame
    return PredictedTarget(
        target,
        frame["id"].iloc[rows].tolist(),
        rows,
        values[rows],
        prediction[rows],
        frame[own[3]].to_numpy(float)[rows] if has_std else None,
    )
