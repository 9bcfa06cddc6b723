"""What a finished training says of the validation and test rows: predictions.csv, figures, metrics.json."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from csgcnn import processes
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.models import CrystalGraphNetwork
from csgcnn.training.calibration import coverage, told_coverage
from csgcnn.training.inference import predict_with_std
from csgcnn.training.metrics import Metrics, baseline_metrics, target_metrics
from csgcnn.training.report import compared_columns, compared_rows, told
from csgcnn.training.run_directory import RunDirectory, write_predictions

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
    predicted = {part: predict_with_std(model, store, split[part], batch_size) for part in ("val", "test")}
    if processes.rank():  # the first one writes
        return
    from csgcnn.training.plots import plot_calibration, plot_test

    prediction = {part: of_part.cpu() for part, (of_part, _) in predicted.items()}
    std = {part: of_part.cpu() for part, (_, of_part) in predicted.items() if of_part is not None}
    metrics = {part: target_metrics(prediction[part], values[part], targets) for part in prediction}
    baseline = baseline_metrics(values["train"], values["test"], targets)
    rows = (
        [store.ids[row], part, *cells]
        for part in prediction
        for row, cells in zip(
            split[part].tolist(), compared_rows(prediction[part], values[part], targets, std.get(part)), strict=True
        )
    )
    write_predictions(run.folder / "predictions.csv", ["id", "split", *compared_columns(targets, bool(std))], rows)
    plot_test(prediction["test"], values["test"], targets, run.folder)
    covered: dict[str, dict[str, float]] = {}
    if std:
        tested = prediction["test"], std["test"], values["test"], targets
        covered = coverage(*tested)
        plot_calibration(*tested, run.folder / "calibration.png")
    calibration = {"calibration": covered, "std_scale": _scales(model, targets)} if std else {}
    run.write_json("metrics.json", {**metrics, **_baselines(baseline, targets), **calibration, **facts})
    for target in targets:
        log.info("test %s", told(target, metrics["test"][target.name], baseline[target.name]))
        if target.name in covered and metrics["test"][target.name]["n"]:
            log.info("test %s", told_coverage(covered[target.name], target.name))


def _scales(model: CrystalGraphNetwork | Ensemble, targets: Sequence[Target]) -> dict[str, float]:
    columns = [target for target in targets for _ in target.outputs]
    scales = zip(columns, model.std_scale.tolist(), strict=True)
    return {target.name: scale for target, scale in scales if not target.classes}


def _baselines(baseline: Mapping[str, Metrics], targets: Sequence[Target]) -> dict[str, dict[str, float]]:
    """The test metrics that any model must beat: of predicting the mean, or always the most frequent class."""
    maes = {target.name: baseline[target.name]["mae"] for target in targets if not target.classes}
    accuracies = {target.name: baseline[target.name]["accuracy"] for target in targets if target.classes}
    told = {"baseline_test_mae": maes, "baseline_test_accuracy": accuracies}
    return {key: values for key, values in told.items() if values}
