"""What a finished training says of the validation and test rows: predictions.csv, figures, metrics.json."""

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from csgcnn import distributed
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.evaluation.baselines import baseline_metrics
from csgcnn.evaluation.benchmark_summary import Fold
from csgcnn.evaluation.calibration import coverage, format_coverage
from csgcnn.evaluation.inference import predict_with_std
from csgcnn.evaluation.metrics import Metrics, format_metrics, target_metrics
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.runs.directory import RunDirectory
from csgcnn.runs.tables import compared_columns, compared_rows, write_predictions

log = logging.getLogger(__name__)


def write_results(
    run: RunDirectory,
    model: CrystalGraphNetwork | Ensemble,
    store: GraphStore,
    dataset: Dataset,
    split: Split,
    batch_size: int,
    facts: Mapping[str, Any],
) -> None:
    """Test once, and write what came of it and, when all else is there, metrics.json with the `facts`."""
    targets, values = dataset.targets, {part: dataset.values[rows] for part, rows in split.items()}
    predicted = {
        part: predict_with_std(model, store, split[part], batch_size) for part in ("val", "test")
    }
    if distributed.rank():  # the first one writes
        return
    from csgcnn.evaluation.plots import plot_calibration, plot_test

    prediction = {part: of_part.cpu() for part, (of_part, _) in predicted.items()}
    std = {part: of_part.cpu() for part, (_, of_part) in predicted.items() if of_part is not None}
    metrics = {part: target_metrics(prediction[part], values[part], targets) for part in prediction}
    baseline = baseline_metrics(values["train"], values["test"], targets)
    rows = (
        [store.ids[row], part, *cells]
        for part in prediction
        for row, cells in zip(
            split[part].tolist(),
            compared_rows(prediction[part], values[part], targets, std.get(part)),
            strict=True,
        )
    )
    write_predictions(
        run.folder / "predictions.csv", ["id", "split", *compared_columns(targets, bool(std))], rows
    )
    plot_test(prediction["test"], values["test"], targets, run.folder)
    covered: dict[str, dict[str, float]] = {}
    if std:
        tested = prediction["test"], std["test"], values["test"], targets
        covered = coverage(*tested)
        plot_calibration(*tested, run.folder / "calibration.png")
    calibration = {"calibration": covered, "std_scale": _scales(model, targets)} if std else {}
    run.write_json(
        "metrics.json", {**metrics, **_baselines(baseline, targets), **calibration, **facts}
    )
    for target in targets:
        log.info(
            "test %s", format_metrics(target, metrics["test"][target.name], baseline[target.name])
        )
        if target.name in covered and metrics["test"][target.name]["n"]:
            log.info("test %s", format_coverage(covered[target.name], target.name))


def _scales(model: CrystalGraphNetwork | Ensemble, targets: Sequence[Target]) -> dict[str, float]:
    columns = [target for target in targets for _ in target.outputs]
    scales = zip(columns, model.std_scale.tolist(), strict=True)
    return {target.name: scale for target, scale in scales if not target.classes}


def _baselines(
    baseline: Mapping[str, Metrics], targets: Sequence[Target]
) -> dict[str, dict[str, float]]:
    """The test metrics that any model must beat: of predicting the mean, or always the most frequent class."""
    maes = {target.name: baseline[target.name]["mae"] for target in targets if not target.classes}
    accuracies = {
        target.name: baseline[target.name]["accuracy"] for target in targets if target.classes
    }
    told = {"baseline_test_mae": maes, "baseline_test_accuracy": accuracies}
    return {key: values for key, values in told.items() if values}


def read_fold(number: int, folder: Path, target: Target) -> Fold:
    """Read what a finished run left in its folder."""
    known, predicted, *more = compared_columns([target])
    outputs = more if target.classes else [predicted]
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        seconds = sum(
            float(row["seconds"]) for row in csv.DictReader(file)
        )  # of every start of the run
    metrics, machine = (_json(folder / name) for name in ("metrics.json", "environment.json"))
    return Fold(
        number,
        [row["id"] for row in rows],
        torch.tensor(
            [target.encode(row[known] if target.classes else float(row[known])) for row in rows]
        ).double(),
        torch.tensor([[float(row[name]) for name in outputs] for row in rows], dtype=torch.float64),
        metrics["test"][target.name],
        metrics["n_rows"],
        metrics["best_epoch"],
        metrics["epochs"],
        seconds / 60,
        metrics["n_parameters"],
        f"{machine['device']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}",
    )


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
