"""Continuing a run: its last checkpoint, and whether it is still the same run."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from csgcnn.config.schemas import TrainerConfig
from csgcnn.config.tree import leaves
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.errors import ConfigError, UserError
from csgcnn.runs.checkpoint import load_checkpoint

log = logging.getLogger(__name__)

HARMLESS = {  # they decide how long and where a run goes on, not what it computes; data are compared by content
    "resume",
    "dataset.cache_dir",
    "dataset.hint",
    "dataset.path",
    "recipe",
    "trainer.checkpoint_every",
    "trainer.device",
    "trainer.keep_last",
    "trainer.max_epochs",
    "trainer.max_minutes",
    "trainer.progress",
    "trainer.threads",
    "trainer.workers",
}


def last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint of a training, or None if nothing was written yet.

    Raises:
        UserError: there are checkpoints, but none that can be continued.
    """
    failures = []
    for path in [folder / "last.ckpt", *sorted(folder.glob("step_*.ckpt"), reverse=True)]:
        if path.exists():
            try:
                content = load_checkpoint(path)
                if "training" in content:
                    return content
                failures.append(
                    f"{path}: written by csgcnn {content.get('csgcnn')}, it predicts but cannot be continued"
                )
            except UserError as error:
                failures.append(str(error))
            log.warning("%s; looking for an older one", failures[-1])
    if failures:
        raise UserError(f"there is no checkpoint to go on from: {failures[0]}")
    return None


def check_same_run(
    checkpoint: Mapping[str, Any],
    config: Mapping[str, Any],
    data: str,
    harmless: Collection[str] = HARMLESS,
) -> None:
    """Check that a run goes on with the configuration, but for `harmless` keys, and the data it was started with.

    Raises:
        ConfigError: keys differ that decide what is computed; it names them.
        UserError: the data differ.
    """
    newer = {
        "trainer": asdict(TrainerConfig()) | checkpoint["config"]["trainer"]
    }  # keys that came after the run
    before, now = (dict(leaves(tree)) for tree in (checkpoint["config"] | newer, config))
    differing = [
        f"{key}={_told(now, key)} (the run has {_told(before, key)})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, ...) != now.get(key, ...) and key not in harmless
    ]
    if differing:
        more = f", and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise ConfigError(
            f"a run goes on as it was started, but {', '.join(differing[:4])}{more}; "
            "leave these words out, or start another run"
        )
    if checkpoint.get("data") != data:
        raise UserError(
            f"{config['dataset']['path']} is no longer the data that the run was started with; start another run"
        )


def data_digest(dataset: Dataset, split: Split) -> str:
    """A hash of structures, target values and split."""
    digest = blake2b(dataset.store.graphs.fingerprint.tobytes(), digest_size=16)
    for tensor in (dataset.values, *split.values()):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _told(leaves: Mapping[str, Any], key: str) -> str:
    return str(leaves[key]) if key in leaves else "nothing"
