"""`csgcnn train`: crystals and a property in, a trained model in a run directory out."""

import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from csgcnn import __version__, distributed
from csgcnn.commands.ensemble import train_ensemble
from csgcnn.commands.init_from import initialize_from
from csgcnn.commands.prepare import load_dataset, move_to_device
from csgcnn.config.instantiate import instantiate
from csgcnn.config.resolved import save_resolved
from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.data.augment import Augmentations
from csgcnn.data.dataset import Dataset, label_warnings
from csgcnn.data.leakage import count_duplicates, shared_compositions
from csgcnn.data.splits import Split, split_ids, split_rows
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import check_labels
from csgcnn.errors import AbortError, one_line
from csgcnn.evaluation.calibration import calibrate
from csgcnn.evaluation.metrics import target_metrics
from csgcnn.hardware import select_device
from csgcnn.nn.network import build_network
from csgcnn.runs.directory import RunDirectory, finished_epochs
from csgcnn.runs.environment import environment
from csgcnn.runs.results import write_results
from csgcnn.training.checkpointing import Checkpointer, PrunedError
from csgcnn.training.interruption import Interruption
from csgcnn.training.losses import MultiTaskLoss, build_loss
from csgcnn.training.resume import check_same_run, data_digest, last_checkpoint
from csgcnn.training.trainer import DivergenceError, Trainer

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float:
    """Train, or go on training, test once, write everything; returns the best validation score (see `Trainer`)."""
    return train_in(Path(HydraConfig.get().runtime.output_dir), cfg)


def train_in(folder: Path, cfg: DictConfig) -> float:
    """`train` in an existing folder."""
    return train_ensemble(folder, cfg, _train_one) if cfg.ensemble > 1 else _train_one(folder, cfg)


def _train_one(folder: Path, cfg: DictConfig) -> float:
    with (
        Interruption(cfg.trainer.max_minutes) as interruption,
        RunDirectory(folder, may_resume=cfg.resume is not None) as run,
    ):
        source = folder if run.holds_run else None
        should_prune = _pruning(cfg, folder)
        if distributed.world_size() == 1:
            return _train(cfg, run, source, interruption, should_prune)
        job = {
            "config": OmegaConf.to_container(cfg, resolve=True),
            "source": source and str(source.absolute()),
        }
        distributed.broadcast_text(json.dumps(job))
        try:
            return _train(cfg, run, source, interruption, should_prune)
        except distributed.CollectiveError:
            raise
        except (
            Exception
        ) as error:  # the others do not know of it: a sweep cannot go on with its next job
            raise AbortError from error


def _pruning(cfg: DictConfig, folder: Path) -> Callable[[int, float], bool] | None:
    """What decides after each epoch whether to give up, if the run is a trial of a search."""
    sweeper = HydraConfig.get().sweeper
    if sweeper.get("trial") is None:
        return None
    from csgcnn.search.study import Pruning

    return Pruning(folder, cfg.trainer.max_epochs, sweeper.prune_after)


def follow() -> int:
    """Train together with the first process of several, as long as it tells what; returns the exit code.

    What a run leaves behind is written by the first process alone: the others write into a folder that they remove.
    """
    code = 0
    while job := _next_job():
        cfg, source = OmegaConf.create(job["config"]), job["source"]
        cfg.trainer.progress = False
        try:
            with (
                tempfile.TemporaryDirectory() as scratch,
                Interruption(cfg.trainer.max_minutes) as interruption,
                RunDirectory(Path(scratch)) as run,
            ):
                _train(cfg, run, source and Path(source), interruption)
        except SystemExit as stop:  # the first process ends its sweep, too
            return int(stop.code or 0)
        except distributed.CollectiveError:
            code = 1
    return code


def _next_job() -> dict[str, Any]:
    try:
        return json.loads(distributed.broadcast_text() or "{}")
    except distributed.RankLostError:  # the first process has ended, and said why
        return {}


def _train(
    cfg: DictConfig,
    run: RunDirectory,
    source: Path | None,
    interruption: Interruption,
    should_prune: Callable[[int, float], bool] | None = None,
) -> float:
    """`source`: the folder of the run to go on with, if there is one; `should_prune`: see `Checkpointer`."""
    start = time.perf_counter()
    device = select_device(cfg.trainer.device, cfg.trainer.threads, cfg.trainer.deterministic)
    torch.manual_seed(cfg.seed)
    dataset, split = distributed.run_on_all_ranks(lambda: _load(cfg, run))
    store = move_to_device(dataset.store, device, cfg.trainer.resident_gib)
    description = _description(cfg, dataset, split)
    checkpoint = distributed.run_on_all_ranks(lambda: _checkpoint(source, description))
    save_resolved(cfg, run.folder / "config.yaml")
    run.write_json("environment.json", environment(device))
    run.write_json("splits.json", description["split"])
    shared = _report_data(dataset, split)

    trainer = make_trainer(cfg, dataset, split, store)
    if checkpoint:
        _restore(trainer, checkpoint["training"])
    elif cfg.init_from:
        distributed.run_on_all_ranks(lambda: initialize_from(trainer, cfg, dataset.targets))
    is_done = bool(
        checkpoint and trainer.is_over and source and finished_epochs(source) == trainer.epoch
    )
    reached = f"epoch {trainer.epoch}, batch {trainer.n_done}{', the end' if is_done else ''}"
    advice = "dataset.path and the folder of the run must lie on a disk that all processes see"
    distributed.check_equal_on_all_ranks(f"data {description['data'][:8]} and {reached}", advice)
    if is_done:
        log.info(
            "nothing to continue, all %d epochs are done. Results: %s",
            trainer.epoch,
            run.folder,
        )
        return trainer.best_score
    if checkpoint:
        log.info("going on in epoch %d", trainer.epoch + 1)
    every, n_kept = cfg.trainer.checkpoint_every, cfg.trainer.keep_last
    keeper = Checkpointer(run, trainer, description, interruption, every, n_kept, should_prune)
    pruned = _fit(trainer, keeper, interruption)
    model = trainer.evaluated
    model.load_state_dict(trainer.best)
    if cfg.trainer.learn_task_weights:
        weights = zip(
            dataset.targets, cast(MultiTaskLoss, trainer.loss).task_weights.tolist(), strict=True
        )
        log.info(
            "learned task weights: %s",
            ", ".join(f"{target.name} {weight:.3g}" for target, weight in weights),
        )
    facts = shared | {
        "outcome": pruned or "finished",
        "seconds": time.perf_counter() - start,
    }
    if pruned:
        _write_pruned(run, trainer, dataset, facts)
        return trainer.best_score
    if model.has_std:
        calibrate(
            model,
            store,
            dataset.targets,
            dataset.values,
            split["val"],
            4 * trainer.settings.batch_size,
        )
        keeper.save_best(model.state_dict())
    if cfg.trainer.figures and not distributed.rank():
        from csgcnn.evaluation.plots import plot_learning_curve

        plot_learning_curve(
            run.folder / "metrics.csv", dataset.targets, run.folder / "learning_curve.png"
        )
    write_results(
        run,
        model,
        store,
        dataset,
        split,
        batch_size=4 * trainer.settings.batch_size,
        facts={**_summary(trainer, dataset), **facts},
        figures=cfg.trainer.figures,
    )
    _log_end(run, trainer, facts)
    return trainer.best_score


def make_trainer(cfg: DictConfig, dataset: Dataset, split: Split, store: GraphStore) -> Trainer:
    """The model and everything that trains it; `store`: the data set's, where the training shall find it."""
    model = build_network(cfg, [target.n_outputs for target in dataset.targets])
    loss = build_loss(cfg, dataset.targets, dataset.values[split["train"]])
    settings = TrainerSettings(
        **{name: cfg.trainer[name] for name in TrainerSettings.__dataclass_fields__}
    )
    parts = (
        instantiate(cfg.optimizer),
        instantiate(cfg.scheduler),
        settings,
        Augmentations(instantiate(cfg.augment)),
    )
    return Trainer(model, store, dataset.targets, dataset.values, split, loss, *parts)


def _load(cfg: DictConfig, run: RunDirectory) -> tuple[Dataset, Split]:
    graph, rejected = GraphSettings(**cfg.graph), run.folder / "rejected.csv"
    dataset = load_dataset(cfg.dataset, graph, rejected, cfg.trainer.workers, cfg.trainer.progress)
    split = split_rows(dataset.store, dataset.rows, SplitSettings(**cfg.dataset.split))
    check_labels(dataset.values[split["train"]], dataset.targets)
    return dataset, split


def _checkpoint(source: Path | None, description: Mapping[str, Any]) -> dict[str, Any] | None:
    checkpoint = last_checkpoint(source / "checkpoints") if source else None
    if checkpoint:
        check_same_run(checkpoint, description["config"], description["data"])
    return checkpoint


def _restore(trainer: Trainer, state: Mapping[str, Any]) -> None:
    try:
        trainer.load_state(state)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise distributed.CollectiveError(
            f"resume: the state of the training is damaged: {one_line(error)}"
        ) from error


def _fit(trainer: Trainer, keeper: Checkpointer, interruption: Interruption) -> str:
    """Train to the end, or else say why not."""
    try:
        with interruption.deferred():
            trainer.fit(keeper.on_step)
            keeper.save()
        return ""
    except PrunedError:
        return f"pruned after epoch {trainer.epoch}: other trials of the search were better by then"
    except DivergenceError as error:
        run = keeper.run
        run.write_json(
            "diverged.json", {"epoch": error.epoch, "reason": str(error), "ids": error.culprits}
        )
        if keeper.should_prune and distributed.world_size() == 1:  # a search goes on
            return f"pruned after epoch {trainer.epoch}: {error}"
        kept = (
            "; the last good state is kept in checkpoints/"
            if any(run.checkpoints.iterdir())
            else ""
        )
        raise distributed.CollectiveError(
            f"{error}. The crystals of these batches are in {run.folder / 'diverged.json'}{kept}"
        ) from error


def _description(cfg: DictConfig, dataset: Dataset, split: Split) -> dict[str, Any]:
    """What a checkpoint says besides weights: all that prediction needs, and where it came from."""
    return {
        "csgcnn": __version__,
        "config": OmegaConf.to_container(cfg, resolve=True),
        "targets": [asdict(target) for target in dataset.targets],
        "elements": sorted(dataset.store.elements_of(split["train"])),
        "split": split_ids(dataset.store, split),
        "data": data_digest(dataset, split),
    }


def _report_data(dataset: Dataset, split: Split) -> dict[str, Any]:
    """Say what is trained on, what is odd about it, and what its parts share."""
    store = dataset.store
    sizes = ", ".join(f"{len(rows)} {part}" for part, rows in split.items())
    names = ", ".join(target.name for target in dataset.targets)
    log.info("%d crystals: %s; target %s", len(dataset.rows), sizes, names)
    if dataset.rejected:
        log.warning("%d records were left out, see rejected.csv", len(dataset.rejected))
    for oddity in label_warnings(dataset, split["train"]):
        log.warning("%s", oddity)
    n_duplicates, example = count_duplicates(store, split)
    if example:
        log.warning(
            "%d pairs of identical structures lie in different parts, e.g. %s and %s",
            n_duplicates,
            *example,
        )
    return {
        "duplicates_across_splits": n_duplicates,
        "shared_compositions": shared_compositions(store, split),
    }


def _write_pruned(
    run: RunDirectory, trainer: Trainer, dataset: Dataset, facts: Mapping[str, Any]
) -> None:
    """Write metrics.json of a training that was given up; its test rows stay unseen."""
    values = trainer.values_of("val").cpu()
    metrics = target_metrics(trainer.predict("val").cpu(), values, dataset.targets)
    run.write_json("metrics.json", {"val": metrics, **_summary(trainer, dataset), **facts})
    _log_end(run, trainer, facts)


def _summary(trainer: Trainer, dataset: Dataset) -> dict[str, Any]:
    return {
        "units": {target.name: target.unit for target in dataset.targets},
        "best_epoch": trainer.best_epoch,
        "val_score": trainer.best_score,
        "epochs": trainer.epoch,
        "n_parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "n_rows": {part: len(rows) for part, rows in trainer.split.items()},
        "n_skipped_batches": len(trainer.skipped),
        "n_rejected": len(dataset.rejected),
    }


def _log_end(run: RunDirectory, trainer: Trainer, facts: Mapping[str, Any]) -> None:
    epochs = f"{trainer.epoch} epoch{'s' * (trainer.epoch != 1)}"
    done = f"trained {epochs} in {facts['seconds']:.0f} s"
    if facts["outcome"] != "finished":
        done = facts["outcome"]
    log.info("%s; best epoch %d. Results: %s", done, trainer.best_epoch, run.folder)
