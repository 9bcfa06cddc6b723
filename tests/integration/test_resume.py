"""A run that is interrupted and resumed equals an uninterrupted run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from csgcnn.config.resolved import REPEAT
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
TIMES = ("seconds", "graphs_per_second")
NO_FIGURES = "trainer.figures=false"
QUICK = ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu", NO_FIGURES]
EVERY_STEP = "trainer.checkpoint_every=0"

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


def state_of(run: Path, name: str = "last") -> dict[str, Any]:
    return load_checkpoint(run / "checkpoints" / f"{name}.ckpt")


def check_same_results(found: Path, expected: Path, table: Table) -> None:
    """Check that two runs are identical, to the bit, but for their times."""
    both = found, expected
    rows, expected_rows = (
        [{k: v for k, v in row.items() if k not in TIMES} for row in table(run / "metrics.csv")]
        for run in both
    )
    assert rows == expected_rows
    assert (found / "predictions.csv").read_bytes() == (expected / "predictions.csv").read_bytes()
    metrics, expected_metrics = (
        {k: v for k, v in json.loads((run / "metrics.json").read_text()).items() if k not in TIMES}
        for run in both
    )
    assert metrics == expected_metrics
    for name in ("best", "last"):
        weights, expected_weights = (state_of(run, name)["state_dict"] for run in both)
        assert all(torch.equal(weights[key], expected_weights[key]) for key in expected_weights)


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
def test_a_signal_before_the_training_starts(train_with_signals: Any, tmp_path: Path) -> None:
    stopped = train_with_signals("csgcnn.commands.train:prepare", 1, signal.SIGTERM)
    assert stopped.returncode == 143, stopped.stderr
    assert "Traceback" not in stopped.stdout + stopped.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()


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
    for folder in (tmp_path, tmp_path / "absent"):
        answer = csgcnn("train", f"resume={folder}", cwd=tmp_path)
        assert answer.code == 1
        assert f"resume={folder}: there is no run" in answer.err


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


def test_only_one_process_at_a_time(csgcnn: Command, run: Path, tmp_path: Path) -> None:
    before = snapshot(run)
    with FileLock(run / ".lock"):
        answer = csgcnn("train", f"resume={run}", cwd=tmp_path)
    assert answer.code == 1
    assert "another process is training there" in answer.err
    assert snapshot(run) == before


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
