"""Several processes train one model, in one run directory."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
QUICK = ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu", "augment=distance_noise", "model.dropout=0.1"]
Answers = list[subprocess.CompletedProcess[str]]

# The command line in a process; `variables` are those of the process that is to die or to be told at a step.
DRIVER = """
import os, sys
from csgcnn import cli
from csgcnn.training.trainer import Trainer
real, calls = Trainer._step, iter(range(1, 10**6))
def trap(*args):
    if str(next(calls)) == os.environ.get("AT_STEP"):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
    return real(*args)
Trainer._step = trap
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def together(small: list[str], tmp_path: Path) -> Callable[..., Answers]:
    """Train in `tmp_path` with as many processes as there are sets of `variables`."""

    def train(*words: str, variables: tuple[dict[str, str], ...] = ({}, {})) -> Answers:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": str(len(variables)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        common |= {"CSGCNN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", DRIVER, "train", *small, *QUICK, *words]
        started = [
            subprocess.Popen(
                command, cwd=tmp_path, env=os.environ | common | own | {"RANK": str(rank)},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for rank, own in enumerate(variables)
        ]  # fmt: skip
        said = [process.communicate(timeout=60) for process in started]
        return [
            subprocess.CompletedProcess(command, process.returncode, *texts)
            for process, texts in zip(started, said, strict=True)
        ]

    return train


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt")["state_dict"]


def test_one_run_directory_and_every_row_once(
    together: Callable[..., Answers], csgcnn: Command, small: list[str], tmp_path: Path, table: Table
) -> None:
    plain = ["augment=none", "model.dropout=0"]
    first, second = together(*plain)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert second.stdout + second.stderr == ""
    (run,) = (tmp_path / "runs").glob("*/*")
    assert csgcnn("train", *small, *QUICK, *plain, "hydra.run.dir=alone", cwd=tmp_path).code == 0
    for of_two, of_one in zip(*(table(folder / "metrics.csv") for folder in (run, tmp_path / "alone")), strict=True):
        assert float(of_two["train_loss"]) == pytest.approx(float(of_one["train_loss"]), rel=1e-3)
    rows = [{row["id"]: row for row in table(folder / "predictions.csv")} for folder in (run, tmp_path / "alone")]
    assert rows[0].keys() == rows[1].keys()
    assert len(table(run / "predictions.csv")) == len(rows[0])
    n_rows = [json.loads((folder / "metrics.json").read_text())["n_rows"] for folder in (run, tmp_path / "alone")]
    assert n_rows[0] == n_rows[1]


def test_told_to_stop_and_continued(together: Callable[..., Answers], tmp_path: Path) -> None:
    assert [answer.returncode for answer in together("hydra.run.dir=whole")] == [0, 0]
    told = ({}, {"AT_STEP": "4", "SIGNAL": str(int(signal.SIGUSR1))})
    first, second = together("hydra.run.dir=run", variables=told)
    assert (first.returncode, second.returncode) == (75, 75), first.stderr + second.stderr
    assert "another process" in first.stdout
    answers = together("hydra.run.dir=run", "resume=auto")
    assert [answer.returncode for answer in answers] == [0, 0], answers[0].stderr
    assert "going on in epoch" in answers[0].stdout
    one, other = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in one), "dropout and noise of both processes, too"


@pytest.mark.parametrize("number", [1, 3])
def test_continued_with_another_number_of_processes(
    number: int, together: Callable[..., Answers], tmp_path: Path, table: Table
) -> None:
    told = ({"AT_STEP": "4", "SIGNAL": str(int(signal.SIGTERM))},) * 2
    assert [answer.returncode for answer in together("hydra.run.dir=run", variables=told)] == [143, 143]
    answers = together("hydra.run.dir=run", "resume=auto", variables=({},) * number)
    assert [answer.returncode for answer in answers] == [0] * number, answers[0].stderr
    assert [row["epoch"] for row in table(tmp_path / "run" / "metrics.csv")] == ["1", "2", "3"]


@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_dies_ends_the_run(victim: int, together: Callable[..., Answers], tmp_path: Path) -> None:
    variables: list[dict[str, str]] = [{}, {}]
    variables[victim] = {"AT_STEP": "4", "SIGNAL": str(int(signal.SIGKILL))}
    answers = together("hydra.run.dir=run", "trainer.checkpoint_every=0", variables=tuple(variables))
    survivor = answers[1 - victim]
    assert answers[victim].returncode == -signal.SIGKILL
    assert survivor.returncode == 1
    assert "Traceback" not in survivor.stderr
    assert "another process of this run ended" in survivor.stderr
    answers = together("hydra.run.dir=run", "resume=auto")
    assert [answer.returncode for answer in answers] == [0, 0], answers[0].stderr


def test_a_mistake_is_told_once(together: Callable[..., Answers], tmp_path: Path) -> None:
    for word, code in (("dataset.path=nowhere.json", 1), ("modle=csgann", 2), ("optimizer.lr=1e9", 1)):
        first, second = together(word, "hydra.run.dir=run")
        assert (first.returncode, second.stderr) == (code, ""), first.stderr
        assert len(first.stderr.splitlines()) <= 2, first.stderr
        assert "Traceback" not in first.stderr


def test_other_commands_run_alone(together: Callable[..., Answers]) -> None:
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": "1"}
    command = [sys.executable, "-m", "csgcnn", "predict", "ckpt=a", "structures=b"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "runs in one process" in answer.stderr


def test_torchrun_starts_them(small: list[str], tmp_path: Path, table: Table) -> None:
    words = [*small, *QUICK, "hydra.run.dir=run", "trainer.sync_norm=false"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "csgcnn"]
    environment = os.environ | {"CSGCNN_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([*command, "train", *words], cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(table(tmp_path / "run" / "metrics.csv")) == 3
