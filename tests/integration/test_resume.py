"""A run that is cut off and continued is the run that was not."""

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
TIMING = ("seconds", "graphs_per_second")
QUICK = [
    "trainer.threads=1",
    "trainer.workers=1",
    "trainer.device=cpu",
    "trainer.checkpoint_every=0",
]

# Runs command lines, each in a process of its own, in which the so-manieth call of a function sends itself signals.
# They are forks of a process that has imported everything: of nine processes, eight need not.
SERVER = """
import csgcnn.commands.train, csgcnn.evaluation.plots, csgcnn.training.schedulers
import gc, importlib, json, os, signal, sys, time
from csgcnn.cli import main as cli
gc.freeze()
for line in sys.stdin:
    module, owner, name, call, signals, folder, words = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(120)
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(os.open(("out.txt", "err.txt")[stream - 1], os.O_WRONLY | os.O_CREAT), stream)
    owner = getattr(importlib.import_module(module), owner)
    real, calls = getattr(owner, name), iter(range(1, 10**6))
    def trap(*args, **kwargs):
        if next(calls) == call:
            for number in signals:
                os.kill(os.getpid(), number)
                time.sleep(0.6 * (len(signals) > 1))  # two at once count as one
        return real(*args, **kwargs)
    setattr(owner, name, trap)
    sys.exit(cli.main(words))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "CSGCNN_CACHE": str(tmp_path_factory.mktemp("cache")),
        "OMP_NUM_THREADS": "1",
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], env=environment, text=True, **pipes
    ) as process:
        yield process


@pytest.fixture
def cut_off(
    server: subprocess.Popen[str], small: list[str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Train in `tmp_path`/run, with signals sent to itself before a call of a function."""

    def train(place: str, call: int, *signals: int) -> subprocess.CompletedProcess[str]:
        words = ["train", *small, *QUICK, "hydra.run.dir=run", "resume=auto"]
        print(
            json.dumps([*place.split(":"), call, signals, str(tmp_path), words]),
            file=server.stdin,
            flush=True,
        )
        code = int(server.stdout.readline())
        said = ((tmp_path / name).read_text() for name in ("out.txt", "err.txt"))
        return subprocess.CompletedProcess(words, code, *said)

    return train


def same_run(found: Path, expected: Path, table: Table) -> None:
    """Everything but the times is the same, to the bit."""
    rows, others = ([{k: v for k, v in row.items() if k not in TIMING} for row in table(run / "metrics.csv")]
                    for run in (found, expected))  # fmt: skip
    assert rows == others
    assert (found / "predictions.csv").read_bytes() == (expected / "predictions.csv").read_bytes()
    told, other = (json.loads((run / "metrics.json").read_text()) for run in (found, expected))
    assert {k: v for k, v in told.items() if k not in TIMING} == {
        k: v for k, v in other.items() if k not in TIMING
    }
    for name in ("best.ckpt", "last.ckpt"):
        one, other = (
            load_checkpoint(run / "checkpoints" / name)["state_dict"] for run in (found, expected)
        )
        assert all(torch.equal(one[key], other[key]) for key in other)


MOMENTS = {
    "inside a batch": ("csgcnn.training.trainer:Trainer:train_step", 5),
    "inside a validation": ("csgcnn.training.trainer:Trainer:validate", 2),
    "while a file is written": ("csgcnn.io:os:fsync", 36),
    "between temporary file and rename": ("csgcnn.io:os:replace", 8),
}


@pytest.mark.parametrize("place", MOMENTS.values(), ids=MOMENTS)
def test_killed_and_continued(
    place: tuple[str, int],
    cut_off: Any,
    csgcnn: Command,
    run: Path,
    small: list[str],
    tmp_path: Path,
    table: Table,
) -> None:
    killed = cut_off(*place, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert list((tmp_path / "run" / "checkpoints").glob("*.ckpt")), (
        "it was killed late enough to have something"
    )
    answer = csgcnn("train", *small, *QUICK, "hydra.run.dir=run", "resume=auto", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert "resuming in epoch" in answer.out
    same_run(tmp_path / "run", run, table)
    assert not list((tmp_path / "run").rglob(".*.tmp")), "what the kill left is cleared away"


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)],
    ids=["TERM", "INT", "USR1"],
)
def test_signals(
    number: int, code: int, cut_off: Any, csgcnn: Command, run: Path, tmp_path: Path, table: Table
) -> None:
    stopped = cut_off("csgcnn.training.trainer:Trainer:train_step", 5, number)
    assert stopped.returncode == code, stopped.stderr
    assert "Traceback" not in stopped.stdout + stopped.stderr
    assert f"stopped by {signal.Signals(number).name} in epoch 2" in stopped.stdout
    assert (
        load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["training"]["n_done"] == 2
    )
    answer = csgcnn(
        "train", f"resume={tmp_path / 'run'}", cwd=run.parent
    )  # from elsewhere, without a further word
    assert answer.code == 0, answer.said
    same_run(tmp_path / "run", run, table)


def test_a_second_ctrl_c_stops_at_once(cut_off: Any, tmp_path: Path) -> None:
    stopped = cut_off("csgcnn.training.trainer:Trainer:train_step", 5, signal.SIGINT, signal.SIGINT)
    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stdout + stopped.stderr
    assert "stopped by" not in stopped.stdout
    assert (
        load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["training"]["n_done"] == 1
    )


def test_a_signal_before_the_training_starts(cut_off: Any, tmp_path: Path) -> None:
    stopped = cut_off("csgcnn.commands.train:GraphSettings:__post_init__", 1, signal.SIGTERM)
    assert stopped.returncode == 143, stopped.stderr
    assert "Traceback" not in stopped.stdout + stopped.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_limit_of_time(
    csgcnn: Command, small: list[str], run: Path, tmp_path: Path, table: Table
) -> None:
    words = [*small, "hydra.run.dir=run", "resume=auto"]
    for _ in range(3):
        answer = csgcnn("train", *words, "trainer.max_minutes=1e-6", cwd=tmp_path)
        assert answer.code == 75
        assert "stopped by trainer.max_minutes" in answer.out
    assert csgcnn("train", *words, cwd=tmp_path).code == 0
    same_run(tmp_path / "run", run, table)


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "train.log"
    }


def test_a_finished_run(csgcnn: Command, run: Path, small: list[str], tmp_path: Path) -> None:
    before = snapshot(run)
    for words in ([f"resume={run}"], [*small, "resume=auto", f"hydra.run.dir={run}"]):
        answer = csgcnn("train", *words, cwd=tmp_path)
        assert answer.code == 0, answer.said
        assert "nothing to do: all 3 epochs are done" in answer.out
    after = snapshot(run)
    assert {path.name for path in before if after[path] != before[path]} <= {
        "environment.json",
        "config.yaml",
    }


def test_more_epochs(csgcnn: Command, small: list[str], tmp_path: Path, table: Table) -> None:
    assert csgcnn("train", *small, "hydra.run.dir=run", cwd=tmp_path).code == 0
    before = table(tmp_path / "run" / "metrics.csv")
    answer = csgcnn("train", "resume=run", "trainer.max_epochs=5", cwd=tmp_path)
    assert answer.code == 0, answer.said
    rows = table(tmp_path / "run" / "metrics.csv")
    assert [row["epoch"] for row in rows] == list("12345")
    assert rows[:3] == before
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"] == 5


@pytest.mark.parametrize(
    ("words", "code", "told"),
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
    words: list[str], code: int, told: list[str], csgcnn: Command, run: Path, tmp_path: Path
) -> None:
    before = snapshot(run)
    answer = csgcnn("train", f"resume={run}", *words, cwd=tmp_path)
    assert answer.code == code, answer.said
    assert all(text in answer.err for text in told), answer.err
    assert snapshot(run) == before


def test_other_data_are_refused(
    csgcnn: Command, small: list[str], records: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(records))
    words = [f"dataset.path={path}", *small[1:], "hydra.run.dir=run", "resume=auto"]
    assert csgcnn("train", *words, cwd=tmp_path).code == 0
    path.write_text(json.dumps([*records[1:], records[0] | {"band_gap": 9.9}]))
    answer = csgcnn("train", *words, cwd=tmp_path)
    assert answer.code == 1
    assert "no longer the data" in answer.err


def test_what_is_no_run(csgcnn: Command, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        answer = csgcnn("train", f"resume={folder}", cwd=tmp_path)
        assert answer.code == 1
        assert f"resume={folder}: there is no run" in answer.err


def test_a_damaged_checkpoint(
    csgcnn: Command, small: list[str], run: Path, tmp_path: Path, table: Table
) -> None:
    words = [*small, "hydra.run.dir=run", "trainer.keep_last=2", "trainer.checkpoint_every=0"]
    assert csgcnn("train", *words, cwd=tmp_path).code == 0
    checkpoints = tmp_path / "run" / "checkpoints"
    kept = sorted(path.name for path in checkpoints.glob("step_*"))
    assert kept == ["step_000000008.ckpt", "step_000000009.ckpt"]
    (tmp_path / "run" / "metrics.json").unlink()
    for name in ("last.ckpt", kept[1]):
        (checkpoints / name).write_bytes((checkpoints / name).read_bytes()[:5000])
    answer = csgcnn("train", "resume=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert answer.out.count("trying an older checkpoint") == 2
    same_run(tmp_path / "run", run, table)
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


def test_a_sweep_goes_on(csgcnn: Command, small: list[str], tmp_path: Path) -> None:
    words = [
        "--multirun",
        *small,
        "trainer.max_epochs=1",
        "seed=0,1",
        "hydra.sweep.dir=sweep",
        "resume=auto",
    ]
    assert csgcnn("train", *words, cwd=tmp_path).code == 0
    for path in ("metrics.json", "predictions.csv"):
        (tmp_path / "sweep" / "1" / path).unlink()
    answer = csgcnn("train", *words, cwd=tmp_path)
    assert answer.code == 0, answer.said
    assert answer.out.count("nothing to do") == 1
    assert (tmp_path / "sweep" / "1" / "metrics.json").exists()


STORED = (
    Path(__file__).parents[1] / "runs" / "format_2.ckpt"
)  # stopped by SIGTERM in the second of three epochs
VAL_MAES = [
    1.130709,
    1.128043,
    1.086805,
]  # eV, of the run that was stopped there and continued at once


def test_a_stored_checkpoint_goes_on(csgcnn: Command, tmp_path: Path, table: Table) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(STORED.read_bytes())
    config = load_checkpoint(STORED)["config"]
    (tmp_path / "run" / "config.yaml").write_text(OmegaConf.to_yaml(config) + REPEAT)
    answer = csgcnn("train", "resume=run", cwd=tmp_path)
    assert answer.code == 0, answer.said
    found = [float(row["val_mae_band_gap"]) for row in table(tmp_path / "run" / "metrics.csv")]
    assert found == pytest.approx(
        VAL_MAES, abs=5e-4
    )  # sums in another order than in the version that wrote it


def test_a_state_that_does_not_fit_is_told(csgcnn: Command, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    content = load_checkpoint(folder / "checkpoints" / "last.ckpt")
    del content["training"]["optimizer"]
    save_checkpoint(content, folder / "checkpoints" / "last.ckpt")
    answer = csgcnn("train", f"resume={folder}", cwd=tmp_path)
    assert answer.code == 1
    assert "the state of the training is damaged" in answer.err
    assert "error.log" not in answer.said
