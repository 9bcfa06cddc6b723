"""What all loggers have in common."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from csgcnn.config.compose import compose
from csgcnn.errors import ConfigError
from csgcnn.runs.directory import RunDirectory
from csgcnn.runs.loggers.record import End, Records, Start, require

CONFIG = {"seed": 1, "model": {"hidden": 16}}
NAN = float("nan")


class Memory:
    """A logger that keeps what it gets."""

    def __init__(self) -> None:
        self.epochs: list[Mapping[str, float]] = []
        self.ended: list[Any] = []
        self.started: list[Any] = []

    def start(self, run: Start) -> str:
        self.started.append((run.config, run.id, run.epoch))
        return "number 7"

    def log_epoch(self, row: Mapping[str, float]) -> None:
        self.epochs.append(row)

    def finish(self, end: End) -> None:
        self.ended.append((end.metrics, [path.name for path in end.figures], end.outcome))


class Failing(Memory):
    def log_epoch(self, row: Mapping[str, float]) -> None:
        raise OSError("no network\nat all")


def rows(*epochs: int) -> list[dict[str, float]]:
    return [{"epoch": epoch, "train_loss": 1 / epoch, "val_loss": NAN} for epoch in epochs]


def train(
    folder: Path, epochs: int, done: int = 0, end: BaseException | None = None, **loggers: Any
) -> None:
    """Record a training as it is done."""
    with (
        Records(loggers, folder, CONFIG) as records,
        RunDirectory(folder, may_resume=True, records=records) as run,
    ):
        if done:
            run.write_metrics(rows(*range(1, done + 1)))
        for epoch in range(done + 1, epochs + 1):
            (run.write_metrics if epoch == 1 else run.append_metrics)(rows(epoch))
        if end is not None:
            raise end
        run.write_json("metrics.json", {"test": {"gap": {"mae": 0.5, "n": 9}}, "outcome": "ok"})
        Image.new("RGB", (4, 4)).save(folder / "parity.png")
        records.finish()


def test_a_training_is_recorded(tmp_path: Path) -> None:
    memory = Memory()
    train(tmp_path, 2, memory=memory)
    assert memory.started == [(CONFIG, None, 1)]
    # an empty cell of metrics.csv is no value
    assert memory.epochs == [
        {"epoch": 1, "train_loss": 1.0},
        {"epoch": 2, "train_loss": 0.5},
    ]
    metrics = {"test/gap/mae": 0.5, "test/gap/n": 9}
    assert memory.ended == [(metrics, ["parity.png"], "finished")]


def test_a_resumed_training_continues_its_record(tmp_path: Path) -> None:
    first, second = Memory(), Memory()
    with pytest.raises(SystemExit):
        train(tmp_path, 2, end=SystemExit(143), memory=first)
    assert first.ended == [({}, [], "stopped")]
    train(tmp_path, 3, done=2, memory=second)
    assert second.started == [(CONFIG, "number 7", 2)]
    assert [row["epoch"] for row in second.epochs] == [2, 3]


def test_a_logger_that_is_added_gets_all_epochs(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(tmp_path, 2, end=SystemExit(143))
    memory = Memory()
    train(tmp_path, 3, done=2, memory=memory)
    assert [row["epoch"] for row in memory.epochs] == [1, 2, 3]


def test_a_finished_run_is_recorded_once(tmp_path: Path) -> None:
    train(tmp_path, 2)
    memory = Memory()
    for _ in range(2):
        Records({"memory": memory}, tmp_path, CONFIG).finish()
    assert [row["epoch"] for row in memory.epochs] == [1, 2]
    assert [outcome for *_, outcome in memory.ended] == ["finished"]


def test_a_record_is_ended_if_only_what_follows_the_epochs_was_interrupted(tmp_path: Path) -> None:
    first, second = Memory(), Memory()
    with pytest.raises(SystemExit):
        train(tmp_path, 2, end=SystemExit(143), memory=first)
    (tmp_path / "metrics.json").write_text('{"epochs": 2}')
    Records({"memory": second}, tmp_path, CONFIG).finish()
    assert second.started == [(CONFIG, "number 7", 2)]
    assert second.ended == [({"epochs": 2}, [], "finished")]


def test_a_logger_that_fails_warns_once_and_the_others_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory()
    with caplog.at_level(logging.WARNING):
        train(tmp_path, 3, broken=Failing(), memory=memory)
    assert caplog.messages == [
        "logger=broken failed and records no more of this run: OSError: no network at all"
    ]
    assert len(memory.epochs) == 3
    assert json.loads((tmp_path / "metrics.json").read_text())["outcome"] == "ok"


def test_the_record_of_a_training_that_fails_is_ended(tmp_path: Path) -> None:
    memory = Memory()
    with pytest.raises(ValueError, match="diverged"):
        train(tmp_path, 1, end=ValueError("diverged"), memory=memory)
    assert memory.ended == [({}, [], "failed")]


def test_a_missing_package_is_answered_with_its_extra() -> None:
    with pytest.raises(ConfigError, match=r"logger=absent needs .* pip install 'csgcnn\[absent\]'"):
        require("absent")


def test_csv_is_the_record_of_every_run_and_a_list_adds_services() -> None:
    by_default, alone = compose("train"), compose("train", ["logger=[csv]"])
    several = compose("train", ["logger=[csv,tensorboard]"])
    assert [*by_default.logger] == [*alone.logger] == []
    assert [*several.logger] == ["tensorboard"]
