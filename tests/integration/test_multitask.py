"""The results of trainings with several targets, numbers and classes."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multitask_helpers import COMPARISON, TARGETS

from csgcnn import load
from csgcnn.commands.table import leaderboard
from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Any]

Table = Callable[[Path], list[dict[str, str]]]
IS_WIDE = ["is_wide_probability_0", "is_wide_probability_1"]
KIND = [f"kind_probability_{name}" for name in ("halide", "other", "oxide")]


@pytest.fixture(scope="module")
def mixed_run(
    csgcnn: Command, small: list[str], mixed_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    overrides = [*small, *TARGETS, f"dataset.path={mixed_file}", "dataset.class_weights=balanced"]
    overrides += ["trainer.figures=true"]
    answer = csgcnn(
        "train", *overrides, "trainer.learn_task_weights=true", "hydra.run.dir=mixed", cwd=folder
    )
    assert answer.code == 0, answer.said
    (folder / "said.txt").write_text(answer.said)
    return folder / "mixed"


def test_a_run_with_numbers_and_classes_has_metrics_and_figures_of_each(
    mixed_run: Path, table: Table
) -> None:
    metrics = json.loads((mixed_run / "metrics.json").read_text())
    domain = {"n_out_of_domain", "mae_in_domain", "mae_out_of_domain"}
    assert metrics["test"]["band_gap"].keys() - domain == {"mae", "rmse", "r2", "n"}
    domain = {"n_out_of_domain", "accuracy_in_domain", "accuracy_out_of_domain"}
    for name in ("is_wide", "kind"):
        assert metrics["test"][name].keys() - domain == {
            "accuracy",
            "balanced_accuracy",
            "roc_auc",
            "cross_entropy",
            "n",
        }
    assert metrics["baseline_test_mae"].keys() == {"band_gap"}
    assert metrics["baseline_test_accuracy"].keys() == {"is_wide", "kind"}
    figures = {path.stem for path in mixed_run.glob("*.png")}
    assert figures == {
        "parity",
        "learning_curve",
        "element_errors",
        *(
            f"{kind}_{name}"
            for kind in ("confusion", "roc", "precision_recall")
            for name in ("is_wide", "kind")
        ),
    }
    epochs = table(mixed_run / "metrics.csv")
    assert all(np.isfinite(float(cell)) for row in epochs for cell in row.values())
    assert {
        "val_mae_band_gap",
        "val_balanced_accuracy_is_wide",
        "val_cross_entropy_kind",
    } <= epochs[0].keys()
    printed = (mixed_run.parent / "said.txt").read_text()
    assert f"test accuracy of kind: {metrics['test']['kind']['accuracy']:.4g}" in printed
    assert "learned task weights: band_gap 0." in printed


def test_the_metrics_are_those_of_the_predictions(mixed_run: Path, table: Table) -> None:
    metrics = json.loads((mixed_run / "metrics.json").read_text())["test"]
    rows = [row for row in table(mixed_run / "predictions.csv") if row["split"] == "test"]
    for name, labels in {"is_wide": ["0", "1"], "kind": ["halide", "other", "oxide"]}.items():
        known = [row for row in rows if row[name]]
        assert len(known) == metrics[name]["n"] < len(rows)
        accuracy = np.mean([row[name] == row[f"{name}_prediction"] for row in known])
        assert metrics[name]["accuracy"] == pytest.approx(accuracy)
        for row in rows:
            probabilities = [float(row[f"{name}_probability_{label}"]) for label in labels]
            assert sum(probabilities) == pytest.approx(1, abs=1e-5)
            assert row[f"{name}_prediction"] == labels[int(np.argmax(probabilities))]


def test_a_stratified_split_keeps_the_fractions_of_the_classes(
    mixed_run: Path, mixed_file: Path
) -> None:
    gap = {
        r["material_id"]: r["band_gap"]
        for r in json.loads(gzip.decompress(mixed_file.read_bytes()))
    }
    split = json.loads((mixed_run / "splits.json").read_text())
    wide = {
        part: sum((gap[id_] or 0) >= 2 for id_ in ids) / len(ids) for part, ids in split.items()
    }
    assert max(wide.values()) - min(wide.values()) < 0.2


@pytest.fixture(scope="module")
def predicted(
    mixed_run: Path,
    mixed_file: Path,
    csgcnn: Command,
    tmp_path_factory: pytest.TempPathFactory,
    table: Table,
) -> tuple[Path, list[dict[str, str]]]:
    """A copy of the checkpoint alone, and the rows that it predicts of all crystals."""
    folder = tmp_path_factory.mktemp("predicted")
    ckpt = Path(shutil.copy(mixed_run / "checkpoints" / "best.ckpt", folder / "best.ckpt"))
    answer = csgcnn("predict", "ckpt=best.ckpt", f"structures={mixed_file}", cwd=folder)
    assert answer.code == 0, answer.said
    return ckpt, table(folder / "predictions.csv")


def test_the_checkpoint_alone_describes_the_targets(mixed_run: Path) -> None:
    gap, wide, kind = load_checkpoint(mixed_run / "checkpoints" / "best.ckpt")["targets"]
    assert (gap["name"], gap["unit"], gap["task"], tuple(gap["classes"])) == (
        "band_gap",
        "eV",
        "regression",
        (),
    )
    assert (wide["task"], tuple(wide["classes"]), wide["derived"]) == (
        "classification",
        ("0", "1"),
        COMPARISON,
    )
    assert tuple(kind["classes"]) == ("halide", "other", "oxide")


def test_the_checkpoint_predicts_numbers_and_classes_as_the_run_did(
    predicted: tuple[Path, list[dict[str, str]]], mixed_run: Path, table: Table
) -> None:
    _, rows = predicted
    texts = ["in_training", "unseen_elements", "out_of_domain", "warnings"]
    nearest = ["nearest_id", "nearest_distance", "nearest_percentile"]
    values = ["band_gap [eV]", "is_wide", *IS_WIDE, "kind", *KIND]
    assert list(rows[0]) == ["id", *values, *nearest, *texts]
    assert len(rows) == 60
    in_run = {row["id"]: row for row in table(mixed_run / "predictions.csv")}
    for row in rows:
        if (same := in_run.get(row["id"])) is not None:
            assert row["kind"] == same["kind_prediction"]
            assert float(row["kind_probability_oxide"]) == pytest.approx(
                float(same["kind_probability_oxide"]), abs=1e-5
            )
            assert float(row["band_gap [eV]"]) == pytest.approx(
                float(same["band_gap_prediction [eV]"]), abs=1e-4
            )


def test_the_python_interface_predicts_as_the_command(
    predicted: tuple[Path, list[dict[str, str]]], mixed_file: Path
) -> None:
    ckpt, rows = predicted
    model = load(ckpt)
    assert model.columns == ["band_gap", *IS_WIDE, *KIND]
    crystal = json.loads(gzip.decompress(mixed_file.read_bytes()))[0]["crystal_structure"]
    values = model.predict([crystal])
    np.testing.assert_allclose(
        values[0], [float(rows[0][c]) for c in rows[0] if "_prob" in c or "[" in c], atol=1e-4
    )


def test_evaluate_prints_the_test_errors_of_the_run(
    mixed_run: Path, mixed_file: Path, csgcnn: Command, tmp_path: Path, table: Table
) -> None:
    metrics = json.loads((mixed_run / "metrics.json").read_text())["test"]
    shutil.copy(mixed_run / "checkpoints" / "best.ckpt", tmp_path / "best.ckpt")
    evaluate = (
        "evaluate",
        "ckpt=best.ckpt",
        "dataset=dielectric",
        f"dataset.path={mixed_file}",
        "output=errors.csv",
    )
    answer = csgcnn(*evaluate, "split=test", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert f"MAE of band_gap: {metrics['band_gap']['mae']:.4g} eV" in answer.out
    for name in ("is_wide", "kind"):
        assert f"accuracy of {name}: {metrics[name]['accuracy']:.4g}, balanced" in answer.out
    assert {row["id"] for row in table(tmp_path / "errors.csv")} == {
        row["id"] for row in table(mixed_run / "predictions.csv") if row["split"] == "test"
    }


def test_the_leaderboard_has_a_row_for_every_target(mixed_run: Path) -> None:
    text, left_out = leaderboard([mixed_run])
    assert not left_out
    assert all(
        name in text
        for name in ("| band_gap [eV]", "| is_wide (error rate)", "| kind (error rate)")
    )
