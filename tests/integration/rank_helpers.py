"""Train with several ranks, each of them a process."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from csgcnn.cli import main as cli
from csgcnn.errors import UserError

QUICK = ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu", "trainer.figures=false"]

# Forks of a process that has imported everything: importing torch takes seconds.
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["csgcnn.commands.train", "torch._dynamo", "rank_helpers"])


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


def train_on_ranks(
    folder: Path,
    small: list[str],
    *overrides: str,
    variables: Sequence[dict[str, str]] = ({}, {}),
    folders: Sequence[Path] = (),
) -> list[Answer]:
    """Train with one rank for each set of variables, in `folder` or each in one of `folders`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(len(variables)), "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": port, "CSGCNN_CACHE": str(folder / "cache")}
    (output := folder / "output").mkdir(exist_ok=True)
    flags = [text for text in overrides if text.startswith("-")]
    rest = [text for text in overrides if text not in flags]
    command = ("train", *flags, *small, *QUICK, *rest)
    started = []
    for rank, own in enumerate(variables):
        cwd = folders[rank] if folders else folder
        environment = common | own | {"RANK": str(rank)}
        arguments = (command, environment, cwd, output / f"{port}-{rank}")
        started.append(FORKS.Process(target=process, args=arguments))
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
