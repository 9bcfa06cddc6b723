"""Targets of the crystals of the fixture `mixed_file`: a number and two classifications."""

import gzip
import json
from pathlib import Path
from typing import Any

COMPARISON = "band_gap >= 2"

TARGETS = [
    f"dataset.derived.is_wide={COMPARISON}",
    "dataset.targets=[band_gap,is_wide,kind]",
    "dataset.tasks.is_wide=classification",
    "dataset.tasks.kind=classification",
    "dataset.split.stratify=is_wide",
    "dataset.split.val=0.2",
    "dataset.split.test=0.2",
    "dataset.split.train=0.6",
]


def write_mixed_file(path: Path, records: list[dict[str, Any]]) -> None:
    """Write sixty crystals with a number and one of three classes, which some of them lack."""
    kinds = ["oxide", "halide", "other"]
    mixed = [record | {"kind": kinds[i % 3]} for i, record in enumerate(records)]
    for i, record in enumerate(mixed):
        record["band_gap"] = None if i % 10 == 0 else record["band_gap"]
        record["kind"] = None if i % 5 == 1 else record["kind"]
    path.write_bytes(gzip.compress(json.dumps(mixed).encode()))
