"""Message passing on the CPU with kernels that numba compiles (extra `fast`).

A step on a CPU is limited by memory: each operator of torch passes over [n_edges, size] arrays
once. The kernels go from atom to atom and do all that a row is needed for while it is in the cache.
"""

import logging
import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from csgcnn.errors import ConfigError, first_line

# Environment variable: torch or numba (the default).
SWITCH = "CSGCNN_KERNELS"

log = logging.getLogger(__name__)


def compiled_functions(x: Tensor, training: bool) -> ModuleType | None:
    """Return `csgcnn.nn.compiled.functions` if its kernels can be used.

    They compute in single precision on the CPU, and in evaluation without gradients.

    Args:
        x: Features of atoms.
        training: Whether the norm of the messages is in training.

    Raises:
        ConfigError: The environment variable has another value than torch or numba.
    """
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    if not on_cpu or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return None
    if (torch.is_grad_enabled() and not training) or not _switched_on():
        return None
    functions = _functions()
    # GNU OpenMP ends a forked process that uses the threads of its parent.
    return functions if functions and os.getpid() == functions.PROCESS else None


def _switched_on() -> bool:
    value = os.environ.get(SWITCH) or "numba"
    if value not in ("numba", "torch"):
        raise ConfigError(f"environment variable {SWITCH}={value}: expected torch or numba")
    return value == "numba"


@cache
def _functions() -> ModuleType | None:
    try:
        if find_spec("numba") is None:
            return None
        functions = import_module("csgcnn.nn.compiled.functions")
        functions.start_threads()
    # A broken installation raises errors of any kind; RuntimeError: no folder for the cache.
    except Exception as error:
        log.warning(
            "numba is installed, but cannot be used, so this is slower: %s. If it cannot cache, "
            "set NUMBA_CACHE_DIR to a writable folder. %s=torch silences this",
            first_line(error),
            SWITCH,
        )
        return None
    return functions
