"""A failure of one rank ends the run on all ranks."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from rank_helpers import TrainOnRanks

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("point", ["load", "step 4"])
def test_a_killed_rank_ends_the_run(
    point: str, victim: int, train_on_ranks: TrainOnRanks, tmp_path: Path
) -> None:
    variables: list[dict[str, str]] = [{}, {}]
    variables[victim] = {"EVENT": point, "ACTION": "SIGKILL"}
    answers = train_on_ranks("hydra.run.dir=run", "trainer.checkpoint_every=0", variables=variables)
    survivor = answers[1 - victim]
    assert (answers[victim].code, survivor.code) == (-signal.SIGKILL, 1)
    assert "another process of this run ended" in survivor.err
    assert len(survivor.err.splitlines()) == 1
    if (point, victim) == ("step 4", 0):
        answers = train_on_ranks("hydra.run.dir=run", "resume=auto")
        assert [answer.code for answer in answers] == [0, 0], answers[0].err


@pytest.mark.parametrize(
    ("victim", "action", "code"), [(0, "fail", 1), (1, "fail", 1), (1, "SIGTERM", 143)]
)
@pytest.mark.parametrize("point", ["load", "step 4"])
def test_a_failure_of_one_rank_ends_the_sweep(
    point: str, victim: int, action: str, code: int, train_on_ranks: TrainOnRanks, tmp_path: Path
) -> None:
    variables: list[dict[str, str]] = [{}, {}]
    variables[victim] = {"EVENT": point, "ACTION": action}
    answers = train_on_ranks("--multirun", "seed=0,1", "hydra.sweep.dir=sweep", variables=variables)
    assert answers[victim].code == code, answers
    assert answers[1 - victim].code in (1, code)
    if action == "fail":
        assert "no space left here" in answers[0].err + answers[1].err
    assert all("Traceback" not in answer.err for answer in answers)


def test_a_sweep_continues_after_a_failure_of_all_ranks(
    train_on_ranks: TrainOnRanks, tmp_path: Path
) -> None:
    first, second = train_on_ranks("--multirun", "optimizer.lr=1e9,0.001", "hydra.sweep.dir=sweep")
    assert (first.code, second.code, second.err) == (1, 1, ""), first.err
    assert "training diverged in epoch" in first.err
    assert (tmp_path / "sweep" / "1" / "metrics.json").exists()


def test_rank_0_reports_a_mistake_once(train_on_ranks: TrainOnRanks) -> None:
    for override, code in (
        ("dataset.path=nowhere.json", 1),
        ("modle=csgann", 2),
        ("pooling=[mean", 2),
        ("seed=-1", 2),
    ):
        first, second = train_on_ranks(override, "hydra.run.dir=run")
        assert (first.code, second.err) == (code, ""), first.err
        assert len(first.err.splitlines()) <= 2, first.err
        assert "Traceback" not in first.err


def test_ranks_with_other_data_or_checkpoints_are_refused(
    train_on_ranks: TrainOnRanks, data_file: Path, records: list[Any], tmp_path: Path
) -> None:
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        (tmp_path / str(rank) / "data.json").write_text(json.dumps(records[rank:]))
    first, second = train_on_ranks(
        "dataset.path=data.json", folders=[tmp_path / "0", tmp_path / "1"]
    )
    assert (first.code, second.code) == (1, 1)
    assert "process 1: it has data" in first.err
    assert train_on_ranks("hydra.run.dir=run", "trainer.max_epochs=1")[0].code == 0
    first, second = train_on_ranks(
        "hydra.run.dir=run", "resume=auto", variables=[{}, {"EVENT": "checkpoint"}]
    )
    assert (first.code, second.code) == (1, 1)
    assert "must be on a disk that all ranks see" in first.err
