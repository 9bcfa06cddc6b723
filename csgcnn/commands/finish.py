"""The end of a training: kernel head, calibration, best.ckpt and the results."""

import time
from dataclasses import replace
from typing import Any

import torch
from omegaconf import DictConfig

from csgcnn import distributed
from csgcnn.commands.intervals import calibration_scores, interval_facts
from csgcnn.commands.prepare import Prepared
from csgcnn.commands.refit import Facts, Refit, finish_refit
from csgcnn.data.dataset import Dataset
from csgcnn.data.embeddings import MAX_CANDIDATES, Embeddings
from csgcnn.data.leakage import shared_compositions
from csgcnn.evaluation.calibration import calibrate
from csgcnn.evaluation.inference import in_batches
from csgcnn.evaluation.reported_metrics import reported_metrics
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.runs.results import draw_learning_curve, write_results
from csgcnn.training.checkpointing import Checkpointer
from csgcnn.training.kernel_fit import fit_kernel_head
from csgcnn.training.trainer import Trainer


def finish(
    cfg: DictConfig,
    data: Prepared,
    checkpointer: Checkpointer,
    refitted: Refit | None,
    facts: Facts,
    start: float,
) -> Facts:
    """Fit the kernel head, calibrate, embed training rows, and write best.ckpt and the results.

    The validation rows choose and calibrate with the network that has not seen them. With a refit
    it is written to validated.ckpt, and best.ckpt holds the refitted network.

    Args:
        cfg: Configuration of the training.
        data: Its data.
        checkpointer: Checkpointer of the training, whose network has the weights of the best epoch.
        refitted: The refit, if there is one.
        facts: Entries of metrics.json about the data.
        start: When the command began, by `time.perf_counter`.

    Returns:
        All entries of metrics.json but errors.
    """
    trainer = checkpointer.trainer
    network = trainer.evaluated
    if network.kernel_head:
        facts |= {"head": fit_kernel_head(trainer, cfg.seed)}
    embeddings = training_embeddings(network, data) if data.trainer.store_embeddings else None
    changes = calibrated(network, data) | _stored(embeddings)
    models = {"val": network, "test": network}
    if refitted:
        checkpointer.save_best(network.state_dict(), "validated", **changes)
        models["test"], entries = finish_refit(refitted, network, facts)
        facts |= entries | leaks_of_refit(data, facts)
        if embeddings:
            found = training_embeddings(models["test"], data.on_all_rows())
            embeddings = replace(found, percentiles=embeddings.percentiles)
        changes = refitted.description | changes | _stored(embeddings)
    if scores := calibration_scores(models["test"], data):
        changes |= {"conformal": scores.plain()}
        facts |= interval_facts(
            models["test"], scores, data.store, data.dataset, data.split["test"], data.batch_size
        )
    if changes or network.kernel_head:
        checkpointer.save_best(models["test"].state_dict(), **changes)
    facts |= _summary(trainer, data.dataset, "finished", start)
    run, split, plot = checkpointer.run, data.split, data.plot
    write_results(run, models, data.store, data.dataset, split, data.batch_size, facts, plot)
    if plot and facts["epochs"] and not distributed.rank():
        draw_learning_curve(run.folder, data.dataset, split, facts["best_epoch"], plot)
    return facts


def _summary(trainer: Trainer, dataset: Dataset, outcome: str, start: float) -> Facts:
    return {
        "units": {target.name: target.unit for target in dataset.targets},
        "best_epoch": trainer.best_epoch,
        "val_score": trainer.best_score if len(trainer.split["val"]) else None,
        "epochs": trainer.epoch,
        "n_parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "n_rows": {part: len(rows) for part, rows in trainer.split.items()},
        "n_skipped_batches": len(trainer.guard.skipped),
        "n_rejected": len(dataset.rejected),
        "outcome": outcome,
        "seconds": time.perf_counter() - start,
    }


def write_pruned(
    checkpointer: Checkpointer, dataset: Dataset, outcome: str, facts: Facts, start: float
) -> Facts:
    """Write metrics.json of a pruned trial, without predicting the test rows.

    Args:
        checkpointer: Checkpointer of the training, whose network has the weights of the best epoch.
        dataset: Its data set.
        outcome: Why it was pruned.
        facts: Entries of metrics.json about the data.
        start: When the command began, by `time.perf_counter`.

    Returns:
        All entries of metrics.json but errors.
    """
    trainer = checkpointer.trainer
    facts |= _summary(trainer, dataset, outcome, start)
    values = trainer.values_of("val").cpu()
    metrics = reported_metrics(trainer.predict("val").cpu(), values, trainer.targets)
    checkpointer.run.write_json("metrics.json", {"val": metrics, **facts})
    return facts


def calibrated(network: CrystalGraphNetwork | Ensemble, data: Prepared) -> dict[str, Any]:
    """Calibrate predicted standard deviations; return what this changes in a checkpoint.

    Args:
        network: The network, or the ensemble.
        data: Data of its training.
    """
    if not network.has_std:
        return {}
    values, rows = data.dataset.values, data.split["val"]
    targets, size = data.dataset.targets, data.batch_size
    return {"uncalibrated": calibrate(network, data.store, targets, values, rows, size)}


def training_embeddings(network: CrystalGraphNetwork, data: Prepared) -> Embeddings:
    """Return embeddings of training rows: of all, or of a random subset, which is fixed.

    Args:
        network: The network.
        data: Data of its training.
    """
    store, train, val = data.store, data.split["train"], data.split["val"]
    if len(train) > MAX_CANDIDATES:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        train = train[order[:MAX_CANDIDATES].sort().values]
    rows = torch.cat([train, val])
    both = in_batches(network, network.pooled, store, rows, data.batch_size)
    of_train, of_val = both.split([len(train), len(val)])
    return Embeddings.of([store.ids[row] for row in train.tolist()], of_train, of_val)


def _stored(embeddings: Embeddings | None) -> dict[str, Any]:
    return {"embeddings": embeddings.plain()} if embeddings else {}


def leaks_of_refit(data: Prepared, facts: Facts) -> Facts:
    """Return the overlap between the test rows and all rows of a refit.

    Args:
        data: Data of the first training.
        facts: Entries of metrics.json about them.
    """
    shared = shared_compositions(data.dataset.store, data.on_all_rows().split)
    return {"shared_compositions": facts["shared_compositions"] | {"test": shared["test"]}}
