"""`csgcnn train`: train a network on a data set and write the run directory."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from csgcnn import __version__, distributed
from csgcnn.commands.devices import other_device, use_present_device
from csgcnn.commands.ensemble import train_ensemble
from csgcnn.commands.job import Job
from csgcnn.commands.prepare import Prepared, build_trainer, plain, prepare, report_data
from csgcnn.commands.ranks import follow_rank_0, leading
from csgcnn.commands.run_summary import how_ended, learned_weights, summary_line
from csgcnn.commands.site_features import pin_site_features
from csgcnn.config.resolved import save_resolved
from csgcnn.data.dataset import Dataset
from csgcnn.data.domain import Domain
from csgcnn.data.record_reports import RecordReports
from csgcnn.data.splits import split_ids
from csgcnn.data.training_set import plain_fingerprints
from csgcnn.errors import ConfigError, first_line
from csgcnn.evaluation.calibration import calibrate
from csgcnn.evaluation.unit_metrics import reported_metrics
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.runs.directory import RunDirectory, finished_epochs
from csgcnn.runs.environment import environment
from csgcnn.runs.results import draw_learning_curve, write_results
from csgcnn.training.checkpointing import Checkpointer, PrunedError
from csgcnn.training.divergence import DivergenceError
from csgcnn.training.interruption import Interruption
from csgcnn.training.kernel_fit import fit_kernel_head
from csgcnn.training.progress import TrainingProgress
from csgcnn.training.resume import check_same_run, data_digest, last_checkpoint
from csgcnn.training.state import load_training_state
from csgcnn.training.trainer import Trainer
from csgcnn.training.transfer import initialize_from

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
        RunDirectory(job.folder, may_resume=cfg.resume is not None) as run,
    ):
        source = job.folder if run.holds_run else None
        should_prune = _pruning(job, cfg.trainer.max_epochs)
        with leading(cfg, source):
            return _train(cfg, run, source, interruption, should_prune, job.label)


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
    description = _description(cfg, data)
    checkpoint = distributed.run_on_all_ranks(lambda: _checkpoint(source, description))
    _write_inputs(run, cfg, data, description)
    was_finished = source is not None and finished_epochs(source) is not None
    # A finished run has reported its data.
    facts = {} if was_finished else report_data(data)

    torch.manual_seed(cfg.seed)
    trainer = build_trainer(cfg, data)
    _load_weights(trainer, checkpoint, cfg)
    is_done = _is_done(trainer, source if checkpoint else None)
    _check_ranks_agree(trainer, description, is_done)
    if is_done:
        log.info("nothing to do: %s. Results: %s", how_ended(trainer), run.folder)
        return trainer.best_score
    if checkpoint:
        _log_resumed(trainer, checkpoint, run)
    facts = facts or report_data(data)

    checkpointer = Checkpointer(
        run,
        trainer,
        description,
        interruption,
        data.trainer.checkpoint_every,
        data.trainer.keep_last,
        should_prune,
    )
    pruned = _fit(trainer, checkpointer, interruption, label)
    network = trainer.evaluated
    network.load_state_dict(trainer.best)
    if network.kernel_head and not pruned:
        facts["head"] = fit_kernel_head(trainer, cfg.seed)
    facts |= _summary(trainer, data.dataset)
    facts |= {"outcome": pruned or "finished", "seconds": time.perf_counter() - start}
    if pruned:
        _write_pruned(run, trainer, facts)
    else:
        _finish_best(network, data, checkpointer)
        _write_results(run, network, data, facts)
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


def _description(cfg: DictConfig, data: Prepared) -> dict[str, Any]:
    """Return what a checkpoint holds beside weights: what prediction needs, and the origin."""
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
        "data": data_digest(dataset, data.split),
    }


def _write_inputs(
    run: RunDirectory, cfg: DictConfig, data: Prepared, description: Mapping[str, Any]
) -> None:
    save_resolved(cfg, run.folder / "config.yaml")
    run.write_json("environment.json", environment(data.device))
    run.write_json("splits.json", description["split"])


def _checkpoint(source: Path | None, description: Mapping[str, Any]) -> dict[str, Any] | None:
    checkpoint = last_checkpoint(source / "checkpoints") if source else None
    if checkpoint:
        check_same_run(checkpoint, description["config"], description["data"])
    return checkpoint


def _load_weights(trainer: Trainer, checkpoint: Mapping[str, Any] | None, cfg: DictConfig) -> None:
    """Load the state of the run to resume, or the weights of `init_from`."""
    if checkpoint:
        try:
            load_training_state(trainer, checkpoint["training"])
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise distributed.CollectiveError(
                f"cannot resume: the training state is damaged: {first_line(error)}"
            ) from error
    elif cfg.init_from:
        distributed.run_on_all_ranks(lambda: initialize_from(trainer, plain(cfg)))


def _is_done(trainer: Trainer, source: Path | None) -> bool:
    return bool(trainer.is_over and source and finished_epochs(source) == trainer.epoch)


def _check_ranks_agree(trainer: Trainer, description: Mapping[str, Any], is_done: bool) -> None:
    position = f"epoch {trainer.epoch}, batch {trainer.n_done}{', the end' if is_done else ''}"
    distributed.check_equal_on_all_ranks(
        f"data {description['data'][:8]} and {position}",
        "dataset.path and the run directory must be on a disk that all ranks see",
    )


def _fit(
    trainer: Trainer, checkpointer: Checkpointer, interruption: Interruption, label: str
) -> str:
    """Train to the end; return why a trial of a search was pruned, or nothing."""
    try:
        with interruption.deferred(), TrainingProgress(trainer, label) as progress:

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
        raise distributed.CollectiveError(
            f"{error}. The crystals of these batches are in {run.folder / 'diverged.json'}{kept}"
        ) from error
    if trainer.settings.learn_task_weights:
        log.info("learned task weights: %s", learned_weights(trainer))
    return ""


def _finish_best(network: CrystalGraphNetwork, data: Prepared, checkpointer: Checkpointer) -> None:
    """Calibrate predicted standard deviations on the val rows; write best.ckpt with what is new."""
    changes = dict[str, Any]()
    if network.has_std:
        values, rows = data.dataset.values, data.split["val"]
        targets, size = data.dataset.targets, data.batch_size
        changes["uncalibrated"] = calibrate(network, data.store, targets, values, rows, size)
    if changes or network.kernel_head:
        checkpointer.save_best(network.state_dict(), **changes)


def _summary(trainer: Trainer, dataset: Dataset) -> dict[str, Any]:
    return {
        "units": {target.name: target.unit for target in dataset.targets},
        "best_epoch": trainer.best_epoch,
        "val_score": trainer.best_score if len(trainer.split["val"]) else None,
        "epochs": trainer.epoch,
        "n_parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "n_rows": {part: len(rows) for part, rows in trainer.split.items()},
        "n_skipped_batches": len(trainer.guard.skipped),
        "n_rejected": len(dataset.rejected),
    }


def _log_resumed(trainer: Trainer, checkpoint: Mapping[str, Any], run: RunDirectory) -> None:
    log.info("resuming in epoch %d from %s", trainer.epoch + 1, run.checkpoints / "last.ckpt")
    if note := other_device(checkpoint["training"], trainer.store.device):
        log.warning("%s", note)


def _write_results(
    run: RunDirectory, network: CrystalGraphNetwork, data: Prepared, facts: Mapping[str, Any]
) -> None:
    dataset, split, plot = data.dataset, data.split, data.plot
    write_results(run, network, data.store, dataset, split, data.batch_size, facts, plot)
    if plot and facts["epochs"] and not distributed.rank():
        draw_learning_curve(run.folder, dataset, split, facts["best_epoch"], plot)


def _write_pruned(run: RunDirectory, trainer: Trainer, facts: Mapping[str, Any]) -> None:
    """Write metrics.json of a pruned trial, without predicting the test rows."""
    values = trainer.values_of("val").cpu()
    metrics = reported_metrics(trainer.predict("val").cpu(), values, trainer.targets)
    run.write_json("metrics.json", {"val": metrics, **facts})
