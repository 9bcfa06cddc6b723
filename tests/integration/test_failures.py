"""A full disk, a removed folder, an internal error: one line on the terminal, and no data lost."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.training.trainer import Trainer

Command = Callable[..., Any]
QUICK = ["trainer.max_epochs=1", "trainer.figures=false"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.8 MB, with room for the first checkpoints of a small training."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1800k", "tmpfs", str(folder)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_run_on_a_full_disk_resumes(
    csgcnn: Command, small: list[str], small_disk: Path, tmp_path: Path
) -> None:
    folder = small_disk / "run"
    overrides = [*small, *QUICK, "trainer.checkpoint_every=0", f"hydra.run.dir={folder}"]
    answer = csgcnn("train", *overrides, "trainer.keep_last=100", cwd=tmp_path)
    assert answer.code == 1
    assert "No space left on device" in answer.err
    assert len(answer.err.splitlines()) <= 2
    kept = list((folder / "checkpoints").glob("*.ckpt"))
    resumable = [load_checkpoint(path) for path in kept if path.name != "best.ckpt"]
    assert resumable
    assert all(content["training"]["n_steps"] > 0 for content in resumable)
    assert not list(small_disk.rglob(".*.tmp"))
    for path in (folder / "checkpoints").glob("step_*"):
        path.unlink()
    answer = csgcnn("train", f"resume={folder}", "trainer.keep_last=0", cwd=tmp_path)
    assert answer.code == 0, answer.said


def test_a_removed_run_directory_is_reported(
    csgcnn: Command, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Trainer.validate

    def remove_and_validate(trainer: Trainer) -> Any:
        shutil.rmtree(tmp_path / "run")
        return validate(trainer)

    monkeypatch.setattr(Trainer, "validate", remove_and_validate)
    answer = csgcnn("train", *small, *QUICK, "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 1
    assert "run/metrics.csv: No such file or directory" in answer.err
    assert "Traceback" not in answer.said


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (KeyError("oops"), "internal error, KeyError: 'oops'"),
        (MemoryError(), "out of memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_internal_error_is_reported_in_one_line(
    fault: Exception,
    message: str,
    csgcnn: Command,
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: Trainer) -> None:
        raise fault

    monkeypatch.setattr(Trainer, "validate", fail)
    answer = csgcnn("train", *small, *QUICK, "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 1
    assert message in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    log = tmp_path / "run" / "error.log"
    if isinstance(fault, KeyError):
        assert str(log) in answer.err
        assert "in fail" in log.read_text()


def test_a_refused_run_leaves_no_folder(csgcnn: Command, tmp_path: Path) -> None:
    assert csgcnn("train", "dataset.path=absent.json", cwd=tmp_path).code == 1
    assert csgcnn("train", "model.hidden=0", cwd=tmp_path).code == 2
    assert not list(tmp_path.rglob("*/*/*")), list(tmp_path.rglob("*"))


def test_crystals_of_a_diverged_batch_are_reported(
    csgcnn: Command, small: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    train_step, calls = Trainer.train_step, iter(range(100))

    def fail_in_epoch_2(trainer: Trainer, *batch: Any) -> Any:
        loss = train_step(trainer, *batch)
        return loss * float("nan") if next(calls) == 4 else loss

    monkeypatch.setattr(Trainer, "train_step", fail_in_epoch_2)
    overrides = [*small, *QUICK, "trainer.max_epochs=2", "trainer.checkpoint_every=0"]
    answer = csgcnn("train", *overrides, "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 1
    assert "diverged in epoch 2: the loss of batch 2 is nan" in answer.err
    report = tmp_path / "run" / "diverged.json"
    assert str(report) in answer.err
    assert json.loads(report.read_text())["epoch"] == 2
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert last["training"]["n_done"] == 1, "the last state without a NaN"
