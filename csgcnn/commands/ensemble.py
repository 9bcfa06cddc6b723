"""`csgcnn train ensemble=N`: train N members and join them in one checkpoint."""

import csv
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from csgcnn import distributed
from csgcnn.commands.finish import calibrated, leaks_of_refit, training_embeddings
from csgcnn.commands.fitting import describe_training
from csgcnn.commands.intervals import calibration_scores, interval_facts
from csgcnn.commands.job import Job
from csgcnn.commands.prepare import Prepared, plain, prepare
from csgcnn.commands.refit import Facts
from csgcnn.config.instantiate import instantiate
from csgcnn.config.resolved import save_resolved
from csgcnn.config.upgrade import read_config
from csgcnn.data.embeddings import Embeddings
from csgcnn.data.leakage import count_duplicates, shared_compositions
from csgcnn.data.record_reports import RecordReports
from csgcnn.data.splits import split_ids
from csgcnn.data.targets import have_std
from csgcnn.errors import ConfigError
from csgcnn.evaluation.conformal import ConformalScores
from csgcnn.io import read_json, write_csv
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.predictor import Predictor
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.runs.directory import RunDirectory
from csgcnn.runs.environment import environment
from csgcnn.runs.loggers.record import Records
from csgcnn.runs.results import write_results

log = logging.getLogger(__name__)


def train_ensemble(
    cfg: DictConfig, job: Job, train_network: Callable[[DictConfig, Job], float]
) -> float:
    """Train the members that are not finished, each in a run of its own, and join them.

    Args:
        cfg: Configuration of the training; member n is trained with `seed` + n.
        job: The folder of the ensemble.
        train_network: Trains one network.

    Returns:
        The mean validation score of the members, comparable with that of a single network.

    Raises:
        ConfigError: Several ranks were started together, or this is a trial of a search.
    """
    if distributed.world_size() > 1 or job.is_trial:
        raise ConfigError(
            f"ensemble={cfg.ensemble}: members train one after another in one process; use neither "
            "several ranks nor a search"
        )
    start = time.monotonic()
    with (
        Records(instantiate(cfg.logger), job.folder, plain(cfg)) as records,
        RunDirectory(job.folder, may_resume=cfg.resume is not None) as run,
    ):
        _check_folds(cfg, read_config(run.folder / "config.yaml"))
        save_resolved(cfg, run.folder / "config.yaml")
        members = [
            job.within(f"member-{number}", f"member {number + 1} of {cfg.ensemble}")
            for number in range(cfg.ensemble)
        ]
        for number, member in enumerate(members):
            log.info("%s: %s", member.label, member.folder)
            try:
                train_network(_member_config(cfg, number, time.monotonic() - start), member)
            except (SystemExit, KeyboardInterrupt):
                log.warning("csgcnn train resume=%s resumes the whole ensemble", run.folder)
                raise
        score = _join(cfg, run, [member.folder for member in members])
        records.finish()
        return score


def _check_folds(cfg: DictConfig, before: Mapping[str, Any]) -> None:
    """Check that an ensemble that is resumed has the same folds, if it has folds."""
    now = (cfg.ensemble, cfg.ensemble_folds)
    known = (before.get("ensemble", cfg.ensemble), before.get("ensemble_folds", False))
    if before and now != known and (now[1] or known[1]):
        raise ConfigError(
            f"cannot resume with ensemble={now[0]} ensemble_folds={str(now[1]).lower()}: the folds "
            f"are those of ensemble={known[0]} ensemble_folds={str(known[1]).lower()}"
        )


def minutes_left(minutes: float | None, seconds: float) -> float | None:
    """Return the rest of a time limit, which is never zero.

    Args:
        minutes: The limit; None: no limit.
        seconds: Time that has passed.
    """
    return max(minutes - seconds / 60, 1e-3) if minutes else minutes


def _member_config(cfg: DictConfig, number: int, seconds: float) -> DictConfig:
    member = OmegaConf.create(plain(cfg))
    member.ensemble, member.seed, member.resume = 1, cfg.seed + number, "auto"
    if cfg.ensemble_folds:
        member.ensemble_folds, split = False, member.dataset.split
        split.calibration, split.calibration_fold = 1 / cfg.ensemble, number
    member.trainer.max_minutes = minutes_left(cfg.trainer.max_minutes, seconds)
    return member


def _join(cfg: DictConfig, run: RunDirectory, folders: Sequence[Path]) -> float:
    """Write one checkpoint of the members, calibrated on the val rows, and test it once."""
    data = prepare(cfg, RecordReports.within(run.folder))
    checkpoints = [folder / "checkpoints" / "best.ckpt" for folder in folders]
    loaded = [Predictor.load(path, data.device) for path in checkpoints]
    network = _ensemble(loaded, data)
    dataset, split = data.dataset, data.split
    models = {"val": network, "test": network}
    if cfg.trainer.refit:
        validated = (path.with_name("validated.ckpt") for path in checkpoints)
        models["val"] = _ensemble([Predictor.load(path, data.device) for path in validated], data)
    calibration = calibrated(models["val"], data)
    if network.has_std:
        network.std_scale.copy_(models["val"].std_scale)
    members = [read_json(folder / "metrics.json") for folder in folders]
    facts, content = _facts(members), load_checkpoint(checkpoints[0])
    if cfg.ensemble_folds:
        description, of_split = _about_all_folds(cfg, data)
        content, facts = content | description, facts | of_split
        if former := Embeddings.from_plain(content.get("embeddings")):
            first = cast(CrystalGraphNetwork, network.members[0])
            found = training_embeddings(first, data.on_all_rows() if cfg.trainer.refit else data)
            content["embeddings"] = replace(found, percentiles=former.percentiles).plain()
    if scores := _scores(cfg, loaded, network, data):
        content["conformal"] = scores.plain()
        facts |= interval_facts(
            network, scores, data.store, dataset, split["test"], data.batch_size
        )
    changes = {
        "config": plain(cfg),
        "metrics": {"val_score": facts["val_score"]},
        "state_dict": network.state_dict(),
        "uncalibrated": [],
        **calibration,
    }
    run.save({**content, **changes}, "best")
    run.write_json("environment.json", environment(data.device))
    run.write_json("splits.json", split_ids(dataset.store, split))
    _join_metrics(folders, run.folder / "metrics.csv")
    write_results(run, models, data.store, dataset, split, data.batch_size, facts, data.plot)
    epochs = ", ".join(str(member["best_epoch"]) for member in members)
    log.info("best epochs of the members: %s. Results: %s", epochs, run.folder)
    return math.inf if facts["val_score"] is None else facts["val_score"]


def _scores(
    cfg: DictConfig, members: Sequence[Predictor], network: Ensemble, data: Prepared
) -> ConformalScores | None:
    if cfg.ensemble_folds:
        return ConformalScores.joined([one.conformal for one in members if one.conformal])
    return calibration_scores(network, data)


def _about_all_folds(cfg: DictConfig, data: Prepared) -> tuple[dict[str, Any], Facts]:
    """Return what a checkpoint and metrics.json say of the training rows of all members."""
    store, split = data.dataset.store, data.split
    facts: Facts = {
        "n_rows": {part: len(rows) for part, rows in split.items()},
        "duplicates_across_splits": count_duplicates(store, split)[0],
        "shared_compositions": shared_compositions(store, split),
    }
    description = describe_training(cfg, data)
    if cfg.trainer.refit:
        description |= {**describe_training(cfg, data.on_all_rows()), "data": description["data"]}
        facts |= leaks_of_refit(data, facts)
    return description, facts


def _ensemble(members: Sequence[Predictor], data: Prepared) -> Ensemble:
    networks = [cast(CrystalGraphNetwork, member.network) for member in members]
    return Ensemble(networks, have_std(data.dataset.targets)).to(data.device)


def _facts(members: Sequence[Facts]) -> Facts:
    """Return the entries of metrics.json that describe the training of all members."""
    shared = ("units", "n_rows", "n_rejected", "duplicates_across_splits", "shared_compositions")
    of_member = ("val", "test", "best_epoch", "seconds", "head", "refit")
    refits = [member["refit"] for member in members if "refit" in member]
    numbers = ("n_rows", "epochs", "steps", "n_skipped_batches")
    refit = {key: max(found[key] for found in refits) for key in numbers if refits}
    scores = [member["val_score"] for member in members]
    return {
        **{key: members[0][key] for key in shared},
        "best_epoch": max(member["best_epoch"] for member in members),
        "epochs": max(member["epochs"] for member in members),
        "val_score": None if None in scores else sum(scores) / len(scores),
        "n_parameters": sum(member["n_parameters"] for member in members),
        "seconds": sum(member["seconds"] for member in members),
        "n_skipped_batches": sum(member["n_skipped_batches"] for member in members),
        "outcome": "; ".join(dict.fromkeys(member["outcome"] for member in members)),
        **({"refit": refit} if refits else {}),
        "members": [{key: member[key] for key in of_member if key in member} for member in members],
    }


def _join_metrics(folders: Sequence[Path], path: Path) -> None:
    """Write metrics.csv of all members, with a column that numbers them."""
    rows: list[list[str]] = []
    header: list[str] = []
    for number, folder in enumerate(folders):
        if not (folder / "metrics.csv").exists():
            return  # trainer.max_epochs=0
        with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
            header, *of_member = csv.reader(file)
            rows += [[str(number), *row] for row in of_member]
    write_csv(path, ["member", *header], rows)
