"""State of a training: all that a resumed run needs to give the same result, to the bit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from csgcnn import distributed

if TYPE_CHECKING:
    from csgcnn.training.trainer import Trainer

PARTS = ("model", "loss", "average", "optimizer", "scheduler")  # with a state_dict
PROGRESS = (
    *("n_steps", "history", "best_epoch", "best_score", "best"),
    *("lr", "order", "losses", "n_done"),
)
# of a scheduler, derived from max_epochs, which may change when a run is resumed
LENGTHS = ("total_steps", "_schedule_phases")


def training_state(trainer: "Trainer") -> dict[str, Any]:
    """Return the state of a training as plain data.

    Args:
        trainer: The training, between two steps or two epochs.

    Raises:
        DivergenceError: A loss or a weight is not finite.
    """
    trainer.check_finite()
    parts = {name: getattr(trainer, name) for name in PARTS}
    states = {name: part.state_dict() for name, part in parts.items() if part is not None}
    # schedules of torch store their functions, too
    states["scheduler"] = {
        name: value for name, value in states["scheduler"].items() if not callable(value)
    }
    progress = {name: getattr(trainer, name) for name in PROGRESS}
    random = {
        name: distributed.all_gather(state)
        for name, state in _random_state(trainer.store.device).items()
    }
    return {**states, **progress, "skipped": trainer.guard.skipped, "rng": random}


def load_training_state(trainer: "Trainer", state: Mapping[str, Any]) -> None:
    """Restore a training, the random states included.

    Args:
        trainer: A new training with the same configuration.
        state: A state, as `training_state` returned it.
    """
    lengths = {
        name: value for name, value in trainer.scheduler.state_dict().items() if name in LENGTHS
    }
    for name in PARTS:
        if (part := getattr(trainer, name)) is not None:
            part.load_state_dict(state[name] | lengths if name == "scheduler" else state[name])
    trainer.labels.read_reference()
    for name in PROGRESS:
        setattr(trainer, name, state[name])
    trainer.guard.skipped = state["skipped"]
    trainer.losses = trainer.losses.to(trainer.store.device)
    states = {name: states.view(-1, states.shape[-1]) for name, states in state["rng"].items()}
    _set_random_state(states, trainer.store.device)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the random generators of this process, by type of device."""
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def _set_random_state(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set the random generators from the states of all ranks [world_size, n_bytes], by device.

    A rank without a state, because the run had fewer ranks, derives a seed from the last one.
    """
    rank = distributed.rank()
    # torch needs tensors with a storage of their own
    own = {name: ranks[min(rank, len(ranks) - 1)].clone() for name, ranks in states.items()}
    torch.set_rng_state(own["cpu"])
    if device.type == "cuda" and "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], device)
    if rank >= len(states["cpu"]):
        torch.manual_seed(int(torch.randint(2**62, ())) + rank)
