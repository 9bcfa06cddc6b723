"""`csgcnn train init_from=CHECKPOINT`: a training that begins with the weights of another."""

import logging
from collections.abc import Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from csgcnn.config.paths import user_path
from csgcnn.data.targets import Target
from csgcnn.errors import UserError
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.training.trainer import Trainer
from csgcnn.training.transfer import weights_to_take

log = logging.getLogger(__name__)


def initialize_from(trainer: Trainer, cfg: DictConfig, targets: Sequence[Target]) -> None:
    """Take the weights over from another training, and say which."""
    if not (path := user_path(cfg.init_from)).is_file():
        raise UserError(f"init_from={path}: there is no such file")
    content, config = load_checkpoint(path), cast(Any, OmegaConf.to_container(cfg, resolve=True))
    state = trainer.model.state_dict()
    weights, told = weights_to_take(cfg.init_from, content, state, config, targets, cfg.init_parts)
    trainer.initialize_from({name: tensor.to(state[name]) for name, tensor in weights.items()})
    n_frozen = sum(
        weight.numel() for weight in trainer.model.parameters() if not weight.requires_grad
    )
    log.info(
        "init_from=%s: %s%s",
        cfg.init_from,
        told,
        f"; {n_frozen:,} stay as they are" if n_frozen else "",
    )
    trained = set(content.get("split", {}).get("train", ()))
    if n_known := sum(trainer.store.ids[row] in trained for row in trainer.split["test"].tolist()):
        log.warning(
            "init_from: %d test crystals have ids of crystals that trained that model", n_known
        )
    theirs = content["config"]["graph"]
    if differing := [
        f"graph.{key}={value}" for key, value in theirs.items() if value != cfg.graph.get(key)
    ]:
        log.warning("init_from: that training had other graphs, %s", ", ".join(differing))
