"""Versions, device and extras, for bug reports."""

import platform
import re
from importlib.metadata import PackageNotFoundError, requires

from csgcnn.runs.environment import version_of

LIBRARIES = (
    *("torch", "torch-geometric", "pymatgen", "spglib", "numpy", "hydra-core", "omegaconf"),
    *("matplotlib", "safetensors", "tqdm"),
)


def environment_lines() -> list[str]:
    """Return a line for each library, the device and the extras."""
    lines = [f"python {platform.python_version()} ({platform.platform()})"]
    lines += [f"{name} {version_of(name) or 'not installed'}" for name in LIBRARIES]
    return [*lines, f"device {_device()}", f"extras {', '.join(installed_extras()) or 'none'}"]


def installed_extras(package: str = "csgcnn") -> list[str]:
    """Return the extras of a package of which all requirements are installed."""
    extras: dict[str, list[str]] = {}
    try:
        requirements = requires(package) or []
    except PackageNotFoundError:
        return []
    for text in requirements:
        name, extra = re.match(r"[\w.-]+", text), re.search(r"extra\s*==\s*['\"]([\w-]+)", text)
        if name and extra and name[0] != package:
            extras.setdefault(extra[1], []).append(name[0])
    return sorted(extra for extra, names in extras.items() if all(map(version_of, names)))


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"CPU, {torch.get_num_threads()} threads"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
