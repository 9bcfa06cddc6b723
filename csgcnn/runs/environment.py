"""The environment of a run, for environment.json."""

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
    """Return command line, versions, device, threads, host, commit and scheduler job of a run."""
    is_gpu = device.type == "cuda"
    return {
        "command": sys.argv,
        "versions": {
            "python": platform.python_version(),
            **{name: version_of(name) for name in PACKAGES},
        },
        "device": torch.cuda.get_device_name(device) if is_gpu else _processor() or device.type,
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "job": {name: os.environ[name] for name in JOB_VARIABLES if name in os.environ},
    }


def _processor() -> str:
    """Return the name of the CPU, or nothing if the operating system does not give it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def version_of(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the checkout that the code runs from, if it is one."""
    folder = str(Path(__file__).parent)
    command = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
