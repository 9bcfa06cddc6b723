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

# Environment variable; with the value torch, no kernels are used.
SWITCH = "CSGCNN_KERNELS"

log = logging.getLogger(__name__)


def compiled_functions(x: Tensor, training: bool) -> ModuleType | None:
    """Return `csgcnn.nn.compiled.functions` if its kernels can be used.

    They compute in single precision on the CPU, and in evaluation without gradients.

    Args:
        x: Features of atoms.
        training: Whether the network is in training.
    """
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    if not on_cpu or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return None
    if (torch.is_grad_enabled() and not training) or os.environ.get(SWITCH) == "torch":
        return None
    return _functions()


@cache
def _functions() -> ModuleType | None:
    if find_spec("numba") is None:
        return None
    try:
        functions = import_module("csgcnn.nn.compiled.functions")
        functions.start_threads()
    except (ImportError, ValueError) as error:
        log.warning("numba is installed, but cannot be used, so this is slower: %s", error)
        return None
    return functions
