import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from csgcnn.config.settings.plot import PlotSettings
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.evaluation.inference import predict_rows
from csgcnn.nn.ensemble import Ensemble
from csgcnn.runs.directory import RunDirectory
from csgcnn.runs.duration import training_minutes
from csgcnn.runs.environment import environment
from csgcnn.runs.results import read_fold, write_results
from csgcnn.training.trainer import Trainer

GAP = Target("band_gap", "eV")
FIGURES = ("parity", "calibration", "element_errors")


@pytest.fixture
def dataset(store: GraphStore, targets: Tensor) -> Dataset:
    return Dataset(store, [GAP], targets, torch.arange(len(store)), [])


def both(model: Any) -> dict[str, Any]:
    """Return a model as the one that predicts validation and test rows."""
    return {"val": model, "test": model}


@pytest.mark.parametrize("figures", [True, False])
def test_figures_are_drawn_on_request(
    figures: bool,
    dataset: Dataset,
    split: Split,
    trainer: Callable[..., Trainer],
    tmp_path: Path,
) -> None:
    models = both(Ensemble([trainer(seed=seed).model for seed in (0, 1)]))
    with RunDirectory(tmp_path) as run:
        plot = PlotSettings() if figures else None
        write_results(run, models, dataset.store, dataset, split, 16, {"seconds": 1}, plot)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == ({f"{name}.png" for name in FIGURES} if figures else set())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == [
        "val",
        "test",
        "not_measured",
        "baseline_test_mae",
        "composition_test_mae",
        "calibration",
        "std_scale",
        "calibration_labels",
        "seconds",
    ]


def test_results_are_complete_where_no_figure_can_be_drawn(
    dataset: Dataset,
    split: Split,
    trainer: Callable[..., Trainer],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = list[set[str]]()

    def fail(*_: object) -> None:
        found.append({path.name for path in tmp_path.glob("*.*") if path.name[0] != "."})
        raise OSError("no writable cache folder")

    monkeypatch.setattr("csgcnn.evaluation.plots.plot_test", fail)
    with RunDirectory(tmp_path) as run, caplog.at_level(logging.WARNING):
        models = both(trainer().model)
        write_results(run, models, dataset.store, dataset, split, 16, {}, PlotSettings())
    assert found == [{"predictions.csv", "metrics.json"}]
    assert "a figure could not be drawn: no writable cache folder" in caplog.text


def test_the_end_names_baselines_and_leakage(
    dataset: Dataset,
    split: Split,
    trainer: Callable[..., Trainer],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    facts = {
        "n_rows": {"test": 10},
        "duplicates_across_splits": 1,
        "shared_compositions": {"val": 0, "test": 3},
    }
    with RunDirectory(tmp_path) as run, caplog.at_level(logging.INFO):
        models = both(trainer().model)
        write_results(run, models, dataset.store, dataset, split, 16, facts, None)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    mean, composition = (
        metrics[f"{name}_test_mae"]["band_gap"] for name in ("baseline", "composition")
    )
    assert 0 < composition < mean
    assert (
        f"(predicting the mean: {mean:.4g} eV; composition alone: {composition:.4g} eV)"
    ) in caplog.text
    assert (
        "leakage: 1 pair of identical structures in different parts of the split; "
        "3 of 10 test crystals have a composition of the training set"
    ) in caplog.text


def test_a_fold_is_read_as_it_was_written(
    dataset: Dataset, split: Split, trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    model = trainer().model
    facts = {"n_rows": {"test": 10}, "best_epoch": 1, "epochs": 2, "n_parameters": 3}
    with RunDirectory(tmp_path) as run:
        run.write_metrics([{"epoch": 1, "seconds": 30.0}, {"epoch": 2, "seconds": 90.0}])
        run.write_json("environment.json", {"device": "a CPU", "threads": 1})
        write_results(run, both(model), dataset.store, dataset, split, 16, facts, None)
    fold = read_fold(4, tmp_path, GAP)
    assert fold.number == 4
    assert fold.ids == [dataset.store.ids[row] for row in split["test"].tolist()]
    torch.testing.assert_close(fold.truth.float(), dataset.values[split["test"], 0])
    expected = predict_rows(model, dataset.store, split["test"], 16)
    torch.testing.assert_close(fold.prediction.float(), expected, rtol=1e-6, atol=1e-6)
    assert fold.metrics["n"] == 10
    assert (fold.best_epoch, fold.epochs, fold.minutes) == (1, 2, 2.0)
    assert fold.machine == "a CPU, 1 thread"


def test_the_time_of_a_refit_counts(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        run.write_metrics([{"epoch": 1, "seconds": 30.0}])
        run.write_metrics([{"epoch": 1, "seconds": 60.0}], "refit.csv")
    assert training_minutes(tmp_path, {"seconds": 5.0}) == 1.5


def test_the_environment_names_versions_and_device() -> None:
    found = environment(torch.device("cpu"))
    assert found["versions"]["torch"] == torch.__version__
    assert found["device"]
    assert found["processes"] == 1
    assert json.loads(json.dumps(found)) == found
