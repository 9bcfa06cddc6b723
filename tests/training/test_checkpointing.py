from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.runs.directory import RunDirectory
from csgcnn.training.checkpointing import Checkpointer, PrunedError
from csgcnn.training.interruption import Interruption
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]
DESCRIPTION = {"csgcnn": "0", "config": {"trainer": {}}, "targets": [], "elements": []}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "checkpoints").mkdir()
    return RunDirectory(tmp_path)


def names(run: RunDirectory) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_a_checkpoint_is_written_when_it_is_due(trainer: Make, run: RunDirectory) -> None:
    made = trainer(max_epochs=1, batch_size=20, checkpoint_every=3600)
    rarely = Checkpointer(run, made, DESCRIPTION, Interruption())
    made.fit(rarely.on_step)
    assert names(run) == []
    assert len((run.folder / "metrics.csv").read_text().splitlines()) == 2
    rarely.save()
    assert names(run) == ["best.ckpt", "last.ckpt"]
    written = [(run.checkpoints / name).stat().st_mtime_ns for name in names(run)]
    rarely.save()
    assert written == [(run.checkpoints / name).stat().st_mtime_ns for name in names(run)]


def test_older_checkpoints_are_kept(trainer: Make, run: RunDirectory) -> None:
    made = trainer(max_epochs=1, batch_size=8, checkpoint_every=0, keep_last=2)
    often = Checkpointer(run, made, DESCRIPTION, Interruption())
    made.fit(often.on_step)
    steps = ["step_000000004.ckpt", "step_000000005.ckpt"]
    assert names(run) == ["best.ckpt", "last.ckpt", *steps]
    last, step = (load_checkpoint(run.checkpoints / name) for name in ("last.ckpt", steps[1]))
    assert last["training"]["n_steps"] == step["training"]["n_steps"] == 5
    for name, weight in made.evaluated.state_dict().items():
        assert torch.equal(last["state_dict"][name], weight)


def test_a_pruned_training_is_saved(trainer: Make, run: RunDirectory) -> None:
    made, asked = trainer(max_epochs=3, checkpoint_every=3600), list[tuple[int, float]]()

    def should_prune(epoch: int, score: float) -> bool:
        asked.append((epoch, score))
        return epoch == 2

    checkpointer = Checkpointer(run, made, DESCRIPTION, Interruption(), should_prune)
    with pytest.raises(PrunedError):
        made.fit(checkpointer.on_step)
    assert [epoch for epoch, _ in asked] == [1, 2], "asked once per epoch"
    assert asked[-1][1] == made.best_score
    assert names(run) == ["best.ckpt", "last.ckpt"]


def test_a_reason_to_stop_saves_and_exits(
    trainer: Make, run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(max_epochs=3)
    checkpointer = Checkpointer(run, made, DESCRIPTION, Interruption(max_minutes=1e-9))
    with pytest.raises(SystemExit) as caught:
        made.fit(checkpointer.on_step)
    assert caught.value.code == 75
    assert made.n_steps == 1
    assert names(run) == ["last.ckpt"]
    assert f"csgcnn train resume={run.folder}" in caplog.text
