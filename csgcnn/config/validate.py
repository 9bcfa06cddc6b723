"""Check a composed configuration before anything is built."""

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from csgcnn.config.tree import leaves
from csgcnn.config.values import RENAMED_TARGETS, check_values
from csgcnn.errors import ConfigError, nearest

TRAIN_SECTIONS = (
    "trainer graph dataset model edge_calculator node_features pooling loss optimizer scheduler"
)


def validate(cfg: DictConfig) -> None:
    """Check that everything is given and that the values make sense, whichever command `cfg` belongs to.

    Raises: ConfigError, which names the key, its value and what was expected.
    """
    _require_values(cfg)
    for section in TRAIN_SECTIONS.split() if "trainer" in cfg else ():
        if not isinstance(cfg.get(section), DictConfig):
            raise ConfigError(
                f"{section}={cfg.get(section)}: expected an option or keys, see --help"
            )
    for key, value in leaves(_plain(cfg)):
        if isinstance(value, str) and value in RENAMED_TARGETS and key.endswith("._target_"):
            OmegaConf.update(cfg, key, RENAMED_TARGETS[value])
    check_values(_plain(cfg))
    if "graph" in cfg:
        _validate_vectors(cfg)
    if "loss" in cfg:
        _validate_std(cfg)
    if OmegaConf.select(cfg, "trainer.freeze_body") and not cfg.init_from:
        raise ConfigError(
            "trainer.freeze_body=true: expected init_from=CHECKPOINT with it, whose body stays as it is"
        )
    if "dataset" in cfg:
        _validate_split(cfg.dataset.split)
        _validate_tasks(cfg)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).partition("\n")[0]) from error


def _validate_vectors(cfg: DictConfig) -> None:
    if cfg.graph.vectors and cfg.graph.compress:
        raise ConfigError(
            "graph.vectors=true: expected graph.compress=false with it, for merged edges have no direction"
        )
    if "coordinate_noise" in cfg.get("augment", ()) and not cfg.graph.vectors:
        raise ConfigError(
            "augment=coordinate_noise: expected graph.vectors=true graph.compress=false, as it sets them"
        )


def _validate_std(cfg: DictConfig) -> None:
    is_likelihood = str(cfg.loss.get("_target_")).endswith(".Likelihood")
    if is_likelihood != bool(cfg.model.get("predict_std")):
        raise ConfigError(
            f"model.predict_std={str(not is_likelihood).lower()}: expected true with loss=gaussian and loss=laplace, "
            "which set it, and false with every other loss"
        )


def _require_values(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        wanted = ", ".join(f"{key}=…" for key in missing)
        hint = f" ({cfg.dataset.hint})" if "dataset.path" in missing and cfg.dataset.hint else ""
        raise ConfigError(f"please give {wanted}{hint}")


def _validate_split(split: DictConfig) -> None:
    key = "dataset.split"
    total = split.train + split.val + split.test
    if split.method in ("random", "group") and total > 1 + 1e-9:
        raise ConfigError(f"{key}: train + val + test = {total:g}, expected at most 1")
    if split.method in ("group", "column", "fold") and not split.column:
        raise ConfigError(f"{key}.method={split.method} needs the name of a column: {key}.column=…")
    if split.method == "file" and not split.file:
        raise ConfigError(f"{key}.method=file needs a split file: {key}.file=…")
    if split.stratify and split.method not in ("random", "matbench"):
        raise ConfigError(
            f"{key}.stratify={split.stratify}: for {key}.method=random or matbench, not {split.method}"
        )


def _validate_tasks(cfg: DictConfig) -> None:
    tasks = ("regression", "classification")
    for name, task in cfg.dataset.tasks.items():
        if task not in tasks:
            raise ConfigError(
                f"dataset.tasks.{name}={task}: expected {' or '.join(tasks)}{nearest(str(task), tasks)}"
            )
    for name, weight in cfg.dataset.task_weights.items():
        if not 0 < weight < math.inf:
            raise ConfigError(f"dataset.task_weights.{name}={weight}: expected a number above 0")
    if cfg.dataset.task_weights and OmegaConf.select(cfg, "trainer.learn_task_weights"):
        raise ConfigError(
            "trainer.learn_task_weights=true learns the weights: leave dataset.task_weights out"
        )
