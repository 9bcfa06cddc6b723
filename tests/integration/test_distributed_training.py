"""Several ranks train one model in one run directory."""

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

pytestmark = pytest.mark.slow

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
QUICK = ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu", "trainer.figures=false"]
RANDOM = ["augment=distance_noise", "model.dropout=0.1"]

# Forks of a process that has imported everything: importing torch takes seconds.
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(
    ["csgcnn.commands.train", "torch._dynamo", "test_distributed_training"]
)


class Answer(NamedTuple):
    """Exit code and output of a process."""

    code: int | None
    out: str
    err: str


TrainOnRanks = Callable[..., list[Answer]]


def process(overrides: Sequence[str], variables: dict[str, str], cwd: Path, output: Path) -> None:
    """Run a command line as one rank.

    The variable EVENT names a point of the training: "load", "step N" or "checkpoint". There the
    rank does what ACTION says: raise an error ("fail"), send itself a signal, or not find the
    checkpoint.
    """
    from csgcnn.commands import prepare, train
    from csgcnn.training.trainer import Trainer

    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}.{stream}", os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.update(variables)
    event, action = os.environ.get("EVENT"), os.environ.get("ACTION", "")
    steps = iter(range(1, 10**6))
    step, read, last = Trainer.train_step, prepare.read_dataset, train.last_checkpoint

    def reach(point: str) -> None:
        if point == event and action == "fail":
            raise UserError("no space left here")
        if point == event:
            os.kill(os.getpid(), getattr(signal, action))

    def train_step(*args: Any) -> Any:
        reach(f"step {next(steps)}")
        return step(*args)

    def read_dataset(*args: Any) -> Any:
        dataset = read(*args)
        reach("load")
        return dataset

    Trainer.train_step = train_step  # type: ignore[method-assign]
    prepare.read_dataset = read_dataset
    train.last_checkpoint = lambda *args: None if event == "checkpoint" else last(*args)
    sys.exit(cli.main(overrides))


@pytest.fixture
def train_on_ranks(small: list[str], tmp_path: Path) -> TrainOnRanks:
    """Train in `tmp_path` with one rank for each set of variables."""

    def train(
        *overrides: str,
        variables: Sequence[dict[str, str]] = ({}, {}),
        folders: Sequence[Path] = (tmp_path,) * 9,
    ) -> list[Answer]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"WORLD_SIZE": str(len(variables)), "MASTER_ADDR": "127.0.0.1"}
        common |= {"MASTER_PORT": port, "CSGCNN_CACHE": str(tmp_path / "cache")}
        (output := tmp_path / "output").mkdir(exist_ok=True)
        flags = [text for text in overrides if text.startswith("-")]
        rest = [text for text in overrides if text not in flags]
        overrides = ("train", *flags, *small, *QUICK, *rest)
        ranks = list(enumerate(zip(variables, folders, strict=False)))
        started = [
            FORKS.Process(
                target=process,
                args=(
                    overrides,
                    common | own | {"RANK": str(rank)},
                    folder,
                    output / f"{port}-{rank}",
                ),
            )
            for rank, (own, folder) in ranks
        ]
        for one in started:
            one.start()
        for one in started:
            one.join(60)
        hanging = [rank for rank, one in enumerate(started) if one.is_alive()]
        for rank in hanging:
            started[rank].kill()
        assert not hanging, "these ranks do not end within a minute"
        return [
            Answer(
                one.exitcode,
                *((output / f"{port}-{rank}.{stream}").read_text() for stream in ("out", "err")),
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


@pytest.mark.parametrize("overrides", [[], ["model=csgann", "pooling=set2set", *CLASSES]])
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


def test_other_commands_run_in_one_process(train_on_ranks: TrainOnRanks) -> None:
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": "1"}
    command = [sys.executable, "-m", "csgcnn", "predict", "ckpt=a", "structures=b"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "runs in one process" in answer.stderr


def test_torchrun(small: list[str], tmp_path: Path, table: Table) -> None:
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
