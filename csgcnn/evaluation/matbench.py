"""Records of benchmarks in the format of Matbench.

Source: materialsproject/matbench, bench.py and task.py of version 0.6. Its
`MatbenchBenchmark.from_file` reads and checks such a record.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from torch import Tensor

from csgcnn.data.matbench import official_id
from csgcnn.data.targets import Target
from csgcnn.evaluation.benchmark_summary import Fold
from csgcnn.evaluation.class_metrics import confusion_matrix
from csgcnn.evaluation.metrics import ACCURACY, BALANCED_ACCURACY, MAE, RMSE, task_metrics, task_of

BENCHMARK, VERSION = "matbench_v0.1", "0.6"
# Rows with a smaller truth are left out of the relative error.
SMALLEST = 1e-5


def matbench_record(
    task: str, target: Target, folds: Sequence[Fold], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of results.json: a prediction for each official id of each fold.

    Args:
        task: Official name of the task.
        target: The target; of two classes the probability of the second is recorded.
        folds: All folds.
        facts: Metadata, with the key `seed`.
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


def _scores(prediction: Tensor, truth: Tensor, target: Target) -> dict[str, float]:
    """Return the metrics of Matbench by its names.

    F1 = 2 TP / (2 TP + FP + FN). Matbench computes the area below the ROC curve from predicted
    labels, of which it is the balanced accuracy. MAPE is the mean of |error / truth|.
    """
    if target.classes:
        label = truth.long()
        metrics = task_metrics(task_of(target), prediction, label)
        confusion = confusion_matrix(prediction, label).double()
        f1 = 2 * confusion[1, 1] / (confusion[1].sum() + confusion[:, 1].sum())
        return {
            "accuracy": metrics[ACCURACY.name],
            "balanced_accuracy": metrics[BALANCED_ACCURACY.name],
            "f1": f1.item(),
            "rocauc": metrics[BALANCED_ACCURACY.name],
        }
    prediction = prediction.squeeze(1)
    metrics = task_metrics(task_of(target), prediction, truth)
    error = (prediction - truth).abs()
    relative = (error / truth.abs())[truth.abs() > SMALLEST]
    return {
        "mae": metrics[MAE.name],
        "rmse": metrics[RMSE.name],
        "mape": relative.mean().item(),
        "max_error": error.max().item(),
    }
