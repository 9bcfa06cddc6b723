"""Describe the environment of a run."""

import os
import platform
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from csgcnn import distributed

PACKAGES = ("csgcnn", "torch", "torch-geometric", "pymatgen", "numpy", "hydra-core", "omegaconf")


JOB_VARIABLES = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "PBS_JOBID", "LSB_JOBID")


def environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a run was made: versions, device, commit, host, scheduler job, command line."""
    return {
        "command": sys.argv,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else _processor() or device.type,
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
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
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
    ]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
