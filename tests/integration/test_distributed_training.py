"""Several processes train one model, in one run directory."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from csgcnn.cli import main as cli
from csgcnn.errors import UserError
from csgcnn.runs.checkpoint import load_checkpoint

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
QUICK = ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu"]
RANDOM = ["augment=distance_noise", "model.dropout=0.1"]

FORKS = get_context(
    "forkserver"
)  # from a process that has imported everything: torch takes seconds to import
FORKS.set_forkserver_preload(
    [
        "csgcnn.commands.train",
        "csgcnn.evaluation.plots",
        "torch._dynamo",
        "test_distributed_training",
    ]
)


class Answer(NamedTuple):
    """How a process ended, and what it said."""

    code: int | None
    out: str
    err: str


Together = Callable[..., list[Answer]]


def process(words: Sequence[str], variables: dict[str, str], cwd: Path, said: Path) -> None:
    """The command line in a process; `AT` a point, which `trap` knows, it does what `DO` says: a signal, or to fail."""
    from csgcnn.commands import prepare, train
    from csgcnn.training.trainer import Trainer

    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}.{stream}", os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.update(variables)
    steps, step, load, checkpoint = (
        iter(range(1, 10**6)),
        Trainer.train_step,
        prepare.read_dataset,
        train.last_checkpoint,
    )

    def trap(point: str) -> None:
        if point == os.environ.get("AT"):
            if os.environ["DO"] == "fail":
                raise UserError("no space left here")
            os.kill(os.getpid(), getattr(signal, os.environ["DO"]))

    def found(*args: Any) -> Any:
        return None if os.environ.get("AT") == "checkpoint" else checkpoint(*args)

    Trainer.train_step = lambda *args: (trap(f"step {next(steps)}"), step(*args))[1]  # type: ignore[method-assign]
    prepare.read_dataset = lambda *args: (load(*args), trap("load"))[0]
    train.last_checkpoint = found
    sys.exit(cli.main(words))


@pytest.fixture
def together(small: list[str], tmp_path: Path) -> Together:
    """Train in `tmp_path` with as many processes as there are sets of `variables`."""

    def train(
        *words: str,
        variables: Sequence[dict[str, str]] = ({}, {}),
        folders: Sequence[Path] = (tmp_path,) * 9,
    ) -> list[Answer]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {
            "WORLD_SIZE": str(len(variables)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        common |= {"CSGCNN_CACHE": str(tmp_path / "cache")}
        (said := tmp_path / "said").mkdir(exist_ok=True)
        flags = [word for word in words if word.startswith("-")]
        words = ("train", *flags, *small, *QUICK, *(word for word in words if word not in flags))
        started = [
            FORKS.Process(
                target=process,
                args=(words, common | own | {"RANK": str(rank)}, folder, said / f"{port} {rank}"),
            )
            for rank, (own, folder) in enumerate(zip(variables, folders, strict=False))
        ]
        for one in started:
            one.start()
        for one in started:
            one.join(60)
        endless = [rank for rank, one in enumerate(started) if one.is_alive()]
        for rank in endless:
            started[rank].kill()
        assert not endless, "these processes do not end within a minute"
        return [
            Answer(
                one.exitcode,
                *((said / f"{port} {rank}.{stream}").read_text() for stream in ("out", "err")),
            )
            for rank, one in enumerate(started)
        ]

    return train


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]


CLASSES = [
    *("dataset.targets=[band_gap,is_metal]", "dataset.derived.is_metal=band_gap < 2"),
    *("dataset.tasks.is_metal=classification", "trainer.learn_task_weights=true"),
]


@pytest.mark.parametrize("words", [[], ["model=csgann", "pooling=set2set", *CLASSES]])
def test_one_run_directory_and_every_row_once(
    words: list[str], together: Together, tmp_path: Path, table: Table
) -> None:
    # SGD enlarges no rounding, as Adam does at the start; of 48 rows, no batch can be halved, and the last has three
    words = [*words, "optimizer=sgd", "trainer.batch_size=15"]
    first, second = together(*words, "hydra.run.dir=run")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert second.out + second.err == ""
    assert {path.name for path in tmp_path.iterdir()} == {"run", "cache", "said"}
    (alone,) = together(*words, "hydra.run.dir=alone", variables=[{}])
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


def test_told_to_stop_and_continued(together: Together, tmp_path: Path) -> None:
    words = RANDOM
    assert [answer.code for answer in together(*words, "hydra.run.dir=whole")] == [0, 0]
    first, second = together(
        *words, "hydra.run.dir=run", variables=[{}, {"AT": "step 4", "DO": "SIGUSR1"}]
    )
    assert (first.code, second.code) == (75, 75), first.err + second.err
    assert "another process" in first.out
    answers = together(*words, "hydra.run.dir=run", "resume=auto")
    assert [answer.code for answer in answers] == [0, 0], answers[0].err
    assert "resuming in epoch" in answers[0].out
    one, other = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in one), (
        "dropout and noise of both processes, too"
    )


@pytest.mark.parametrize("number", [1, 3])
def test_continued_with_another_number_of_processes(
    number: int, together: Together, tmp_path: Path, table: Table
) -> None:
    both = [{"AT": "step 4", "DO": "SIGTERM"}] * 2
    assert [answer.code for answer in together("hydra.run.dir=run", variables=both)] == [143, 143]
    answers = together("hydra.run.dir=run", "resume=auto", variables=[{}] * number)
    assert [answer.code for answer in answers] == [0] * number, answers[0].err
    assert [row["epoch"] for row in table(tmp_path / "run" / "metrics.csv")] == ["1", "2", "3"]


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("point", ["load", "step 4"])
def test_one_that_dies_ends_the_run(
    point: str, victim: int, together: Together, tmp_path: Path
) -> None:
    variables: list[dict[str, str]] = [{}, {}]
    variables[victim] = {"AT": point, "DO": "SIGKILL"}
    answers = together("hydra.run.dir=run", "trainer.checkpoint_every=0", variables=variables)
    survivor = answers[1 - victim]
    assert (answers[victim].code, survivor.code) == (-signal.SIGKILL, 1)
    assert "another process of this run ended" in survivor.err
    assert len(survivor.err.splitlines()) == 1
    if (point, victim) == ("step 4", 0):
        answers = together("hydra.run.dir=run", "resume=auto")
        assert [answer.code for answer in answers] == [0, 0], answers[0].err


@pytest.mark.parametrize(
    ("victim", "does", "code"), [(0, "fail", 1), (1, "fail", 1), (1, "SIGTERM", 143)]
)
@pytest.mark.parametrize("point", ["load", "step 4"])
def test_what_only_one_meets_ends_the_sweep(
    point: str, victim: int, does: str, code: int, together: Together, tmp_path: Path
) -> None:
    variables: list[dict[str, str]] = [{}, {}]
    variables[victim] = {"AT": point, "DO": does}
    answers = together("--multirun", "seed=0,1", "hydra.sweep.dir=sweep", variables=variables)
    assert answers[victim].code == code, answers
    assert answers[1 - victim].code in (1, code)
    if does == "fail":
        assert "no space left here" in answers[0].err + answers[1].err
    assert all("Traceback" not in answer.err for answer in answers)


def test_a_sweep_goes_on_after_a_failure_of_all(together: Together, tmp_path: Path) -> None:
    first, second = together("--multirun", "optimizer.lr=1e9,0.001", "hydra.sweep.dir=sweep")
    assert (first.code, second.code, second.err) == (1, 1, ""), first.err
    assert "training diverged in epoch" in first.err
    assert (tmp_path / "sweep" / "1" / "metrics.json").exists()


def test_a_mistake_is_told_once(together: Together) -> None:
    for word, code in (
        ("dataset.path=nowhere.json", 1),
        ("modle=csgann", 2),
        ("pooling=[mean", 2),
        ("seed=-1", 2),
    ):
        first, second = together(word, "hydra.run.dir=run")
        assert (first.code, second.err) == (code, ""), first.err
        assert len(first.err.splitlines()) <= 2, first.err
        assert "Traceback" not in first.err


def test_each_has_to_find_the_same(
    together: Together, data_file: Path, records: list[Any], tmp_path: Path
) -> None:
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        (tmp_path / str(rank) / "data.json").write_text(json.dumps(records[rank:]))
    first, second = together("dataset.path=data.json", folders=[tmp_path / "0", tmp_path / "1"])
    assert (first.code, second.code) == (1, 1)
    assert "process 1: it has data" in first.err
    assert together("hydra.run.dir=run", "trainer.max_epochs=1")[0].code == 0
    first, second = together(
        "hydra.run.dir=run", "resume=auto", variables=[{}, {"AT": "checkpoint"}]
    )
    assert (first.code, second.code) == (1, 1)
    assert "must lie on a disk that all processes see" in first.err


def test_other_commands_run_alone(together: Together) -> None:
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": "1"}
    command = [sys.executable, "-m", "csgcnn", "predict", "ckpt=a", "structures=b"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "runs in one process" in answer.stderr


def test_torchrun_starts_them(small: list[str], tmp_path: Path, table: Table) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "csgcnn",
    ]
    words = [*small, *QUICK, "hydra.run.dir=run"]
    environment = os.environ | {"CSGCNN_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, "train", *words], cwd=tmp_path, env=environment, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(table(tmp_path / "run" / "metrics.csv")) == 3
