"""Compare the results of runs that were resumed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from csgcnn.runs.checkpoint import load_checkpoint

Table = Callable[[Path], list[dict[str, str]]]

TIMES = ("seconds", "graphs_per_second")

NO_FIGURES = "trainer.figures=false"

EVERY_STEP = "trainer.checkpoint_every=0"


def state_of(run: Path, name: str = "last") -> dict[str, Any]:
    return load_checkpoint(run / "checkpoints" / f"{name}.ckpt")


def check_same_results(found: Path, expected: Path, table: Table) -> None:
    """Check that two runs are identical, to the bit, but for their times."""
    both = found, expected
    rows, expected_rows = (
        [{k: v for k, v in row.items() if k not in TIMES} for row in table(run / "metrics.csv")]
        for run in both
    )
    assert rows == expected_rows
    assert (found / "predictions.csv").read_bytes() == (expected / "predictions.csv").read_bytes()
    metrics, expected_metrics = (
        {k: v for k, v in json.loads((run / "metrics.json").read_text()).items() if k not in TIMES}
        for run in both
    )
    assert metrics == expected_metrics
    for name in ("best", "last"):
        weights, expected_weights = (state_of(run, name)["state_dict"] for run in both)
        assert all(torch.equal(weights[key], expected_weights[key]) for key in expected_weights)
