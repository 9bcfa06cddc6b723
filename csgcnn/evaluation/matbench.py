"""The record of a benchmark in the format of Matbench, whose `MatbenchBenchmark.from_file` reads and checks it."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from csgcnn.data.targets import Target
from csgcnn.evaluation.benchmark_summary import Fold
from csgcnn.evaluation.metrics import classification_metrics, confusion_matrix, regression_metrics

BENCHMARK, VERSION = "matbench_v0.1", "0.6"
SMALLEST = 1e-5  # truth below this has no relative error


def matbench_record(
    task: str, target: Target, folds: Sequence[Fold], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What results.json holds: per fold, a prediction for each official id (of two classes the second's probability).

    Source: materialsproject/matbench, bench.py and task.py of version 0.6.
    """
    n_rows = sum(len(fold.ids) for fold in folds)
    results = {
        f"fold_{fold.number}": {
            "data": {
                official_id(task, id_, n_rows): value
                for id_, value in zip(fold.ids, fold.prediction[:, -1].tolist(), strict=True)
            },
            "parameters": {
                "best_epoch": fold.best_epoch,
                "epochs": fold.epochs,
                "seed": facts["seed"],
            },
            "scores": _scores(fold.prediction, fold.truth, target),
        }
        for fold in folds
    }
    of_task = {"benchmark_name": BENCHMARK, "dataset_name": task, "results": results}
    record = {
        "@module": "matbench.bench",
        "@class": "MatbenchBenchmark",
        "version": VERSION,
        "benchmark_name": BENCHMARK,
        "datestamp": datetime.now(UTC).strftime("%Y.%m.%d %H:%M.%S"),
        "tasks": {task: {"@module": "matbench.task", "@class": "MatbenchTask", **of_task}},
        "user_metadata": dict(facts),
    }
    return record | {"hash": sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()}


def official_id(task: str, id_: str, n_rows: int) -> str:
    """Matbench's id of a row: it is that already, or it is its number, from 0, in Matbench's file."""
    prefix = task.replace("matbench", "mb").replace("_", "-")
    if id_.startswith(f"{prefix}-") or not id_.isdecimal():
        return id_
    return f"{prefix}-{int(id_) + 1:0{len(str(n_rows))}}"


def _scores(prediction: Tensor, truth: Tensor, target: Target) -> dict[str, float]:
    if target.classes:
        label = truth.long()
        metrics, confusion = (
            classification_metrics(prediction, label),
            confusion_matrix(prediction, label).double(),
        )
        balanced = metrics["balanced_accuracy"]
        f1 = 2 * confusion[1, 1] / (confusion[1].sum() + confusion[:, 1].sum())
        # Matbench computes this area from labels, of which it is the balanced accuracy
        return {
            "accuracy": metrics["accuracy"],
            "balanced_accuracy": balanced,
            "f1": f1.item(),
            "rocauc": balanced,
        }
    metrics, error = (
        regression_metrics(prediction.squeeze(1), truth),
        (prediction.squeeze(1) - truth).abs(),
    )
    relative = (error / truth.abs())[truth.abs() > SMALLEST]
    largest, mape = error.max().item(), torch.mean(relative).item()
    return {"mae": metrics["mae"], "rmse": metrics["rmse"], "mape": mape, "max_error": largest}
