"""`csgcnn train init_from=CHECKPOINT`: start from the weights of another training."""

import logging
from collections.abc import Sequence

from omegaconf import DictConfig

from csgcnn.commands.prepare import plain
from csgcnn.config.paths import user_path
from csgcnn.data.targets import Target
from csgcnn.errors import UserError
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.training.trainer import Trainer
from csgcnn.training.transfer import weights_to_take

log = logging.getLogger(__name__)


def initialize_from(trainer: Trainer, cfg: DictConfig, targets: Sequence[Target]) -> None:
    """Load the weights of another training into the network, and log which.

    Args:
        trainer: A training that has not started.
        cfg: Its configuration.
        targets: Its targets.

    Raises:
        UserError: There is no such file, or its network does not fit.
    """
    if not (path := user_path(cfg.init_from)).is_file():
        raise UserError(f"init_from={path}: there is no such file")
    content, state = load_checkpoint(path), trainer.model.state_dict()
    weights, summary = weights_to_take(
        cfg.init_from, content, state, plain(cfg), targets, cfg.init_parts
    )
    trainer.initialize({name: tensor.to(state[name]) for name, tensor in weights.items()})
    parameters = list(trainer.model.parameters())
    n_frozen = sum(weight.numel() for weight in parameters if not weight.requires_grad)
    frozen = f"; {n_frozen:,} are frozen" if n_frozen else ""
    log.info("init_from=%s: %s%s", cfg.init_from, summary, frozen)
    train_ids = set(content.get("split", {}).get("train", ()))
    test_ids = [trainer.store.ids[row] for row in trainer.split["test"].tolist()]
    if n_known := sum(id_ in train_ids for id_ in test_ids):
        log.warning(
            "init_from: %d test crystals have ids of the training set of that model", n_known
        )
    other = content["config"]["graph"]
    differing = [
        f"graph.{key}={value}" for key, value in other.items() if value != cfg.graph.get(key)
    ]
    if differing:
        keys = ", ".join(differing)
        log.warning("init_from: that model was trained on other graphs: %s", keys)
