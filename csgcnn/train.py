"""`csgcnn train`: crystals and a property in, a trained model in a run directory out."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from csgcnn import __version__
from csgcnn.config import build, save_resolved
from csgcnn.crystals.graphs import GraphSettings
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split, SplitSettings, duplicates_across, split_ids, split_rows
from csgcnn.training.checkpoint import save_checkpoint
from csgcnn.training.metrics import baseline_mae, regression_metrics
from csgcnn.training.run_directory import RunDirectory, environment, with_unit, write_predictions
from csgcnn.training.trainer import Trainer, TrainerSettings
from csgcnn.wiring import build_model, load_dataset, select_device

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 10.0  # seconds: in short epochs, a file and its flush each would cost more than the training


def train(cfg: DictConfig) -> float:
    """Train, test once, write everything; returns the best validation MAE in standard deviations of the targets."""
    start = time.perf_counter()
    run = RunDirectory(Path(HydraConfig.get().runtime.output_dir))
    device = select_device(cfg.trainer.device, cfg.trainer.threads)
    torch.manual_seed(cfg.seed)
    run.write_json("environment.json", environment(device))
    graph, rejected = GraphSettings(**cfg.graph), run.folder / "rejected.csv"
    dataset = load_dataset(cfg.dataset, graph, rejected, cfg.trainer.workers, cfg.trainer.progress)
    save_resolved(cfg, run.folder / "config.yaml")
    store = dataset.store.to(device)
    split = split_rows(store, dataset.rows, SplitSettings(**cfg.dataset.split))
    run.write_json("splits.json", split_ids(store, split))
    _report_data(dataset, split)

    model = build_model(cfg, n_targets=len(dataset.names))
    settings = TrainerSettings(**{name: cfg.trainer[name] for name in TrainerSettings.__dataclass_fields__})
    trainer = Trainer(
        model, store, dataset.targets, split, build(cfg.loss), build(cfg.optimizer), build(cfg.scheduler), settings
    )
    keeper = _Keeper(run, trainer, _description(cfg, dataset, split))
    try:
        trainer.fit(dataset.names, keeper.on_epoch)
    finally:
        keeper.save()
    trainer.evaluated.load_state_dict(keeper.best)
    _write_results(run, trainer, dataset, cfg, time.perf_counter() - start)
    return trainer.best_mae


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
            metrics = {"best_epoch": trainer.best_epoch, "val_mae_standardized": trainer.best_mae}
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
        "targets": [{"name": name, "unit": cfg.dataset.units.get(name, "")} for name in dataset.names],
        "elements": sorted(seen),
    }


def _report_data(dataset: Dataset, split: Split) -> None:
    sizes = ", ".join(f"{len(rows)} {part}" for part, rows in split.items())
    log.info("%d crystals: %s; target %s", len(dataset.rows), sizes, ", ".join(dataset.names))
    if dataset.rejected:
        log.warning("%d records were left out, see rejected.csv", len(dataset.rejected))
    if pairs := duplicates_across(dataset.store, split):
        log.warning("%d pairs of identical structures lie in different parts, e.g. %s and %s", len(pairs), *pairs[0])


def _write_results(run: RunDirectory, trainer: Trainer, dataset: Dataset, cfg: DictConfig, seconds: float) -> None:
    """Test once, and write metrics.json, predictions.csv and the figures."""
    from csgcnn.training.plots import plot_learning_curve, plot_parity

    names, units = dataset.names, [cfg.dataset.units.get(name, "") for name in dataset.names]
    prediction = {part: trainer.predict(part) for part in ("val", "test")}
    metrics = {part: regression_metrics(values, trainer.targets_of(part), names) for part, values in prediction.items()}
    train_mean = trainer.targets_of("train").nanmean(0)
    baseline = baseline_mae(train_mean, trainer.targets_of("test"), names)
    run.write_json(
        "metrics.json",
        {
            **metrics,
            "units": dict(zip(names, units, strict=True)),
            "baseline_test_mae": baseline,
            "best_epoch": trainer.best_epoch,
            "epochs": trainer.epoch,
            "n_parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
            "n_rows": {part: len(rows) for part, rows in trainer.split.items()},
            "n_rejected": len(dataset.rejected),
            "duplicates_across_splits": len(duplicates_across(dataset.store, trainer.split)),
            "seconds": seconds,
        },
    )
    header = ["id", "split"]
    for name, unit in zip(names, units, strict=True):
        header += [with_unit(column, unit) for column in (name, f"{name}_prediction", f"{name}_error")]
    write_predictions(run.folder / "predictions.csv", header, _prediction_rows(trainer, prediction))
    labels = [with_unit(name, unit) for name, unit in zip(names, units, strict=True)]
    maes = [metrics["test"][name]["mae"] for name in names]
    plot_parity(prediction["test"], trainer.targets_of("test"), labels, maes, run.folder / "parity.png")
    plot_learning_curve(run.folder / "metrics.csv", names, units, run.folder / "learning_curve.png")
    for name, unit, mae in zip(names, units, maes, strict=True):
        log.info("test MAE of %s: %.4g %s (predicting the mean: %.4g %s)", name, mae, unit, baseline[name], unit)
    log.info("best epoch %d of %d, %.0f s; everything is in %s", trainer.best_epoch, trainer.epoch, seconds, run.folder)


def _prediction_rows(trainer: Trainer, prediction: dict[str, torch.Tensor]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for part, values in prediction.items():
        target = trainer.targets_of(part)
        triples = torch.stack([target, values, values - target], dim=2).flatten(1).tolist()
        ids = [trainer.store.ids[row] for row in trainer.split[part].tolist()]
        rows += [[id_, part, *triple] for id_, triple in zip(ids, triples, strict=True)]
    return rows
