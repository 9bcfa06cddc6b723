"""What a training and its refit have in common: description, initial weights, and the fit."""

import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from csgcnn import __version__, distributed
from csgcnn.commands.prepare import Prepared, plain
from csgcnn.commands.run_summary import learned_weights
from csgcnn.data.domain import Domain
from csgcnn.data.splits import split_ids
from csgcnn.data.training_set import plain_fingerprints
from csgcnn.errors import first_line
from csgcnn.training.checkpointing import Checkpointer, PrunedError
from csgcnn.training.divergence import DivergenceError
from csgcnn.training.progress import TrainingProgress
from csgcnn.training.resume import data_digest
from csgcnn.training.state import load_training_state
from csgcnn.training.trainer import Trainer
from csgcnn.training.transfer import initialize_from

log = logging.getLogger(__name__)


def describe_training(cfg: DictConfig, data: Prepared) -> dict[str, Any]:
    """Return what a checkpoint holds beside weights: what prediction needs, and the origin.

    Args:
        cfg: Configuration of the training.
        data: Its data.
    """
    dataset = data.dataset
    domain = Domain.of(dataset.store, data.split["train"])
    return {
        "csgcnn": __version__,
        "device": data.device.type,
        "config": OmegaConf.to_container(cfg, resolve=True),
        "targets": [target.plain() for target in dataset.targets],
        # until best.ckpt of a finished training
        "uncalibrated": [target.name for target in dataset.targets if not target.classes],
        "elements": sorted(domain.elements),
        "domain": domain.plain(),
        "fingerprints": plain_fingerprints(dataset.store, data.split["train"]),
        "split": split_ids(dataset.store, data.split),
        # a model without any can be read by earlier versions
        **({"inputs": [one.plain() for one in dataset.inputs]} if dataset.inputs else {}),
        "data": data_digest(dataset, data.split),
    }


def load_weights(trainer: Trainer, state: Mapping[str, Any] | None, cfg: DictConfig) -> None:
    """Load the state of the training to resume, or the weights of `init_from`.

    Args:
        trainer: A training that has not started.
        state: The state, if there is one.
        cfg: Configuration of the training.

    Raises:
        CollectiveError: The state is damaged.
        UserError: The weights of `init_from` do not fit.
    """
    if state is not None:
        try:
            load_training_state(trainer, state)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise distributed.CollectiveError(
                f"cannot resume: the training state is damaged: {first_line(error)}"
            ) from error
    elif cfg.init_from:
        distributed.run_on_all_ranks(lambda: initialize_from(trainer, plain(cfg)))


def fit(checkpointer: Checkpointer, label: str) -> str:
    """Train to the end; return why a trial of a search was pruned, or nothing.

    Args:
        checkpointer: Writes the checkpoints of the training.
        label: Name of the training in messages.

    Raises:
        CollectiveError: A loss or a weight is not finite.
        SystemExit: A signal was received, or the time limit is reached.
    """
    trainer = checkpointer.trainer
    try:
        with checkpointer.interruption.deferred(), TrainingProgress(trainer, label) as progress:

            def on_step() -> None:
                progress.on_step()
                checkpointer.on_step()

            trainer.fit(on_step)
            checkpointer.save()
    except PrunedError:
        return f"pruned after epoch {trainer.epoch}: other trials had better scores by then"
    except DivergenceError as error:
        run = checkpointer.run
        facts = {"epoch": error.epoch, "reason": str(error), "ids": error.culprits}
        run.write_json("diverged.json", facts)
        if checkpointer.should_prune and distributed.world_size() == 1:
            # the search continues
            return f"pruned after epoch {trainer.epoch}: {error}"
        has_checkpoint = any(run.checkpoints.iterdir())
        kept = "; the last good state is in checkpoints/" if has_checkpoint else ""
        phase = "refit: " if checkpointer.first else ""
        raise distributed.CollectiveError(
            f"{phase}{error}. The crystals of these batches are in "
            f"{run.folder / 'diverged.json'}{kept}"
        ) from error
    if trainer.settings.learn_task_weights:
        log.info("learned task weights: %s", learned_weights(trainer))
    return ""
