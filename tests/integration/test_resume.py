"""A run that is interrupted and resumed equals an uninterrupted run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from omegaconf import OmegaConf
from resume_helpers import EVERY_STEP, NO_FIGURES, check_same_results, state_of

from csgcnn.config.resolved import REPEAT
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint

Command = Callable[..., Any]

Table = Callable[[Path], list[dict[str, str]]]


def test_a_run_stopped_by_its_time_limit_resumes(
    csgcnn: Command, small: list[str], run: Path, tmp_path: Path, table: Table
) -> None:
    overrides = [*small, NO_FIGURES, "hydra.run.dir=run", "resume=auto"]
    for _ in range(2):
        answer = csgcnn("train", *overrides, "trainer.max_minutes=1e-6", cwd=tmp_path)
        assert answer.code == 75
        assert "stopped by trainer.max_minutes" in answer.out
    assert csgcnn("train", *overrides, cwd=tmp_path).code == 0
    check_same_results(tmp_path / "run", run, table)


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "train.log"
    }


def test_a_finished_run_has_nothing_to_do(
    csgcnn: Command, run: Path, small: list[str], tmp_path: Path
) -> None:
    before = snapshot(run)
    for overrides in ([f"resume={run}"], [*small, "resume=auto", f"hydra.run.dir={run}"]):
        answer = csgcnn("train", *overrides, cwd=tmp_path)
        assert answer.code == 0, answer.said
        assert "nothing to do: all 3 epochs are done" in answer.out
    after = snapshot(run)
    assert {path.name for path in before if after[path] != before[path]} <= {
        "environment.json",
        "config.yaml",
    }


def test_a_finished_run_resumes_with_more_epochs(
    csgcnn: Command, run: Path, tmp_path: Path, table: Table
) -> None:
    shutil.copytree(run, tmp_path / "run")
    before = table(tmp_path / "run" / "metrics.csv")
    answer = csgcnn("train", "resume=run", "trainer.max_epochs=5", NO_FIGURES, cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = table(tmp_path / "run" / "metrics.csv")
    assert [row["epoch"] for row in rows] == list("12345")
    assert rows[:3] == before
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] == 5


@pytest.mark.parametrize(
    ("overrides", "code", "messages"),
    [
        (
            ["model.hidden=32", "seed=7"],
            2,
            ["model.hidden=32 (the run has 16)", "seed=7 (the run has 0)"],
        ),
        (["model=csginn"], 2, ["model.convolution._target_"]),
        (["edge.cutoff=6"], 2, ["edge_calculator.cutoff=6 (the run has 8.0)"]),
        (["--multirun", "seed=1,2"], 2, ["resume=auto"]),
    ],
    ids=["keys", "group", "alias", "sweep"],
)
def test_another_configuration_is_refused(
    overrides: list[str],
    code: int,
    messages: list[str],
    csgcnn: Command,
    run: Path,
    tmp_path: Path,
) -> None:
    before = snapshot(run)
    answer = csgcnn("train", f"resume={run}", *overrides, cwd=tmp_path)
    assert answer.code == code, answer.said
    assert all(message in answer.err for message in messages), answer.err
    assert snapshot(run) == before


def test_other_data_are_refused(
    csgcnn: Command, small: list[str], records: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(records))
    overrides = [f"dataset.path={path}", *small[1:], "trainer.max_epochs=1", NO_FIGURES]
    overrides += ["hydra.run.dir=run", "resume=auto"]
    assert csgcnn("train", *overrides, cwd=tmp_path).code == 0
    path.write_text(json.dumps([*records[1:], records[0] | {"band_gap": 9.9}]))
    answer = csgcnn("train", *overrides, cwd=tmp_path)
    assert answer.code == 1
    assert "no longer holds the data" in answer.err


def test_a_folder_without_a_run_is_refused(csgcnn: Command, tmp_path: Path) -> None:
    reasons = {tmp_path: "the folder holds no run", tmp_path / "absent": "there is no run"}
    for folder, reason in reasons.items():
        answer = csgcnn("train", f"resume={folder}", cwd=tmp_path)
        assert answer.code == 1
        assert f"resume={folder}: {reason}" in answer.err


@pytest.mark.slow
def test_older_checkpoints_replace_damaged_ones(
    csgcnn: Command, small: list[str], run: Path, tmp_path: Path, table: Table
) -> None:
    overrides = [*small, NO_FIGURES, EVERY_STEP, "trainer.keep_last=2", "hydra.run.dir=run"]
    assert csgcnn("train", *overrides, cwd=tmp_path).code == 0
    checkpoints = tmp_path / "run" / "checkpoints"
    kept = sorted(path.name for path in checkpoints.glob("step_*"))
    assert kept == ["step_000000008.ckpt", "step_000000009.ckpt"]
    (tmp_path / "run" / "metrics.json").unlink()
    for name in ("last.ckpt", kept[1]):
        (checkpoints / name).write_bytes((checkpoints / name).read_bytes()[:5000])
    answer = csgcnn("train", "resume=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert answer.out.count("trying an older checkpoint") == 2
    check_same_results(tmp_path / "run", run, table)
    for path in checkpoints.iterdir():
        path.write_bytes(b"no checkpoint")
    answer = csgcnn("train", "resume=run", cwd=tmp_path)
    assert answer.code == 1
    assert "no checkpoint is usable" in answer.err


def test_only_one_process_trains_in_a_run_directory(
    csgcnn: Command, run: Path, tmp_path: Path
) -> None:
    before = snapshot(run)
    with FileLock(run / ".lock"):
        answer = csgcnn("train", f"resume={run}", cwd=tmp_path)
    assert answer.code == 1
    assert "another process is training there" in answer.err
    assert snapshot(run) == before


@pytest.mark.slow
def test_a_sweep_resumes_its_unfinished_runs(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    overrides = [
        "--multirun",
        *small,
        "trainer.max_epochs=1",
        NO_FIGURES,
        "seed=0,1",
        "hydra.sweep.dir=sweep",
        "resume=auto",
    ]
    assert csgcnn("train", *overrides, cwd=tmp_path).code == 0
    for path in ("metrics.json", "predictions.csv"):
        (tmp_path / "sweep" / "1" / path).unlink()
    answer = csgcnn("train", *overrides, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert answer.out.count("nothing to do") == 1
    assert (tmp_path / "sweep" / "1" / "metrics.json").exists()


# Stopped by SIGTERM in the second of three epochs.
STORED = Path(__file__).parents[1] / "runs" / "format_2.ckpt"

# In eV, of the run that was stopped there and resumed at once.
VAL_MAES = [1.130709, 1.128043, 1.086805]


def test_a_checkpoint_of_an_older_version_resumes(
    csgcnn: Command, tmp_path: Path, table: Table
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(STORED.read_bytes())
    config = load_checkpoint(STORED)["config"]
    (tmp_path / "run" / "config.yaml").write_text(OmegaConf.to_yaml(config) + REPEAT)
    answer = csgcnn("train", "resume=run", NO_FIGURES, cwd=tmp_path)
    assert answer.code == 0, answer.said
    found = [float(row["val_mae_band_gap"]) for row in table(tmp_path / "run" / "metrics.csv")]
    # The version that wrote it summed in another order.
    assert found == pytest.approx(VAL_MAES, abs=5e-4)


def test_an_incomplete_state_is_refused(csgcnn: Command, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    content = state_of(folder)
    del content["training"]["optimizer"]
    save_checkpoint(content, folder / "checkpoints" / "last.ckpt")
    answer = csgcnn("train", f"resume={folder}", cwd=tmp_path)
    assert answer.code == 1
    assert "the training state is damaged" in answer.err
    assert "error.log" not in answer.said
