"""Which trials a search chooses, and what it does with those that fail."""

from collections.abc import Callable
from pathlib import Path

import pytest
from answers import Answer

pytest.importorskip("optuna", reason="pip install 'csgcnn[sweep]'")
pytestmark = pytest.mark.slow

Command = Callable[..., Answer]
Table = Callable[[Path], list[dict[str, str]]]


@pytest.fixture
def words(small: list[str]) -> list[str]:
    """The words of a short search, without ranges."""
    short = [word for word in small if not word.startswith("trainer.max_epochs")]
    short += ["trainer.max_epochs=1", "trainer.figures=false", "model.n_convolutions=1"]
    return ["hydra/sweeper=csgcnn_search", *short, "hydra.sweep.dir=sweep"]


def test_a_failed_trial_is_reported_and_does_not_end_the_search(
    csgcnn: Command, words: list[str], table: Table, tmp_path: Path
) -> None:
    targets = ["dataset.targets=[band_gap],[nonsense]", "hydra.sweeper.prune_after=null"]
    command = ["train", "--multirun", *words, *targets, "hydra.sweeper.n_trials=6"]
    answer = csgcnn(*command, cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = table(tmp_path / "sweep" / "trials.csv")
    states = [row["state"] for row in rows]
    failed = [row for row in rows if row["state"] == "failed"]
    assert len(rows) == 6
    assert 0 < len(failed) < 6
    assert all("nonsense" in row["reason"] for row in failed)
    number = failed[0]["trial"]
    counted = f"{states.count('complete')} complete, {len(failed)} failed (first: trial {number}: "
    assert f"all 6 trials are done: {counted}" in answer.out
    assert f"trial {number} failed: " in answer.said


def test_widths_that_the_heads_do_not_divide_are_not_chosen(
    csgcnn: Command, words: list[str], table: Table, tmp_path: Path
) -> None:
    widths = ["model.hidden=int(interval(6,24))", "model.convolution.heads=3,4"]
    own = [word for word in words if not word.startswith("model.hidden")]
    command = ["train", "--multirun", *own, *widths, "hydra.sweeper.n_trials=4"]
    answer = csgcnn(*command, cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = table(tmp_path / "sweep" / "trials.csv")
    assert len(rows) == 4
    for row in rows:
        assert int(row["model.hidden"]) % int(row["model.convolution.heads"]) == 0
