"""The last line of a training: how long it was and how it ended."""

from collections.abc import Mapping
from typing import Any, cast

from omegaconf import OmegaConf

from csgcnn.config.locations import CONF
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.errors import plural
from csgcnn.training.losses import MultiTaskLoss
from csgcnn.training.progress import readable_time
from csgcnn.training.trainer import Trainer

# The rate at the end of a schedule that has ended, as a fraction of the highest rate.
ENDED = 1e-2


def summary_line(trainer: Trainer, facts: Mapping[str, Any], recipe: str | None) -> str:
    """Return the number of epochs, the time, the best epoch, and how the training ended.

    Args:
        trainer: The training that has ended.
        facts: Entries `outcome` and `seconds` of metrics.json.
        recipe: Name of the recipe.
    """
    best = f"; best epoch {trainer.best_epoch}" if len(trainer.split["val"]) else ""
    epochs = plural(trainer.epoch, "epoch")
    parts = [f"trained {epochs} in {readable_time(facts['seconds'])}{best}"] * bool(trainer.epoch)
    if trainer.epoch and (refit := facts.get("refit")):
        parts.append(f"refit on {refit['n_rows']} crystals for {plural(refit['steps'], 'step')}")
    if head := facts.get("head"):
        n_rows = max(found["n_rows"] for found in head["targets"].values())
        fitted = f"head={head['option']} fitted to {plural(n_rows, 'crystal')}"
        parts.append(f"{fitted} in {readable_time(head['seconds'])}")
    if facts["outcome"] != "finished":
        parts.append(facts["outcome"])
    elif trainer.epoch < trainer.settings.max_epochs:
        idle = plural(trainer.settings.patience or 0, "epoch")
        parts.append(f"stopped early, {idle} brought no improvement (trainer.patience)")
    elif 0 < trainer.epoch < (usual := recipe_epochs(recipe) or 0):
        highest = max(row["lr"] for row in trainer.history)
        has_ended = trainer.optimizer.param_groups[0]["lr"] <= ENDED * highest
        ended = "the schedule has ended; " if has_ended else ""
        parts.append(f"{ended}the recipe has {usual} epochs")
    return "; ".join(parts)


def how_ended(trainer: Trainer) -> str:
    """Return why a finished training has nothing to do."""
    if trainer.ended_by == "trainer.max_epochs":
        return f"all {trainer.epoch} epochs are done"
    patience, key = trainer.settings.patience, "trainer.patience"
    return (
        f"the run ended after epoch {trainer.epoch}, because {key}={patience} epochs brought no "
        f"improvement over epoch {trainer.best_epoch}; a larger {key} continues it"
    )


def recipe_epochs(name: str | None) -> int | None:
    """Return the epochs of an included recipe, or None for another one."""
    path = CONF / "recipe" / f"{name}.yaml"
    if not path.is_file():
        return None
    epochs = OmegaConf.select(OmegaConf.load(path), "trainer.max_epochs")
    return epochs or TrainerSettings().max_epochs


def learned_weights(trainer: Trainer) -> str:
    """Return the learned weight of each target in words."""
    weights = cast(MultiTaskLoss, trainer.loss).task_weights.tolist()
    learned = zip(trainer.targets, weights, strict=True)
    return ", ".join(f"{target.name} {weight:.3g}" for target, weight in learned)
