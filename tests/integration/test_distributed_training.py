"""Several ranks train one model in one run directory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rank_helpers import QUICK, TrainOnRanks

from csgcnn.runs.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

Table = Callable[[Path], list[dict[str, str]]]

RANDOM = ["augment=distance_noise", "model.dropout=0.1"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]


CLASSES = [
    *("dataset.targets=[band_gap,is_metal]", "dataset.derived.is_metal=band_gap < 2"),
    *("dataset.tasks.is_metal=classification", "trainer.learn_task_weights=true"),
]


@pytest.mark.parametrize(
    "overrides", [[], ["trainer.refit=true"], ["model=csgann", "pooling=set2set", *CLASSES]]
)
def test_two_ranks_write_the_results_of_one_process(
    overrides: list[str], train_on_ranks: TrainOnRanks, tmp_path: Path, table: Table
) -> None:
    # Unlike Adam, SGD does not amplify rounding errors at the start. The 48 rows make batches of
    # odd sizes, the last of three rows.
    overrides = [*overrides, "optimizer=sgd", "trainer.batch_size=15"]
    first, second = train_on_ranks(*overrides, "hydra.run.dir=run")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert second.out + second.err == ""
    assert {path.name for path in tmp_path.iterdir()} == {"run", "cache", "output"}
    (alone,) = train_on_ranks(*overrides, "hydra.run.dir=alone", variables=[{}])
    assert alone.code == 0, alone.err
    runs = tmp_path / "run", tmp_path / "alone"
    rows, others = (table(run / "metrics.csv") for run in runs)
    for name in rows[0].keys() - {"seconds", "graphs_per_second"}:
        for row, other in zip(rows, others, strict=True):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-4), name
    rows, others = (table(run / "predictions.csv") for run in runs)
    for row, other in zip(rows, others, strict=True):
        assert (row["id"], row["split"]) == (other["id"], other["split"])
        prediction, expected = (float(cells["band_gap_prediction [eV]"]) for cells in (row, other))
        assert prediction == pytest.approx(expected, abs=1e-3)
    facts = [json.loads((run / "metrics.json").read_text()) for run in runs]
    assert facts[0]["n_rows"] == facts[1]["n_rows"]
    assert json.loads((runs[0] / "environment.json").read_text())["processes"] == 2


def test_a_signal_on_one_rank_stops_all_and_the_run_resumes(
    train_on_ranks: TrainOnRanks, tmp_path: Path
) -> None:
    overrides = RANDOM
    assert [answer.code for answer in train_on_ranks(*overrides, "hydra.run.dir=whole")] == [0, 0]
    first, second = train_on_ranks(
        *overrides, "hydra.run.dir=run", variables=[{}, {"EVENT": "step 4", "ACTION": "SIGUSR1"}]
    )
    assert (first.code, second.code) == (75, 75), first.err + second.err
    assert "another process" in first.out
    answers = train_on_ranks(*overrides, "hydra.run.dir=run", "resume=auto")
    assert [answer.code for answer in answers] == [0, 0], answers[0].err
    assert "resuming in epoch" in answers[0].out
    one, other = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in one), (
        "dropout and noise of both processes, too"
    )


@pytest.mark.parametrize("number", [1, 3])
def test_a_run_resumes_with_another_number_of_ranks(
    number: int, train_on_ranks: TrainOnRanks, tmp_path: Path, table: Table
) -> None:
    both = [{"EVENT": "step 4", "ACTION": "SIGTERM"}] * 2
    assert [answer.code for answer in train_on_ranks("hydra.run.dir=run", variables=both)] == [
        143,
        143,
    ]
    answers = train_on_ranks("hydra.run.dir=run", "resume=auto", variables=[{}] * number)
    assert [answer.code for answer in answers] == [0] * number, answers[0].err
    assert [row["epoch"] for row in table(tmp_path / "run" / "metrics.csv")] == ["1", "2", "3"]


def test_other_commands_run_in_one_process(train_on_ranks: TrainOnRanks) -> None:
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": "1"}
    command = [sys.executable, "-m", "csgcnn", "predict", "ckpt=a", "structures=b"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "runs in one process" in answer.stderr


def test_torchrun_trains_a_model(small: list[str], tmp_path: Path, table: Table) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "csgcnn",
    ]
    overrides = [*small, *QUICK, "hydra.run.dir=run"]
    environment = os.environ | {"CSGCNN_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, "train", *overrides],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(table(tmp_path / "run" / "metrics.csv")) == 3
