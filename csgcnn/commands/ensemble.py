"""`csgcnn train ensemble=5`: members with seeds of their own, and the checkpoint that predicts as all of them."""

import csv
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from csgcnn import distributed
from csgcnn.commands.prepare import load_dataset, move_to_device
from csgcnn.config.resolved import save_resolved
from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.data.splits import split_rows
from csgcnn.errors import ConfigError
from csgcnn.evaluation.calibration import calibrate
from csgcnn.hardware import select_device
from csgcnn.io import write_csv
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.predictor import Predictor
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.runs.directory import RunDirectory
from csgcnn.runs.environment import environment
from csgcnn.runs.results import write_results

log = logging.getLogger(__name__)

Metrics = dict[str, Any]  # what metrics.json of a member says


def train_ensemble(
    folder: Path, cfg: DictConfig, train: Callable[[Path, DictConfig], float]
) -> float:
    """Train the members that are not finished, each a run of its own, and join them; returns the validation score.

    The score is the mean of the members' scores, so that it compares with that of a single model.

    Raises:
        ConfigError: several processes were started together, or this is a trial of a search.
    """
    if distributed.world_size() > 1 or HydraConfig.get().sweeper.get("trial") is not None:
        raise ConfigError(
            f"ensemble={cfg.ensemble}: members train one after another, in one process, and in no search"
        )
    start = time.monotonic()
    with RunDirectory(folder, may_resume=cfg.resume is not None) as run:
        save_resolved(cfg, folder / "config.yaml")
        members = [folder / f"member-{number}" for number in range(cfg.ensemble)]
        for number, member in enumerate(members):
            log.info("member %d of %d: %s", number + 1, len(members), member)
            member.mkdir(exist_ok=True)
            try:
                train(member, _member_config(cfg, number, time.monotonic() - start))
            except SystemExit:
                log.warning("csgcnn train resume=%s goes on with the whole ensemble", folder)
                raise
        found = [
            json.loads((member / "metrics.json").read_text(encoding="utf-8")) for member in members
        ]
        return _join(cfg, run, members, found)


def _member_config(cfg: DictConfig, number: int, seconds: float) -> DictConfig:
    """The configuration of a member's run, `seconds` after the start of the ensemble."""
    own = OmegaConf.create(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)))
    own.ensemble, own.seed, own.resume = 1, cfg.seed + number, "auto"
    if own.trainer.max_minutes:
        own.trainer.max_minutes = max(own.trainer.max_minutes - seconds / 60, 1e-3)
    return own


def _join(
    cfg: DictConfig, run: RunDirectory, folders: Sequence[Path], found: Sequence[Metrics]
) -> float:
    """Make one checkpoint of the members, calibrate it and test it once."""
    device = select_device(cfg.trainer.device, cfg.trainer.threads, cfg.trainer.deterministic)
    graph, report = GraphSettings(**cfg.graph), run.folder / "rejected.csv"
    dataset = load_dataset(cfg.dataset, graph, report, cfg.trainer.workers, cfg.trainer.progress)
    split = split_rows(dataset.store, dataset.rows, SplitSettings(**cfg.dataset.split))
    store, batch_size = (
        move_to_device(dataset.store, device, cfg.trainer.resident_gib),
        4 * cfg.trainer.batch_size,
    )
    best = [folder / "checkpoints" / "best.ckpt" for folder in folders]
    members = [cast(CrystalGraphNetwork, Predictor.load(path, device).network) for path in best]
    model = Ensemble(members).to(device)
    calibrate(model, store, dataset.targets, dataset.values, split["val"], batch_size)
    facts = _facts(found)
    content = load_checkpoint(best[0])
    own = {
        "config": OmegaConf.to_container(cfg, resolve=True),
        "metrics": {"val_score": facts["val_score"]},
    }
    run.save({**content, **own, "state_dict": model.state_dict()}, "best")
    run.write_json("environment.json", environment(device))
    run.write_json("splits.json", content["split"])
    _join_rows(folders, run.folder / "metrics.csv")
    write_results(run, model, store, dataset, split, batch_size, facts, figures=cfg.trainer.figures)
    epochs = ", ".join(str(metrics["best_epoch"]) for metrics in found)
    log.info("best epochs of the members %s; everything is in %s", epochs, run.folder)
    return facts["val_score"]


def _facts(found: Sequence[Metrics]) -> Metrics:
    """What metrics.json says of a training, of all members."""
    first = found[0]
    kept = ("units", "n_rows", "n_rejected", "duplicates_across_splits", "shared_compositions")
    return {
        **{key: first[key] for key in kept},
        "best_epoch": max(metrics["best_epoch"] for metrics in found),
        "epochs": max(metrics["epochs"] for metrics in found),
        "val_score": sum(metrics["val_score"] for metrics in found) / len(found),
        "n_parameters": sum(metrics["n_parameters"] for metrics in found),
        "seconds": sum(metrics["seconds"] for metrics in found),
        "n_skipped_batches": sum(metrics["n_skipped_batches"] for metrics in found),
        "outcome": "; ".join(dict.fromkeys(metrics["outcome"] for metrics in found)),
        "members": [
            {key: metrics[key] for key in ("val", "test", "best_epoch", "seconds")}
            for metrics in found
        ],
    }


def _join_rows(folders: Sequence[Path], path: Path) -> None:
    """metrics.csv of the members, with a column that numbers them."""
    rows: list[list[str]] = []
    header: list[str] = []
    for number, folder in enumerate(folders):
        with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
            header, *own = csv.reader(file)
            rows += [[str(number), *row] for row in own]
    write_csv(path, ["member", *header], rows)
