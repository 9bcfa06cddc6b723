"""`csgcnn train`: train a network on a data set and write the run directory."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from csgcnn import distributed
from csgcnn.commands.data_facts import data_facts
from csgcnn.commands.devices import other_device, use_present_device
from csgcnn.commands.ensemble import train_ensemble
from csgcnn.commands.finish import finish, write_pruned
from csgcnn.commands.fitting import describe_training, fit, load_weights
from csgcnn.commands.job import Job
from csgcnn.commands.prepare import Prepared, build_trainer, plain, prepare
from csgcnn.commands.ranks import follow_rank_0, leading
from csgcnn.commands.refit import refit, refit_state
from csgcnn.commands.run_summary import how_ended, summary_line
from csgcnn.commands.site_features import pin_site_features
from csgcnn.config.instantiate import instantiate
from csgcnn.config.resolved import save_resolved
from csgcnn.data.record_reports import RecordReports
from csgcnn.errors import ConfigError
from csgcnn.runs.directory import RunDirectory, finished_epochs
from csgcnn.runs.environment import environment
from csgcnn.runs.loggers.record import Records
from csgcnn.training.checkpointing import Checkpointer
from csgcnn.training.interruption import Interruption
from csgcnn.training.resume import check_same_run, last_checkpoint
from csgcnn.training.trainer import Trainer

log = logging.getLogger(__name__)

# (epoch, best score so far) -> whether to stop
ShouldPrune = Callable[[int, float], bool]


def train(cfg: DictConfig, job: Job) -> float:
    """Train one network or an ensemble; return the validation score of the best epoch.

    Args:
        cfg: Configuration of the training.
        job: Its folder. A run that is there is resumed if `resume` is set.
    """
    use_present_device(cfg, job)
    pin_site_features(cfg)
    if cfg.ensemble > 1:
        return train_ensemble(cfg, job, train_network)
    return train_network(cfg, job)


def train_network(cfg: DictConfig, job: Job) -> float:
    """Train one network in an existing folder; return the validation score of the best epoch.

    Args:
        cfg: Configuration of the training.
        job: Its folder, and the search that it belongs to.
    """
    with (
        Interruption(cfg.trainer.max_minutes) as interruption,
        Records(instantiate(cfg.logger), job.folder, plain(cfg)) as records,
        RunDirectory(job.folder, cfg.resume is not None, records) as run,
    ):
        source = job.folder if run.holds_run else None
        should_prune = _pruning(job, cfg.trainer.max_epochs)
        with leading(cfg, source):
            score = _train(cfg, run, source, interruption, should_prune, job.label)
        records.finish()
        return score


def follow() -> int:
    """Train on a rank other than 0 what rank 0 trains; return the exit code."""
    return follow_rank_0(_train)


def _train(
    cfg: DictConfig,
    run: RunDirectory,
    source: Path | None,
    interruption: Interruption,
    should_prune: ShouldPrune | None = None,
    label: str = "",
) -> float:
    """Prepare, build, fit, evaluate and write; return the score of the best epoch.

    `source` is the folder of the run to resume, if there is one; `label` names the run in messages.
    """
    start = time.perf_counter()
    data = prepare(cfg, RecordReports.within(run.folder))
    _check_search(data, should_prune)
    description = describe_training(cfg, data)
    checkpoint = distributed.run_on_all_ranks(lambda: _checkpoint(source, description))
    save_resolved(cfg, run.folder / "config.yaml")
    run.write_json("environment.json", environment(data.device))
    run.write_json("splits.json", description["split"])
    n_finished = finished_epochs(source) if source else None
    # A finished run has reported its data.
    facts = data_facts(data) if n_finished is None else {}

    torch.manual_seed(cfg.seed)
    trainer = build_trainer(cfg, data)
    load_weights(trainer, checkpoint["training"] if checkpoint else None, cfg)
    again = refit_state(checkpoint, trainer)
    is_done = bool(checkpoint) and trainer.is_over and n_finished == trainer.epoch
    _check_ranks_agree(trainer, again, description, is_done)
    if is_done:
        log.info("nothing to do: %s. Results: %s", how_ended(trainer), run.folder)
        return trainer.best_score
    if checkpoint:
        _log_resumed(trainer, again, checkpoint, run)
    facts = facts or data_facts(data)

    checkpointer = Checkpointer(run, trainer, description, interruption, should_prune)
    pruned = "" if again else fit(checkpointer, label)
    refitted = refit(cfg, data, checkpointer, again, label) if cfg.trainer.refit else None
    trainer.evaluated.load_state_dict(trainer.best)
    if pruned:
        facts = write_pruned(checkpointer, data.dataset, pruned, facts, start)
    else:
        facts = finish(cfg, data, checkpointer, refitted, facts, start)
    log.info("%s. Results: %s", summary_line(trainer, facts, cfg.recipe), run.folder)
    return trainer.best_score


def _pruning(job: Job, max_epochs: int) -> ShouldPrune | None:
    if not job.is_trial:
        return None
    # optuna is installed by an extra
    from csgcnn.search.pruning import Pruning

    return Pruning(job.folder, max_epochs, job.prune_after, job.min_trials)


def _check_search(data: Prepared, should_prune: ShouldPrune | None) -> None:
    if should_prune and not len(data.split["val"]):
        raise ConfigError("a search compares validation errors; give dataset.split.val=0.1")
    if should_prune and data.trainer.refit:
        raise ConfigError(
            "trainer.refit=true has no effect on a search, which compares validation errors; "
            "give it to the training with the best values"
        )


def _checkpoint(source: Path | None, description: Mapping[str, Any]) -> dict[str, Any] | None:
    checkpoint = last_checkpoint(source / "checkpoints") if source else None
    if checkpoint:
        check_same_run(checkpoint, description["config"], description["data"])
    return checkpoint


def _check_ranks_agree(
    trainer: Trainer,
    again: Mapping[str, Any] | None,
    description: Mapping[str, Any],
    is_done: bool,
) -> None:
    position = f"epoch {trainer.epoch}, batch {trainer.n_done}{', the end' if is_done else ''}"
    position += f", step {again['n_steps']} of the refit" if again else ""
    distributed.check_equal_on_all_ranks(
        f"data {description['data'][:8]} and {position}",
        "dataset.path and the run directory must be on a disk that all ranks see",
    )


def _log_resumed(
    trainer: Trainer,
    again: Mapping[str, Any] | None,
    checkpoint: Mapping[str, Any],
    run: RunDirectory,
) -> None:
    epoch = f"{len(again['history']) + 1} of the refit" if again else trainer.epoch + 1
    log.info("resuming in epoch %s from %s", epoch, run.checkpoints / "last.ckpt")
    if note := other_device(checkpoint["training"], trainer.store.device):
        log.warning("%s", note)
