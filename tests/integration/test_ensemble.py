"""An ensemble trains members as runs; its checkpoint predicts mean and standard deviation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csgcnn import load
from csgcnn.runs.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("without_figures")

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]


@pytest.fixture(scope="module")
def ensemble(csgcnn: Command, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three members, of which the second was cut off, and all was given again."""
    folder = tmp_path_factory.mktemp("ensemble")
    words = [*small, "trainer.figures=true", "ensemble=3", "hydra.run.dir=three", "seed=5"]
    stopped = csgcnn("train", *words, "trainer.max_minutes=1e-9", cwd=folder)
    assert stopped.code == 75, stopped.said
    assert f"resume={folder / 'three'} resumes the whole ensemble" in stopped.said
    assert not (folder / "three" / "metrics.json").exists()
    answer = csgcnn("train", "resume=three", "trainer.max_minutes=null", cwd=folder)
    assert answer.code == 0, answer.said
    (folder / "said.txt").write_text(answer.said)
    return folder / "three"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_members_are_runs_with_different_seeds(
    ensemble: Path, csgcnn: Command, small: list[str]
) -> None:
    members = [ensemble / f"member-{i}" for i in range(3)]
    contents = [load_checkpoint(member / "checkpoints" / "best.ckpt") for member in members]
    assert [content["config"]["seed"] for content in contents] == [5, 6, 7]
    assert all(content["split"] == contents[0]["split"] for content in contents)
    alone = csgcnn("train", *small, "seed=6", "hydra.run.dir=alone", cwd=ensemble.parent)
    assert alone.code == 0, alone.said
    own = load_checkpoint(ensemble.parent / "alone" / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(torch.equal(tensor, own[name]) for name, tensor in contents[1]["state_dict"].items())


def test_the_checkpoint_predicts_the_mean_of_the_members(
    ensemble: Path, records: list[dict[str, Any]]
) -> None:
    structures = [record["crystal_structure"] for record in records[:20]]
    model = load(ensemble / "checkpoints" / "best.ckpt")
    members = [load(ensemble / f"member-{i}" / "checkpoints" / "best.ckpt") for i in range(3)]
    each = np.stack([member.predict(structures) for member in members])
    mean, std = model.predict_with_std(structures)
    np.testing.assert_allclose(mean, each.mean(0), rtol=1e-5, atol=1e-5)
    scale = read(ensemble / "metrics.json")["std_scale"]["band_gap"]
    np.testing.assert_allclose(std, scale * each.std(0, ddof=1), rtol=1e-3, atol=1e-5)
    assert not members[0].has_std


def test_an_ensemble_writes_the_files_of_a_run(ensemble: Path, table: Table) -> None:
    metrics, rows = read(ensemble / "metrics.json"), table(ensemble / "predictions.csv")
    mae, members = metrics["test"]["band_gap"]["mae"], metrics["members"]
    test = [row for row in rows if row["split"] == "test"]
    errors = [abs(float(row["band_gap_error [eV]"])) for row in test]
    assert np.mean(errors) == pytest.approx(mae, rel=1e-4)
    assert mae <= np.mean([member["test"]["band_gap"]["mae"] for member in members]) + 1e-6, (
        "the error is convex"
    )
    assert metrics["val_score"] == pytest.approx(
        np.mean([read(ensemble / f"member-{i}" / "metrics.json")["val_score"] for i in range(3)])
    )
    within = np.mean(
        [error <= float(row["band_gap_std [eV]"]) for error, row in zip(errors, test, strict=True)]
    )
    assert metrics["calibration"]["band_gap"]["0.6827"] == pytest.approx(within)
    val = [row for row in rows if row["split"] == "val"]
    covered = [
        abs(float(row["band_gap_error [eV]"])) <= 1.0001 * float(row["band_gap_std [eV]"])
        for row in val
    ]
    assert np.mean(covered) >= 0.68, "the scale is chosen for at least 68 %"
    steps = table(ensemble / "metrics.csv")
    assert [row["member"] for row in steps] == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
    assert (ensemble / "calibration.png").stat().st_size > 1000
    assert {path.name for path in ensemble.iterdir()} >= {
        "config.yaml",
        "environment.json",
        "splits.json",
    }


def test_predict_and_evaluate_accept_an_ensemble(
    ensemble: Path, csgcnn: Command, cifs: Path, data_file: Path, table: Table
) -> None:
    folder = ensemble.parent
    ckpt = "ckpt=three/checkpoints/best.ckpt"
    answer = csgcnn(
        "predict", ckpt, f"structures={cifs}", "output=out.csv", "workers=1", cwd=folder
    )
    assert answer.code == 0, answer.said
    header = list(table(folder / "out.csv")[0])
    assert header == [
        "id",
        "band_gap [eV]",
        "band_gap_std [eV]",
        "band_gap_lower [eV]",
        "band_gap_upper [eV]",
        "nearest_id",
        "nearest_distance",
        "nearest_percentile",
        "in_training",
        "unseen_elements",
        "out_of_domain",
        "warnings",
    ]
    words = [f"dataset.path={data_file}", "split=test", "output=evaluated.csv"]
    answer = csgcnn("evaluate", ckpt, *words, cwd=folder)
    assert answer.code == 0, answer.said
    assert "within 1 and 1.96 std" in answer.said
    rows = [row for row in table(ensemble / "predictions.csv") if row["split"] == "test"]
    evaluated = {row["id"]: row for row in table(folder / "evaluated.csv")}
    for row in rows:
        assert float(evaluated[row["id"]]["band_gap_std [eV]"]) == pytest.approx(
            float(row["band_gap_std [eV]"]), rel=1e-4
        )


def test_an_ensemble_of_ensembles_is_that_of_all_members(
    ensemble: Path, records: list[dict[str, Any]]
) -> None:
    structures = [record["crystal_structure"] for record in records[:5]]
    both = load(
        [
            ensemble / "checkpoints" / "best.ckpt",
            ensemble / "member-0" / "checkpoints" / "best.ckpt",
        ]
    )
    each = np.stack(
        [
            load(ensemble / f"member-{i}" / "checkpoints" / "best.ckpt").predict(structures)
            for i in (0, 1, 2, 0)
        ]
    )
    mean, std = both.predict_with_std(structures)
    np.testing.assert_allclose(mean, each.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(std, each.std(0, ddof=1), rtol=1e-3, atol=1e-5)


def test_a_finished_ensemble_may_get_more_members(ensemble: Path, csgcnn: Command) -> None:
    before = {path: path.stat().st_mtime_ns for path in ensemble.glob("member-*/checkpoints/*")}
    answer = csgcnn(
        "train", "resume=three", "trainer.max_minutes=null", "ensemble=4", cwd=ensemble.parent
    )
    assert answer.code == 0, answer.said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(read(ensemble / "metrics.json")["members"]) == 4
    assert len(load(ensemble / "checkpoints" / "best.ckpt").network.members) == 4


def test_the_leaderboard_lists_the_ensemble_and_its_members(
    ensemble: Path, csgcnn: Command
) -> None:
    answer = csgcnn("table", "three", cwd=ensemble.parent)
    assert answer.code == 0, answer.said
    assert "ensemble=1" in answer.out
    assert "ensemble=4" in answer.out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ensemble=0"], "ensemble=0: expected an integer from 1 to 100"),
        (["model.predict_std=true"], "model.predict_std=true: expected false, which the"),
        (
            ["loss=gaussian", "model.predict_std=false"],
            "model.predict_std=false: expected true, which the",
        ),
    ],
)
def test_invalid_overrides_are_refused(
    overrides: list[str], message: str, csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    answer = csgcnn("train", *small, *overrides, cwd=tmp_path)
    assert answer.code == 2
    assert message in answer.err


def test_a_model_of_the_laplace_loss_predicts_standard_deviations(
    csgcnn: Command, small: list[str], tmp_path: Path, records: list[dict[str, Any]], table: Table
) -> None:
    answer = csgcnn("train", *small, "loss=laplace", "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "within 1 and 1.96 std" in answer.said
    model = load(tmp_path / "run" / "checkpoints" / "best.ckpt")
    rows = {row["id"]: row for row in table(tmp_path / "run" / "predictions.csv")}
    record = next(record for record in records if record["material_id"] in rows)
    values, std = model.predict_with_std([record["crystal_structure"]])
    row = rows[record["material_id"]]
    assert values[0, 0] == pytest.approx(float(row["band_gap_prediction [eV]"]), rel=1e-3)
    assert std[0, 0] == pytest.approx(float(row["band_gap_std [eV]"]), rel=1e-3)
    assert read(tmp_path / "run" / "metrics.json")["std_scale"]["band_gap"] != 1
