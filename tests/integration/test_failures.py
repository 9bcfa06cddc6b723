"""Disks that are full, folders that vanish, faults of our own: a line on the terminal, and what was there stays."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.training.trainer import Trainer

Command = Callable[..., Any]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.8 MB: room for the first checkpoints of a small training, not for its figures."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1800k", "tmpfs", str(folder)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(csgcnn: Command, small: list[str], small_disk: Path, tmp_path: Path) -> None:
    words = [
        *small,
        "trainer.max_epochs=2",
        "trainer.checkpoint_every=0",
        f"hydra.run.dir={small_disk}/run",
    ]
    answer = csgcnn("train", *words, "trainer.keep_last=100", cwd=tmp_path)
    assert answer.code == 1
    assert "No space left on device" in answer.err
    assert len(answer.err.splitlines()) <= 2
    kept = list((small_disk / "run" / "checkpoints").glob("*.ckpt"))
    assert kept
    assert all(
        load_checkpoint(path)["training"]["n_steps"] > 0
        for path in kept
        if path.name != "best.ckpt"
    )
    assert not list(small_disk.rglob(".*.tmp"))
    for path in (small_disk / "run" / "checkpoints").glob("step_*"):
        path.unlink()
    answer = csgcnn("train", f"resume={small_disk}/run", "trainer.keep_last=0", cwd=tmp_path)
    assert answer.code == 0, answer.said


def test_a_folder_that_vanishes(
    csgcnn: Command, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Trainer.validate

    def vanish(trainer: Trainer) -> Any:
        shutil.rmtree(tmp_path / "run")
        return validate(trainer)

    monkeypatch.setattr(Trainer, "validate", vanish)
    answer = csgcnn("train", *small, "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 1
    assert "run/metrics.csv: No such file or directory" in answer.err
    assert "Traceback" not in answer.said


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (KeyError("oops"), "internal error, KeyError: 'oops'"),
        (MemoryError(), "out of memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_faults_of_our_own(
    fault: Exception,
    told: str,
    csgcnn: Command,
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: Trainer) -> None:
        raise fault

    monkeypatch.setattr(Trainer, "validate", fail)
    answer = csgcnn("train", *small, "hydra.run.dir=run", cwd=tmp_path)
    assert answer.code == 1
    assert told in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    log = tmp_path / "run" / "error.log"
    if isinstance(fault, KeyError):
        assert str(log) in answer.err
        assert "in fail" in log.read_text()


def test_a_refused_run_leaves_no_folder(csgcnn: Command, tmp_path: Path) -> None:
    assert csgcnn("train", "dataset.path=absent.json", cwd=tmp_path).code == 1
    assert csgcnn("train", "model.hidden=0", cwd=tmp_path).code == 2
    assert not list(tmp_path.rglob("*/*/*")), list(tmp_path.rglob("*"))


def test_a_crystal_to_blame_is_named(
    csgcnn: Command, small: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    step, calls = Trainer.train_step, iter(range(100))
    monkeypatch.setattr(
        Trainer,
        "train_step",
        lambda self, *batch: step(self, *batch) * (float("nan") if next(calls) == 4 else 1),
    )
    answer = csgcnn(
        "train", *small, "trainer.checkpoint_every=0", "hydra.run.dir=run", cwd=tmp_path
    )
    assert answer.code == 1
    assert "diverged in epoch 2: the loss of batch 2 is nan" in answer.err
    report = tmp_path / "run" / "diverged.json"
    assert str(report) in answer.err
    assert (
        load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["training"]["n_done"] == 1
    )
