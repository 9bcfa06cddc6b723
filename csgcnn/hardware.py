"""Where this process runs: which of how many it is, and how many cores it has for itself."""

import ctypes
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from csgcnn.errors import ConfigError

if TYPE_CHECKING:
    import torch

_CPUS = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


class Rank(NamedTuple):
    """The place of this process among those that `torchrun` or `srun` started together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those of this node
    local_size: int = 1


def launch(environment: Mapping[str, str] = os.environ) -> Rank:
    """Read the place from the variables of torchrun, else from those of a SLURM job step; else it is alone."""
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Rank(
            *(
                int(environment.get(name, default))
                for name, default in zip(names, Rank(), strict=True)
            )
        )
    size = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if size > 1 and "SLURM_PROCID" in environment:
        here = re.match(
            r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
        )  # 4(x2): on two nodes, 4 each
        local_size = int(here[0]) if here else 1
        return Rank(
            int(environment["SLURM_PROCID"]),
            size,
            int(environment.get("SLURM_LOCALID", 0)),
            local_size,
        )
    return Rank()


def meeting_point(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Address and port of the first process, as given, or on the first node of a SLURM job step."""
    job = int(environment.get("SLURM_JOB_ID", 0)) + int(environment.get("SLURM_STEP_ID", 0))
    address = "127.0.0.1"
    if environment.get("SLURM_STEP_NUM_NODES", "1") != "1":
        # its list of nodes: rack1n[03-05,9]-ib,other
        first = re.match(
            r"([^\[,]+)(?:\[(\d+)[^\]]*\])?([^\[,]*)", environment["SLURM_STEP_NODELIST"]
        )
        address = "".join(first.groups(default="")) if first else address
    found = {"MASTER_ADDR": address, "MASTER_PORT": str(20_000 + job % 10_000)}
    return {name: environment.get(name, value) for name, value in found.items()}


def cores() -> int:
    """Cores that this process may use: its share of the physical ones, within its affinity and its container."""
    usable = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    physical = len({_siblings(cpu) for cpu in usable})
    return max(1, min(physical, _quota()) // launch().local_size)


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, up to half a GiB, for the next allocation.

    A training step allocates and frees the same few dozen MiB each time. By default glibc hands them back to the system
    and asks for them again, a thousand page faults a step: a tenth of its time. Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most it takes
        mallopt(_M_TRIM_THRESHOLD, 2**29)


def _siblings(cpu: int) -> str:
    """The hardware threads that share the core of `cpu`."""
    try:
        return (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """The most cores that the container of this process may keep busy."""
    try:
        busy, period = _QUOTA.read_text().split()
        return math.ceil(int(busy) / int(period))
    except (OSError, ValueError):  # another system, or no limit
        return 2**20


def select_device(
    name: str, threads: int | None = None, deterministic: bool = False
) -> "torch.device":
    """The device to run on; `auto` is the GPU where there is one, `cuda` this process's among those of its node.

    `threads` of the CPU; None: the cores that this process has for itself.

    `deterministic`: of several algorithms the GPU takes one that always gives the same bytes, as the CPU always does.

    Raises:
        ConfigError: there is no such device.
    """
    import torch  # late: commands that do not compute start without it

    torch.set_num_threads(threads or min(cores(), torch.get_num_threads()))
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(deterministic)
    try:
        device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
        )
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", launch().local_rank % torch.cuda.device_count())
            torch.cuda.set_device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: {str(error).splitlines()[0]}") from error
    return device
