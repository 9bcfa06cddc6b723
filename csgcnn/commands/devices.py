"""Resume a run on another kind of device than the one that started it."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig

from csgcnn.commands.job import Job
from csgcnn.config.given import given_keys
from csgcnn.errors import ConfigError
from csgcnn.hardware import find_device

log = logging.getLogger(__name__)

KEY = "trainer.device"


def use_present_device(cfg: DictConfig, job: Job) -> None:
    """Resume on another device if the one that the run names does not exist here.

    A device that the command line names must exist.

    Args:
        cfg: Configuration of the training, which is changed.
        job: Its folder and overrides.
    """
    is_resumed = cfg.resume is not None and (job.folder / "config.yaml").exists()
    if KEY in given_keys(job.overrides) or not is_resumed:
        return
    try:
        find_device(cfg.trainer.device)
    except ConfigError:
        log.warning(
            "the run names %s=%s, which is not available here; the run continues on %s",
            KEY,
            cfg.trainer.device,
            find_device("auto"),
        )
        cfg.trainer.device = "auto"


def other_device(training: Mapping[str, Any], device: torch.device) -> str:
    """Return a note if a training was on a GPU so far and continues on the CPU, or the reverse.

    Args:
        training: State of the training, from its last checkpoint.
        device: Device on which it continues.
    """
    names = {True: "a GPU", False: "the CPU"}
    before, now = names["cuda" in training["rng"]], names[device.type == "cuda"]
    if before == now:
        return ""
    return f"the run was on {before} so far and continues on {now}; numbers differ by rounding"
