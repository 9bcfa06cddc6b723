"""A run that is stopped or killed by a signal resumes to the same results."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from resume_helpers import EVERY_STEP, NO_FIGURES, check_same_results, state_of

Command = Callable[..., Any]

Table = Callable[[Path], list[dict[str, str]]]

QUICK = ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu", NO_FIGURES]

# Runs command lines, each in a process of its own, which sends itself signals before a call of a
# function. The processes are forks of one that has imported everything.
SERVER = """
import csgcnn.commands.train, csgcnn.training.schedulers
import functools, gc, importlib, json, os, signal, sys, time
from csgcnn.cli import main as cli
gc.freeze()
for line in sys.stdin:
    module, path, call, signals, folder, overrides = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(120)
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(os.open(("out.txt", "err.txt")[stream - 1], os.O_WRONLY | os.O_CREAT), stream)
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    real, calls = getattr(owner, name), iter(range(1, 10**6))
    def trap(*args, **kwargs):
        if next(calls) == call:
            for number in signals:
                os.kill(os.getpid(), number)
                time.sleep(0.6 * (len(signals) > 1))  # else the second counts as the first
        return real(*args, **kwargs)
    setattr(owner, name, trap)
    sys.exit(cli.main(overrides))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    own = {"CSGCNN_CACHE": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, env=os.environ | own, text=True, **pipes) as process:
        yield process


@pytest.fixture
def train_with_signals(
    server: subprocess.Popen[str], small: list[str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Train in `tmp_path`/run; before a call of a function, signals are sent."""

    def train(function: str, call: int, *signals: int) -> subprocess.CompletedProcess[str]:
        overrides = ["train", *small, *QUICK, EVERY_STEP, "hydra.run.dir=run", "resume=auto"]
        job = [*function.split(":"), call, signals, str(tmp_path), overrides]
        print(json.dumps(job), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        output = ((tmp_path / name).read_text() for name in ("out.txt", "err.txt"))
        return subprocess.CompletedProcess(overrides, code, *output)

    return train


MOMENTS = {
    "within a step": ("csgcnn.training.trainer:Trainer.train_step", 5),
    "within a validation": ("csgcnn.training.trainer:Trainer.validate", 2),
    "while a file is written": ("csgcnn.io:os.fsync", 36),
    "between temporary file and rename": ("csgcnn.io:os.replace", 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_killed_run_resumes(
    moment: tuple[str, int],
    train_with_signals: Any,
    csgcnn: Command,
    run: Path,
    small: list[str],
    tmp_path: Path,
    table: Table,
) -> None:
    killed = train_with_signals(*moment, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert list((tmp_path / "run" / "checkpoints").glob("*.ckpt")), "killed before a checkpoint"
    overrides = [*small, *QUICK, EVERY_STEP, "hydra.run.dir=run", "resume=auto"]
    answer = csgcnn("train", *overrides, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "resuming in epoch" in answer.out
    check_same_results(tmp_path / "run", run, table)
    assert not list((tmp_path / "run").rglob(".*.tmp")), "temporary files are removed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)],
    ids=["TERM", "INT", "USR1"],
)
def test_a_signal_saves_and_stops(
    number: int,
    code: int,
    train_with_signals: Any,
    csgcnn: Command,
    run: Path,
    tmp_path: Path,
    table: Table,
) -> None:
    stopped = train_with_signals("csgcnn.training.trainer:Trainer.train_step", 5, number)
    assert stopped.returncode == code, stopped.stderr
    assert "Traceback" not in stopped.stdout + stopped.stderr
    assert f"stopped by {signal.Signals(number).name} in epoch 2" in stopped.stdout
    assert state_of(tmp_path / "run")["training"]["n_done"] == 2
    answer = csgcnn("train", f"resume={tmp_path / 'run'}", cwd=run.parent)  # from another folder
    assert answer.code == 0, answer.said
    check_same_results(tmp_path / "run", run, table)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(train_with_signals: Any, tmp_path: Path) -> None:
    step = "csgcnn.training.trainer:Trainer.train_step"
    stopped = train_with_signals(step, 5, signal.SIGINT, signal.SIGINT)
    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stdout + stopped.stderr
    assert "stopped by" not in stopped.stdout
    assert state_of(tmp_path / "run")["training"]["n_done"] == 1


@pytest.mark.slow
def test_a_signal_before_the_training_starts_leaves_no_run(
    train_with_signals: Any, tmp_path: Path
) -> None:
    stopped = train_with_signals("csgcnn.commands.train:prepare", 1, signal.SIGTERM)
    assert stopped.returncode == 143, stopped.stderr
    assert "Traceback" not in stopped.stdout + stopped.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()
