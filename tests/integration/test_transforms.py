"""Test a training on a transformed target: every number that is reported is in the unit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import Answer

import csgcnn as package
from csgcnn.runs.checkpoint import load_checkpoint

Table = Callable[[Path], list[dict[str, str]]]
LOG = ["dataset.transform.band_gap=log10", "dataset.labels.band_gap=PBE gap"]


@pytest.fixture(scope="module")
def folder(
    csgcnn: Callable[..., Answer], small: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with predicted deviations, and an ensemble without; what they said."""
    folder = tmp_path_factory.mktemp("transforms")
    words = [*small, *LOG, "trainer.max_epochs=2"]
    for name, more in (("std", ["loss=gaussian"]), ("ensemble", ["ensemble=2"])):
        answer = csgcnn("train", *words, *more, f"hydra.run.dir={name}", cwd=folder)
        assert answer.code == 0, answer.said
        (folder / f"{name}.txt").write_text(answer.said)
    return folder


@pytest.mark.parametrize("name", ["std", "ensemble"])
def test_metrics_are_given_on_both_scales(folder: Path, table: Table, name: str) -> None:
    metrics = json.loads((folder / name / "metrics.json").read_text())
    rows = [row for row in table(folder / name / "predictions.csv") if row["split"] == "test"]
    truth, found = (
        torch.tensor([float(row[f"band_gap{column} [eV]"]) for row in rows]).double()
        for column in ("", "_prediction")
    )
    error = (found - truth).abs().mean().item()
    assert metrics["test"]["band_gap"]["mae"] == pytest.approx(error, rel=1e-4)
    log_error = (found.log10() - truth.log10()).abs().mean().item()
    assert metrics["test"]["band_gap"]["mae_log10"] == pytest.approx(log_error, rel=1e-4)
    said = (folder / f"{name}.txt").read_text()
    assert "test MAE of PBE gap:" in said
    assert "MAE of log10(PBE gap)" in said


def test_the_mean_baseline_is_in_the_unit(folder: Path, run: Path) -> None:
    baselines = [
        json.loads((path / "metrics.json").read_text())["baseline_test_mae"]["band_gap"]
        for path in (folder / "std", run)
    ]
    assert baselines[0] == pytest.approx(baselines[1], rel=1e-5)


@pytest.mark.parametrize("name", ["std", "ensemble"])
def test_predictions_have_intervals_in_the_unit(
    csgcnn: Callable[..., Answer], folder: Path, data_file: Path, table: Table, name: str
) -> None:
    ckpt, output = f"ckpt={name}/checkpoints/best.ckpt", f"output={name}.csv"
    answer = csgcnn("predict", ckpt, f"structures={data_file}", output, cwd=folder)
    assert answer.code == 0, answer.said
    predicted = {row["id"]: row for row in table(folder / f"{name}.csv")}
    for row in table(folder / name / "predictions.csv"):
        value = float(row["band_gap_prediction [eV]"])
        new = predicted[row["id"]]
        assert "band_gap_std [eV]" not in new
        assert float(new["band_gap [eV]"]) == pytest.approx(value, rel=1e-4)
        lower, upper = float(new["band_gap_lower [eV]"]), float(new["band_gap_upper [eV]"])
        assert 0 < lower < value < upper
        assert lower * upper == pytest.approx(value**2, rel=1e-3), "symmetric on the log scale"


def test_evaluate_reports_the_same_errors(
    csgcnn: Callable[..., Answer], folder: Path, data_file: Path
) -> None:
    for name in ("std", "ensemble"):
        metrics = json.loads((folder / name / "metrics.json").read_text())["test"]["band_gap"]
        words = [f"ckpt={name}/checkpoints/best.ckpt", f"dataset.path={data_file}", "split=test"]
        answer = csgcnn("evaluate", *words, cwd=folder)
        assert answer.code == 0, answer.said
        assert f"MAE of PBE gap: {metrics['mae']:.4g} eV" in answer.said


def test_python_predicts_in_the_unit(folder: Path, records: list[dict[str, Any]]) -> None:
    model = package.load(folder / "std" / "checkpoints" / "best.ckpt")
    structures = [record["crystal_structure"] for record in records[:3]]
    values, std = model.predict_with_std(structures)
    frame = model.predict(structures, as_frame=True)
    assert (values > 0).all()
    assert frame["band_gap [eV]"].tolist() == pytest.approx(values[:, 0].tolist())
    width = frame["band_gap_upper [eV]"] - frame["band_gap_lower [eV]"]
    assert (2 * std[:, 0]).tolist() == pytest.approx(width.tolist(), rel=1e-4)


def test_the_checkpoint_names_the_transform(folder: Path, run: Path) -> None:
    (target,) = load_checkpoint(folder / "std" / "checkpoints" / "best.ckpt")["targets"]
    assert (target["transform"], target["label"]) == ("log10", "PBE gap")
    (target,) = load_checkpoint(run / "checkpoints" / "best.ckpt")["targets"]
    assert "transform" not in target, "earlier versions can read a model that has none"


def test_models_with_other_transforms_are_no_ensemble(
    csgcnn: Callable[..., Answer], folder: Path, run: Path, data_file: Path
) -> None:
    ckpt = f"ckpt=[{folder}/std/checkpoints/best.ckpt,{run}/checkpoints/best.ckpt]"
    answer = csgcnn("predict", ckpt, f"structures={data_file}", "output=x.csv", cwd=folder)
    assert answer.code == 1
    assert "band_gap.transform (log10 and none)" in answer.said


def test_a_derived_logarithm_is_a_target_of_its_own(
    csgcnn: Callable[..., Answer], small: list[str], tmp_path: Path, table: Table
) -> None:
    words = ["dataset.derived.log_gap=log10(band_gap)", "dataset.targets=[log_gap]"]
    more = ["trainer.max_epochs=1", "trainer.figures=false", "hydra.run.dir=run"]
    answer = csgcnn("train", *small, *words, *more, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert {"log_gap", "log_gap_prediction"} <= set(table(tmp_path / "run" / "predictions.csv")[0])


def test_names_of_derived_classes_come_back(
    csgcnn: Callable[..., Answer], small: list[str], tmp_path: Path, table: Table
) -> None:
    words = [
        "dataset.derived.kind='wide' if band_gap > 3 else 'narrow'",
        "dataset.targets=[kind]",
        "dataset.tasks.kind=classification",
        "dataset.split.stratify=kind",
    ]
    more = ["trainer.max_epochs=1", "trainer.figures=false", "hydra.run.dir=run"]
    answer = csgcnn("train", *small, *words, *more, cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = table(tmp_path / "run" / "predictions.csv")
    assert {row["kind"] for row in rows} == {"wide", "narrow"}
    assert "kind_probability_wide" in rows[0]


def test_weights_change_the_training_but_not_the_metrics(
    csgcnn: Callable[..., Answer], small: list[str], records: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows = [record | {"w": 1 + i % 2, "one": 7} for i, record in enumerate(records)]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    found = {}
    for column in ("null", "one", "w"):
        words = [f"dataset.weight_column={column}", "dataset.path=data.json"]
        more = ["trainer.max_epochs=1", "trainer.figures=false", f"hydra.run.dir=by_{column}"]
        answer = csgcnn("train", *small, *words, *more, "dataset.targets=[band_gap]", cwd=tmp_path)
        assert answer.code == 0, answer.said
        found[column] = json.loads((tmp_path / f"by_{column}" / "metrics.json").read_text())["test"]
        assert ("metrics are not" in answer.said) == (column != "null")
    assert found["one"]["band_gap"]["mae"] == pytest.approx(found["null"]["band_gap"]["mae"])
    assert found["w"]["band_gap"]["mae"] != pytest.approx(found["null"]["band_gap"]["mae"])
    rows[3]["w"] = -1
    (tmp_path / "data.json").write_text(json.dumps(rows))
    words = ["dataset.path=data.json", "dataset.weight_column=w"]
    answer = csgcnn("train", *small, *words, cwd=tmp_path)
    assert answer.code == 1
    assert f"{records[3]['material_id']}: weight w is -1" in answer.said
