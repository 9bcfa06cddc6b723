"""`trainer.refit=true`: train again on training and validation rows together.

The first training chooses the epoch, the kernel of a kernel head, and the scale of standard
deviations. The refit starts anew, with the initial weights, optimizer and schedule of the first
training, and takes as many optimizer steps as led to its best epoch: after each number of steps
the learning rate is the same. It has more rows and therefore fewer, longer epochs, of which the
last may be incomplete. Its last weights are kept.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig

from csgcnn.commands.fitting import describe_training, fit, load_weights
from csgcnn.commands.prepare import Prepared, build_trainer
from csgcnn.errors import plural
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.training.checkpointing import Checkpointer
from csgcnn.training.kernel_fit import refit_kernel_head
from csgcnn.training.length import Length
from csgcnn.training.state import training_state
from csgcnn.training.trainer import Trainer

log = logging.getLogger(__name__)

# entries of metrics.json
Facts = dict[str, Any]


class Refit(NamedTuple):
    """A finished refit.

    Attributes:
        trainer: The training.
        description: Entries of a checkpoint other than weights and state.
    """

    trainer: Trainer
    description: dict[str, Any]


def refit_state(checkpoint: Mapping[str, Any] | None, first: Trainer) -> Mapping[str, Any] | None:
    """Return the state of the refit to resume, or None if it must start.

    Args:
        checkpoint: Content of the last checkpoint of the run.
        first: The first training, resumed.
    """
    state = (checkpoint or {}).get("refit")
    # another trainer.max_epochs or trainer.patience may continue the first training
    if not isinstance(state, Mapping) or not first.is_over:
        return None
    length = _length(first, first.length.n_batches)
    return state if state.get("steps") == [length.n_scheduled, length.n_steps] else None


def refit(
    cfg: DictConfig,
    data: Prepared,
    first: Checkpointer,
    state: Mapping[str, Any] | None,
    label: str,
) -> Refit:
    """Train on training and validation rows for as many steps as led to the best epoch.

    Args:
        cfg: Configuration of the training.
        data: Data of the first training.
        first: Checkpointer of the first training, which is over.
        state: State of the refit to resume, if there is one.
        label: Name of the run in messages.
    """
    state_of_first = training_state(first.trainer)
    first.trainer.replay = None  # frees the memory of recorded steps
    data = data.on_all_rows()
    description = {**describe_training(cfg, data), "data": first.description["data"]}
    torch.manual_seed(cfg.seed)
    trainer = build_trainer(cfg, data)
    trainer.set_length(_length(first.trainer, trainer.length.n_batches))
    load_weights(trainer, state, cfg)
    log.info(
        "refit on the %d training and validation crystals for %s, as many as led to epoch %d",
        len(data.split["train"]),
        plural(trainer.length.n_steps, "step"),
        first.trainer.best_epoch,
    )
    checkpointer = Checkpointer(
        first.run, trainer, description, first.interruption, first=state_of_first
    )
    fit(checkpointer, ", ".join(filter(None, [label, "refit"])))
    return Refit(trainer, description)


def _length(first: Trainer, n_batches: int) -> Length:
    """Return the length of a refit with so many steps in an epoch."""
    n_steps = first.best_epoch * first.length.n_batches
    return Length(n_batches, first.length.n_scheduled, n_steps)


def finish_refit(
    refitted: Refit, validated: CrystalGraphNetwork, facts: Facts
) -> tuple[CrystalGraphNetwork, Facts]:
    """Give the refitted network what the validation rows chose for the first one.

    Args:
        refitted: The refit.
        validated: Best network of the first training, with its kernel head and calibrated.
        facts: Entries of metrics.json about the first training.

    Returns:
        The refitted network, and the entries of metrics.json that it changes.
    """
    trainer = refitted.trainer
    network, length = trainer.evaluated, trainer.length
    network.load_state_dict(trainer.best)
    entries: Facts = {
        "refit": {
            "n_rows": len(trainer.split["train"]),
            "epochs": length.n_steps / length.n_batches,
            "steps": length.n_steps,
            "n_skipped_batches": len(trainer.guard.skipped),
            # the network of `val`, `val_score`, `std_scale` and what was chosen for `head`
            "validated": "checkpoints/validated.ckpt",
        }
    }
    if validated.kernel_head:
        entries["head"] = refit_kernel_head(trainer, validated.kernel_head, facts["head"])
    if network.has_std:
        network.std_scale.copy_(validated.std_scale)
    return network, entries
