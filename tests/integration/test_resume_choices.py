"""What resume=, ckpt= and init_from= accept, and what a refused start leaves."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[..., Any]
NO_FIGURES = "trainer.figures=false"


def test_a_run_that_stopped_early_continues_with_more_patience(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    # The validation loss of such steps goes up and down.
    words = [*small, NO_FIGURES, "hydra.run.dir=run", "optimizer=sgd", "optimizer.lr=1"]
    words += ["trainer.ema=null", "trainer.max_epochs=12", "trainer.patience=1"]
    assert csgcnn("train", *words, cwd=tmp_path).code == 0
    checkpoint = "run/checkpoints/last.ckpt"
    answer = csgcnn("train", f"resume={checkpoint}", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "because trainer.patience=1 epochs brought no improvement" in answer.out
    assert "resuming" not in answer.said
    assert answer.out.count("\n") == 1
    more = csgcnn("train", f"resume={checkpoint}", "trainer.patience=3", cwd=tmp_path)
    assert more.code == 0, more.said
    assert "from " in more.out
    assert checkpoint in more.out


def test_a_run_and_a_sweep_stand_for_their_checkpoint(
    csgcnn: Command, run: Path, small: list[str], tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "sweep" / "0")
    for given in ("sweep/0", "sweep"):
        words = [f"init_from={given}", "trainer.max_epochs=1", NO_FIGURES, "hydra.run.dir=new"]
        answer = csgcnn("train", *small, *words, cwd=tmp_path)
        assert answer.code == 0, answer.said
        assert f"init_from={given}: taking sweep/0/checkpoints/best.ckpt" in answer.out
        shutil.rmtree(tmp_path / "new")


def test_a_refused_start_leaves_nothing_that_the_next_one_finds(
    csgcnn: Command, small: list[str], tmp_path: Path
) -> None:
    words = [*small, NO_FIGURES, "trainer.max_epochs=1", "hydra.run.dir=runs/a"]
    refused = csgcnn("train", *words, "init_from=nowhere.ckpt", cwd=tmp_path)
    assert refused.code != 0
    assert not (tmp_path / "runs").exists()
    refused = csgcnn("train", "dataset.path=nowhere.json", cwd=tmp_path)
    assert not (tmp_path / "runs").exists()
    assert csgcnn("train", *words, cwd=tmp_path).code == 0
