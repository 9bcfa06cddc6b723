"""What a run leaves behind: one folder that is never overwritten, every file whole."""

import csv
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from csgcnn import processes
from csgcnn.errors import UserError
from csgcnn.files import write_csv, write_json
from csgcnn.training.checkpoint import save_checkpoint

PACKAGES = ("csgcnn", "torch", "torch-geometric", "pymatgen", "numpy", "hydra-core", "omegaconf")
JOB_VARIABLES = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "PBS_JOBID", "LSB_JOBID")


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
        self._lock = FileLock(folder / ".lock", timeout=0)  # released by the system if the process dies

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
            raise UserError(f"{self.folder}: another process is training there, wait for it or stop it") from None
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


def write_predictions(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a csv of predictions."""
    write_csv(path, header, (list(map(_short, row)) for row in rows))


def rejected_path(output: Path) -> Path:
    """Where the records rejected on the way to `output` are listed: predictions.csv -> predictions.rejected.csv."""
    return output.parent / (output.name.removesuffix(".csv") + ".rejected.csv")


def with_unit(name: str, unit: str) -> str:
    """A column header or axis label: `band_gap [eV]`."""
    return f"{name} [{unit}]" if unit else name


def _cells(row: Mapping[str, float]) -> list[Any]:
    return list(map(_short, row.values()))


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return "" if value != value else f"{value:.7g}"
    return value


def environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a run was made: versions, device, commit, host, scheduler job, command line."""
    return {
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor() or device.type,
        "threads": torch.get_num_threads(),
        "processes": processes.size(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "job": {name: os.environ[name] for name in JOB_VARIABLES if name in os.environ},
    }


def _processor() -> str:
    """The name of the CPU, where the system tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a bare checkout
        return None


def _git_commit() -> str | None:
    """Commit of the checkout that the code runs from, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
