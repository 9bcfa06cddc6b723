"""Test trainings without validation or test rows."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from answers import Answer

from csgcnn.predictor import load

ALL = ["dataset.split.train=1", "dataset.split.val=0", "dataset.split.test=0"]


@pytest.fixture(scope="module")
def all_rows(
    csgcnn: Callable[..., Answer], small: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Answer, Path]:
    folder = tmp_path_factory.mktemp("final")
    words = [*small, *ALL, "trainer.figures=true", "hydra.run.dir=run"]
    answer = csgcnn("train", *words, cwd=folder)
    assert answer.code == 0, answer.said
    return answer, folder / "run"


def test_a_model_trains_on_all_rows(all_rows: tuple[Answer, Path]) -> None:
    answer, run = all_rows
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["n_rows"] == {"train": 60, "val": 0, "test": 0}
    assert metrics["not_measured"] == ["val", "test"]
    assert metrics["test"]["band_gap"]["n"] == 0
    assert metrics["test"]["band_gap"]["mae"] is None
    assert (metrics["val_score"], metrics["best_epoch"], metrics["epochs"]) == (None, 3, 3)
    assert "the last one is kept" in answer.said
    assert "test errors: not measured" in answer.said
    assert (run / "learning_curve.png").exists()
    assert not (run / "parity.png").exists()
    with open(run / "predictions.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 1, "the header alone"


def test_the_table_says_why_it_is_left_out(
    csgcnn: Callable[..., Answer], all_rows: tuple[Answer, Path]
) -> None:
    answer = csgcnn("table", ".", cwd=all_rows[1].parent)
    assert "run is left out: it has no test rows" in answer.said


def test_its_best_and_last_weights_are_the_same(
    all_rows: tuple[Answer, Path], records: list[dict[str, object]]
) -> None:
    _, run = all_rows
    structures = [record["crystal_structure"] for record in records[:3]]
    best, last = (
        load(run / "checkpoints" / f"{name}.ckpt").predict(structures) for name in ("best", "last")
    )
    assert best.tolist() == last.tolist()


def test_a_run_without_test_rows_still_selects_an_epoch(
    csgcnn: Callable[..., Answer], small: list[str], tmp_path: Path
) -> None:
    words = ["dataset.split.train=0.9", "dataset.split.test=0", "hydra.run.dir=run"]
    answer = csgcnn("train", *small, *words, "trainer.figures=false", cwd=tmp_path)
    assert answer.code == 0, answer.said
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["n_rows"] == {"train": 54, "val": 6, "test": 0}
    assert metrics["not_measured"] == ["test"]
    assert metrics["val"]["band_gap"]["n"] == 6


def test_an_ensemble_with_deviations_needs_no_validation_rows(
    csgcnn: Callable[..., Answer], small: list[str], tmp_path: Path
) -> None:
    words = [*ALL, "ensemble=2", "loss=gaussian", "trainer.max_epochs=1", "hydra.run.dir=run"]
    answer = csgcnn("train", *small, *words, "trainer.figures=false", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "not calibrated" in answer.said
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["std_scale"] == {"band_gap": 1.0}


def test_predictions_say_that_deviations_are_not_calibrated(
    csgcnn: Callable[..., Answer], small: list[str], cifs: Path, tmp_path: Path
) -> None:
    note = "the standard deviations of band_gap are not calibrated"
    words = [*small, "loss=gaussian", "trainer.max_epochs=1", "trainer.figures=false"]
    for n_val, is_calibrated in ((4, False), (6, True)):
        shares = [f"dataset.split.val={n_val / 60}", f"dataset.split.test={6 / 60}"]
        shares += [f"dataset.split.train={(54 - n_val) / 60}", f"hydra.run.dir=val-{n_val}"]
        trained = csgcnn("train", *words, *shares, cwd=tmp_path)
        assert (note in trained.said) != is_calibrated, trained.said
        output = [f"ckpt=val-{n_val}", f"structures={cifs}", f"output={n_val}.csv", "workers=1"]
        predicted = csgcnn("predict", *output, cwd=tmp_path)
        assert (note in predicted.said) != is_calibrated, predicted.said
        model = load(tmp_path / f"val-{n_val}")
        assert model.uncalibrated == ([] if is_calibrated else ["band_gap"])
    assert load(tmp_path / "val-6" / "checkpoints" / "last.ckpt").uncalibrated == ["band_gap"]


def test_what_needs_validation_rows_says_so(
    csgcnn: Callable[..., Answer], small: list[str], tmp_path: Path
) -> None:
    for word in ("trainer.patience=2", "scheduler=plateau"):
        answer = csgcnn("train", *small, *ALL, word, cwd=tmp_path)
        assert answer.code == 2, answer.said
        assert f"{word} needs validation rows" in answer.said
