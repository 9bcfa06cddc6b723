"""What a run leaves behind: one folder that is never overwritten, every file whole."""

import csv
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from csgcnn.errors import UserError
from csgcnn.training.checkpoint import write_atomically

PACKAGES = ("csgcnn", "torch", "torch-geometric", "pymatgen", "numpy", "hydra-core", "omegaconf")
JOB_VARIABLES = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "PBS_JOBID", "LSB_JOBID")


class RunDirectory:
    """The folder of one training run.

    Raises:
        UserError: the folder already holds a run.
    """

    def __init__(self, folder: Path) -> None:
        if (folder / "config.yaml").exists():
            raise UserError(f"{folder} already holds a run; it is never overwritten: choose another hydra.run.dir")
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._columns: list[str] = []

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file; numbers that are not finite become null, as JSON knows none."""
        strict = json.loads(json.dumps(content), parse_constant=lambda _: None)
        text = json.dumps(strict, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.folder / name, lambda file: file.write(text.encode()))

    def append_metrics(self, row: Mapping[str, float]) -> None:
        """Add the row of an epoch to metrics.csv, on the disk before the next epoch starts."""
        with open(self.folder / "metrics.csv", "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if not self._columns:
                self._columns = list(row)
                writer.writeheader()
            writer.writerow({name: _short(value) for name, value in row.items()})
            file.flush()
            os.fsync(file.fileno())


def write_predictions(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a csv of predictions."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([[_short(value) for value in row] for row in rows])


def rejected_path(output: Path) -> Path:
    """Where the records rejected on the way to `output` are listed: predictions.csv -> predictions.rejected.csv."""
    return output.parent / (output.name.removesuffix(".csv") + ".rejected.csv")


def with_unit(name: str, unit: str) -> str:
    """A column header or axis label: `band_gap [eV]`."""
    return f"{name} [{unit}]" if unit else name


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return "" if value != value else f"{value:.7g}"
    return value


def environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a run was made: versions, device, commit, host, scheduler job, command line."""
    return {
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type,
        "threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "job": {name: os.environ[name] for name in JOB_VARIABLES if name in os.environ},
    }


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
