"""`csgcnn train`: crystals and a property in, a trained model in a run directory out."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from csgcnn import __version__
from csgcnn.config import build, save_resolved
from csgcnn.crystals.graphs import GraphSettings
from csgcnn.data.augment import Augmentations
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split, SplitSettings, duplicates_across, split_ids, split_rows
from csgcnn.data.targets import Target, check_labels
from csgcnn.training.checkpoint import save_checkpoint
from csgcnn.training.metrics import Metrics, baseline_metrics, target_metrics
from csgcnn.training.report import compared_columns, compared_rows, told
from csgcnn.training.run_directory import RunDirectory, environment, write_predictions
from csgcnn.training.trainer import Trainer, TrainerSettings
from csgcnn.wiring import build_loss, build_model, load_dataset, select_device

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 10.0  # seconds: in short epochs, a file and its flush each would cost more than the training


def train(cfg: DictConfig) -> float:
    """Train, test once, write everything; returns the best validation score (see `Trainer`)."""
    start = time.perf_counter()
    run = RunDirectory(Path(HydraConfig.get().runtime.output_dir))
    device = select_device(cfg.trainer.device, cfg.trainer.threads)
    torch.manual_seed(cfg.seed)
    run.write_json("environment.json", environment(device))
    graph, rejected = GraphSettings(**cfg.graph), run.folder / "rejected.csv"
    dataset = load_dataset(cfg.dataset, graph, rejected, cfg.trainer.workers, cfg.trainer.progress)
    save_resolved(cfg, run.folder / "config.yaml")
    store, targets = dataset.store.to(device), dataset.targets
    split = split_rows(store, dataset.rows, SplitSettings(**cfg.dataset.split))
    check_labels(dataset.values[split["train"]], targets)
    run.write_json("splits.json", split_ids(store, split))
    duplicates = duplicates_across(store, split)
    _report_data(dataset, split, duplicates)

    model = build_model(cfg, [target.n_outputs for target in targets])
    loss = build_loss(cfg, targets, dataset.values[split["train"]])
    settings = TrainerSettings(**{name: cfg.trainer[name] for name in TrainerSettings.__dataclass_fields__})
    parts = build(cfg.optimizer), build(cfg.scheduler), settings, Augmentations(build(cfg.augment))
    trainer = Trainer(model, store, targets, dataset.values, split, loss, *parts)
    keeper = _Keeper(run, trainer, _description(cfg, dataset, split))
    try:
        trainer.fit(keeper.on_epoch)
    finally:
        keeper.save()
    trainer.evaluated.load_state_dict(keeper.best)
    if cfg.trainer.learn_task_weights:
        weights = zip(targets, loss.task_weights.tolist(), strict=True)
        log.info("learned task weights: %s", ", ".join(f"{target.name} {weight:.3g}" for target, weight in weights))
    facts = {"duplicates_across_splits": len(duplicates), "seconds": time.perf_counter() - start}
    _write_results(run, trainer, dataset, facts)
    return trainer.best_score


class _Keeper:
    """Keeps the best weights, metrics.csv, best.ckpt and last.ckpt up to date while the training goes on."""

    def __init__(self, run: RunDirectory, trainer: Trainer, description: dict[str, Any]) -> None:
        self.run = run
        self.trainer = trainer
        self.description = description
        self.best = _copy(trainer.evaluated.state_dict())
        self.saved_epoch = 0
        self.saved_best = 0
        self.saved_at = time.monotonic()

    def on_epoch(self, row: dict[str, float], improved: bool) -> None:
        self.run.append_metrics(row)
        if improved:
            self.best = _copy(self.trainer.evaluated.state_dict())
        if time.monotonic() - self.saved_at > CHECKPOINT_EVERY:
            self.save()

    def save(self) -> None:
        trainer, description = self.trainer, self.description
        if self.saved_best != trainer.best_epoch:
            metrics = {"best_epoch": trainer.best_epoch, "val_score": trainer.best_score}
            save_checkpoint(
                {**description, "metrics": metrics, "state_dict": self.best}, self.run.checkpoints / "best.ckpt"
            )
        if self.saved_epoch != trainer.epoch:
            save_checkpoint(
                {**description, "state_dict": trainer.evaluated.state_dict(), "training": trainer.state()},
                self.run.checkpoints / "last.ckpt",
            )
        self.saved_epoch, self.saved_best, self.saved_at = trainer.epoch, trainer.best_epoch, time.monotonic()


def _copy(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _description(cfg: DictConfig, dataset: Dataset, split: Split) -> dict[str, Any]:
    """What a checkpoint says besides weights: all that prediction needs, and where it came from."""
    config = OmegaConf.to_container(cfg, resolve=True)
    seen = set().union(*(dataset.store.elements[row] for row in split["train"].tolist()))
    return {
        "csgcnn": __version__,
        "config": config,
        "targets": [asdict(target) for target in dataset.targets],
        "elements": sorted(seen),
        "split": split_ids(dataset.store, split),
    }


def _report_data(dataset: Dataset, split: Split, duplicates: Sequence[tuple[str, str]]) -> None:
    sizes = ", ".join(f"{len(rows)} {part}" for part, rows in split.items())
    names = ", ".join(target.name for target in dataset.targets)
    log.info("%d crystals: %s; target %s", len(dataset.rows), sizes, names)
    if dataset.rejected:
        log.warning("%d records were left out, see rejected.csv", len(dataset.rejected))
    if duplicates:
        told = "%d pairs of identical structures lie in different parts, e.g. %s and %s"
        log.warning(told, len(duplicates), *duplicates[0])


def _write_results(run: RunDirectory, trainer: Trainer, dataset: Dataset, facts: Mapping[str, float]) -> None:
    """Test once, and write metrics.json, predictions.csv and the figures."""
    from csgcnn.training.plots import plot_learning_curve, plot_test

    targets, values = dataset.targets, {part: trainer.values_of(part).cpu() for part in trainer.split}
    prediction = {part: trainer.predict(part).cpu() for part in ("val", "test")}
    metrics = {part: target_metrics(predicted, values[part], targets) for part, predicted in prediction.items()}
    baseline = baseline_metrics(values["train"], values["test"], targets)
    run.write_json(
        "metrics.json",
        {
            **metrics,
            "units": {target.name: target.unit for target in targets},
            **_baselines(baseline, targets),
            "best_epoch": trainer.best_epoch,
            "epochs": trainer.epoch,
            "n_parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
            "n_rows": {part: len(rows) for part, rows in trainer.split.items()},
            "n_rejected": len(dataset.rejected),
            **facts,
        },
    )
    rows = (
        [trainer.store.ids[row], part, *cells]
        for part, predicted in prediction.items()
        for row, cells in zip(
            trainer.split[part].tolist(), compared_rows(predicted, values[part], targets), strict=True
        )
    )
    write_predictions(run.folder / "predictions.csv", ["id", "split", *compared_columns(targets)], rows)
    plot_test(prediction["test"], values["test"], targets, run.folder)
    plot_learning_curve(run.folder / "metrics.csv", targets, run.folder / "learning_curve.png")
    for target in targets:
        log.info("test %s", told(target, metrics["test"][target.name], baseline[target.name]))
    log.info(
        "best epoch %d of %d, %.0f s; everything is in %s",
        trainer.best_epoch,
        trainer.epoch,
        facts["seconds"],
        run.folder,
    )


def _baselines(baseline: Mapping[str, Metrics], targets: Sequence[Target]) -> dict[str, dict[str, float]]:
    """The test metrics that any model must beat: of predicting the mean, or always the most frequent class."""
    maes = {target.name: baseline[target.name]["mae"] for target in targets if not target.classes}
    accuracies = {target.name: baseline[target.name]["accuracy"] for target in targets if target.classes}
    told = {"baseline_test_mae": maes, "baseline_test_accuracy": accuracies}
    return {key: values for key, values in told.items() if values}
