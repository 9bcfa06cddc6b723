"""What a run leaves behind: one folder that is never overwritten, every file whole."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from csgcnn.errors import UserError
from csgcnn.io import write_csv, write_json
from csgcnn.runs.checkpoint import save_checkpoint
from csgcnn.runs.tables import short_cell


class RunDirectory:
    """The folder of one training run; while it is entered, no other process can enter it.

    `may_resume`: it may hold a run already, which is to be continued.

    Raises:
        UserError: the folder already holds a run, or another process is at work there.
    """

    def __init__(self, folder: Path, may_resume: bool = False) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self._may_resume = may_resume
        self._lock = FileLock(
            folder / ".lock", timeout=0
        )  # released by the system if the process dies

    def __enter__(self) -> "RunDirectory":
        try:
            self._lock.acquire()
            if not self._may_resume and self.holds_run:
                raise UserError(
                    f"{self.folder} already holds a run, which is never overwritten: continue it with "
                    f"csgcnn train resume={self.folder}, or choose another hydra.run.dir"
                )
            self.checkpoints.mkdir(exist_ok=True)
            for path in (*self.folder.glob(".*.tmp"), *self.checkpoints.glob(".*.tmp")):
                path.unlink()  # half-written by a process that was killed
        except Timeout:
            raise UserError(
                f"{self.folder}: another process is training there, wait for it or stop it"
            ) from None
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror or error}") from error
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def holds_run(self) -> bool:
        """Whether a training started here."""
        return (self.folder / "config.yaml").exists()

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file; numbers that are not finite become null, as JSON knows none."""
        write_json(self.folder / name, content)

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Make metrics.csv of these rows, one per epoch."""
        write_csv(self.folder / "metrics.csv", list(rows[0]), map(_cells, rows))

    def append_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Add rows to metrics.csv, on the disk at once."""
        path = self.folder / "metrics.csv"
        try:
            with open(path, "a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(map(_cells, rows))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error

    def save(self, content: Mapping[str, Any], name: str) -> None:
        """Write a checkpoint."""
        save_checkpoint(dict(content), self.checkpoints / f"{name}.ckpt")


def finished_epochs(folder: Path) -> int | None:
    """After how many epochs the run in `folder` ended that metrics.json tells of, if there is one."""
    try:
        return int(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cells(row: Mapping[str, float]) -> list[Any]:
    return list(map(short_cell, row.values()))
