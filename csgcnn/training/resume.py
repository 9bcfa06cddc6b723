"""Resume a run: find its last checkpoint and check that its configuration and data are the same."""

import logging
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from csgcnn.config.keys import described_key
from csgcnn.config.upgrade import complete_leaves
from csgcnn.data.dataset import Dataset
from csgcnn.data.split_files import CALIBRATION
from csgcnn.data.splits import Split
from csgcnn.errors import ConfigError, UserError
from csgcnn.runs.checkpoint import FORMAT, load_checkpoint

log = logging.getLogger(__name__)

# Format of checkpoints from which on digests of data are made of the present fingerprints.
FIRST_WITH_FINGERPRINTS = 5


def last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the content of the newest readable file in `checkpoints`, or None without any.

    Raises:
        UserError: There are checkpoints, but none that a training can resume from.
    """
    failures = []
    for path in [folder / "last.ckpt", *sorted(folder.glob("step_*.ckpt"), reverse=True)]:
        if not path.exists():
            continue
        try:
            content = load_checkpoint(path)
        except UserError as error:
            failures.append(str(error))
        else:
            if "training" in content:
                return content
            failures.append(f"{path} holds no state of a training; it can only predict")
        log.warning("%s; trying an older checkpoint", failures[-1])
    if failures:
        raise UserError(f"cannot resume: no checkpoint is usable: {failures[0]}")
    return None


def check_same_run(
    checkpoint: Mapping[str, Any], config: Mapping[str, Any], data: str, is_fold: bool = False
) -> None:
    """Check that a run is resumed with the configuration and the data that it was started with.

    Args:
        checkpoint: Content of its last checkpoint.
        config: The present configuration, plain.
        data: Digest of the present data and split.
        is_fold: Whether the run is one of several that are averaged: trainer.max_epochs and
            trainer.patience may not differ, either.

    Raises:
        ConfigError: Keys that decide on the result differ, or no longer exist.
        UserError: The data differ.
    """
    if removed := checkpoint.get("removed"):
        raise ConfigError(f"cannot resume: {'; '.join(removed)}")
    before, now = complete_leaves(checkpoint["config"]), complete_leaves(config)
    differing = [
        f"{key}={now.get(key, 'nothing')} (the run has {before.get(key, 'nothing')})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, ...) != now.get(key, ...) and not _may_differ(key, config, is_fold)
    ]
    if differing:
        more = f", and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise ConfigError(
            f"cannot resume with a different configuration: {', '.join(differing[:4])}{more}. "
            "Remove these overrides or start a new run"
        )
    if checkpoint.get("format", FORMAT) < FIRST_WITH_FINGERPRINTS:
        log.warning(
            "the run was started by an earlier version, which compared data in another way; "
            "whether they have changed is not checked"
        )
    elif checkpoint.get("data") != data:
        raise UserError(
            f"cannot resume: {config['dataset']['path']} no longer holds the data that the run was "
            "started with; start a new run"
        )


def _may_differ(name: str, config: Mapping[str, Any], is_fold: bool) -> bool:
    key = described_key(name, config)
    if key is None or (is_fold and not key.setting.averaged):
        return False
    return key.setting.effect == "execution" or key.setting.resumable


def data_digest(dataset: Dataset, split: Split) -> str:
    """Return a digest of structures, values of the targets, weights, inputs and split.

    Args:
        dataset: The data set.
        split: Rows of each part.
    """
    digest = blake2b(dataset.store.graphs.fingerprint.tobytes(), digest_size=16)
    weights = [] if dataset.weights is None else [dataset.weights]
    inputs = [] if dataset.store.inputs is None else [dataset.store.inputs]
    for tensor in (dataset.values, *weights, *inputs, *split.values()):
        digest.update(tensor.numpy().tobytes())
    if CALIBRATION in split:  # apart from the part before it
        digest.update(f"{CALIBRATION} {len(split[CALIBRATION])}".encode())
    return digest.hexdigest()
