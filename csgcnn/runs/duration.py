"""How long a training took."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from csgcnn.io import read_csv


def training_minutes(folder: Path, metrics: Mapping[str, Any]) -> float:
    """Return the time of all epochs, those of a refit included, and of the fit of a kernel head.

    The entry `seconds` of metrics.json is that of the process that ended the run.

    Args:
        folder: Directory of the run.
        metrics: Content of its metrics.json.
    """
    seconds = [metrics.get("head", {}).get("seconds", 0.0)]
    for path in filter(Path.exists, (folder / "metrics.csv", folder / "refit.csv")):
        seconds += [float(row["seconds"]) for row in read_csv(path)]
    return (sum(seconds) or metrics["seconds"]) / 60
