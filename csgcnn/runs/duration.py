"""How long a training took."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def training_minutes(folder: Path, metrics: Mapping[str, Any]) -> float:
    """Return the time of all epochs, those of a refit included, and of the fit of a kernel head.

    The entry `seconds` of metrics.json is that of the process that ended the run.

    Args:
        folder: Directory of the run.
        metrics: Content of its metrics.json.
    """
    seconds = [metrics.get("head", {}).get("seconds", 0.0)]
    for path in filter(Path.exists, (folder / "metrics.csv", folder / "refit.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            seconds += [float(row["seconds"]) for row in csv.DictReader(file)]
    return (sum(seconds) or metrics["seconds"]) / 60
