"""Run directories: never overwritten, used by one process at a time, with complete files."""

import csv
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from csgcnn.errors import UserError
from csgcnn.io import exclusive, format_cell, read_json, write_csv, write_json, writing
from csgcnn.runs.checkpoint import save_checkpoint
from csgcnn.runs.loggers.record import Records

# Files that describe a run before it has trained.
INPUTS = ("config.yaml", "environment.json", "splits.json")
WRITTEN_FIRST = {*INPUTS, "checkpoints", "rejected.csv", "warnings.csv", "train.log", ".lock"}
# Table of the epochs, which loggers record.
METRICS = "metrics.csv"


class RunDirectory:
    """The folder of one training run. While it is entered, no other process can enter it.

    Args:
        folder: An existing folder.
        may_resume: Whether it may hold a run, which is resumed.
        records: Records of the run in loggers, which get the rows of metrics.csv.

    Raises:
        UserError: When entered: it holds a run, another process has entered it, or it cannot be
            written to.
    """

    def __init__(
        self, folder: Path, may_resume: bool = False, records: Records | None = None
    ) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self._may_resume = may_resume
        self._records = records or Records({}, folder, {})
        self._is_new = False
        self._entered = ExitStack()

    def __enter__(self) -> "RunDirectory":
        busy = f"{self.folder}: another process is training there; wait for it or stop it"
        with ExitStack() as stack:
            stack.enter_context(exclusive(self.folder / ".lock", busy))
            if not self._may_resume and self.holds_run:
                raise UserError(
                    f"{self.folder} already holds a run and is not overwritten; resume it with "
                    f"csgcnn train resume={self.folder}, or choose another hydra.run.dir"
                )
            self._is_new = not self.holds_run
            self._prepare()
            self._entered = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and issubclass(kind, UserError) and self._is_new:
            self._remove_inputs()
        self._entered.close()

    def _remove_inputs(self) -> None:
        """Remove what a run that is refused has written, so that a later start finds no run."""
        if not self.checkpoints.is_dir():
            return
        if {path.name for path in self.folder.iterdir()} <= WRITTEN_FIRST and not any(
            self.checkpoints.iterdir()
        ):
            for name in INPUTS:
                (self.folder / name).unlink(missing_ok=True)
            self.checkpoints.rmdir()

    def _prepare(self) -> None:
        try:
            self.checkpoints.mkdir(exist_ok=True)
            # incomplete files of a process that was killed
            for path in (*self.folder.glob(".*.tmp"), *self.checkpoints.glob(".*.tmp")):
                path.unlink()
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror or error}") from error

    @property
    def holds_run(self) -> bool:
        """Whether a training was started in the folder."""
        return (self.folder / "config.yaml").exists()

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file; numbers that are not finite become null.

        Args:
            name: Name of the file.
            content: Its content.
        """
        write_json(self.folder / name, content)

    def write_metrics(self, rows: Sequence[Mapping[str, float]], name: str = METRICS) -> None:
        """Write a table, one row per epoch.

        Args:
            rows: The rows.
            name: Name of the file.
        """
        write_csv(self.folder / name, list(rows[0]), (row.values() for row in rows))
        if name == METRICS:
            self._records.start(rows)

    def append_metrics(self, rows: Sequence[Mapping[str, float]], name: str = METRICS) -> None:
        """Append rows to a table and flush them to the disk.

        Args:
            rows: The rows.
            name: Name of the file.

        Raises:
            UserError: The file cannot be written.
        """
        path = self.folder / name
        with writing(path), open(path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(map(format_cell, row.values()) for row in rows)
            file.flush()
            os.fsync(file.fileno())
        if name == METRICS:
            self._records.log_epochs(rows)

    def save(self, content: Mapping[str, Any], name: str) -> None:
        """Write checkpoints/NAME.ckpt.

        Args:
            content: Content of the checkpoint.
            name: Name of the file without .ckpt.
        """
        save_checkpoint(content, self.checkpoints / f"{name}.ckpt")


def finished_epochs(folder: Path) -> int | None:
    """Return the number of epochs of a finished run, as metrics.json says, or None."""
    try:
        return int(read_json(folder / "metrics.json")["epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
