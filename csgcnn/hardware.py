"""Device, CPU cores and rank of this process."""

import ctypes
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from csgcnn.errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

CPU_FOLDER = Path("/sys/devices/system/cpu")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


class Rank(NamedTuple):
    """Rank of this process among those that `torchrun` or `srun` started together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


def read_rank(environment: Mapping[str, str] = os.environ) -> Rank:
    """Return the rank of this process from the variables of torchrun, or of a SLURM job step.

    Args:
        environment: Environment variables.

    Returns:
        The rank; that of a single process without these variables.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        pairs = zip(names, Rank(), strict=True)
        return Rank(*(int(environment.get(name, default)) for name, default in pairs))
    world_size = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if world_size == 1 or "SLURM_PROCID" not in environment:
        return Rank()
    # "4(x2)": two nodes with 4 tasks each
    on_node = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    return Rank(
        int(environment["SLURM_PROCID"]),
        world_size,
        int(environment.get("SLURM_LOCALID", 0)),
        int(on_node[0]) if on_node else 1,
    )


def rendezvous(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return MASTER_ADDR and MASTER_PORT, at which the processes of a run connect.

    Args:
        environment: Environment variables; values given there are kept.

    Returns:
        The variables; by default the first node of the SLURM job step, or this machine.
    """
    job = int(environment.get("SLURM_JOB_ID", 0)) + int(environment.get("SLURM_STEP_ID", 0))
    address = "127.0.0.1"
    if environment.get("SLURM_STEP_NUM_NODES", "1") != "1":
        # list of nodes, such as rack1n[03-05,9]-ib,other
        nodes = environment["SLURM_STEP_NODELIST"]
        first = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\])?([^\[,]*)", nodes)
        address = "".join(first.groups(default="")) if first else address
    found = {"MASTER_ADDR": address, "MASTER_PORT": str(20_000 + job % 10_000)}
    return {name: environment.get(name, value) for name, value in found.items()}


def cores(
    local_world_size: int | None = None,
    cpus: Iterable[int] | None = None,
    cpu_folder: Path = CPU_FOLDER,
    quota: Path = CPU_QUOTA,
) -> int:
    """Return the number of physical cores that this process may use.

    Args:
        local_world_size: Processes on this node that share the cores; default: from the rank.
        cpus: Hardware threads that may be used; default: the affinity of the process.
        cpu_folder: Folder in which Linux describes the hardware threads.
        quota: File with the CPU quota of the container.
    """
    if cpus is None:
        has_affinity = hasattr(os, "sched_getaffinity")
        cpus = os.sched_getaffinity(0) if has_affinity else range(os.cpu_count() or 1)
    n_physical = len({_siblings(cpu, cpu_folder) for cpu in cpus})
    n_processes = local_world_size or read_rank().local_world_size
    return max(1, min(n_physical, _quota(quota)) // n_processes)


def keep_freed_memory() -> None:
    """Let glibc keep up to half a GiB of freed memory for the next allocation.

    A training step allocates and frees the same few dozen MiB each time. By default glibc returns
    them to the system and requests them again: a thousand page faults per step, a tenth of its
    time. Other C libraries are not changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, 2**25)  # the largest value it accepts
        mallopt(_M_TRIM_THRESHOLD, 2**29)


def _siblings(cpu: int, folder: Path) -> str:
    """Return the hardware threads that share a core with `cpu`."""
    try:
        return (folder / f"cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _quota(path: Path) -> int:
    """Return the number of cores that the container of this process may keep busy."""
    try:
        busy, period = path.read_text().split()
        return math.ceil(int(busy) / int(period))
    except (OSError, ValueError):  # another system, or no limit
        return 2**20


def select_device(
    name: str, threads: int | None = None, deterministic: bool = False
) -> "torch.device":
    """Return the device to run on, and configure torch for it.

    Args:
        name: A device, see `find_device`.
        threads: CPU threads of torch; None: the cores available to this process.
        deterministic: Whether a GPU uses deterministic algorithms; the CPU always does.

    Raises:
        ConfigError: There is no such device.
    """
    import torch  # late: commands that do not compute start without it

    torch.set_num_threads(threads or min(cores(), torch.get_num_threads()))
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(deterministic)
    return find_device(name)


def find_device(name: "str | torch.device") -> "torch.device":
    """Return a device after a check that it exists.

    Args:
        name: `auto` is the GPU if there is one; `cuda` is the GPU of this process on its node.

    Raises:
        ConfigError: There is no such device.
    """
    import torch

    kind, _, number = str(name).partition(":")
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto" and not number:
        kind = "cuda" if n_gpus else "cpu"
    if kind not in ("cpu", "cuda") or not f"{number or 0}".isdecimal():
        raise ConfigError(f"device={name}: expected auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return torch.device("cpu")
    if not n_gpus:
        raise ConfigError(f"device={name}: no GPU was found here; use cpu")
    index = int(number) if number else read_rank().local_rank % n_gpus
    if index >= n_gpus:
        first = "cuda:0" if n_gpus == 1 else f"cuda:0 to cuda:{n_gpus - 1}"
        raise ConfigError(f"device={name}: there is no such GPU here; use {first} or cpu")
    device = torch.device("cuda", index)
    try:
        torch.empty(0, device=device)
    except RuntimeError as error:
        raise ConfigError(f"device={name}: {first_line(error)}") from error
    if not number:
        torch.cuda.set_device(device)
    return device
