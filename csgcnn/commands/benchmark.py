"""`csgcnn benchmark`: the folds of a public task, each a run of its own, and their mean beside published models."""

import gzip
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from csgcnn import __version__
from csgcnn.commands.prepare import load_dataset
from csgcnn.commands.train import train_in
from csgcnn.config.paths import overrides_of_result
from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split, split_rows
from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError
from csgcnn.evaluation.baselines import (
    baseline_metrics,
    composition_features,
    predict_by_composition,
)
from csgcnn.evaluation.benchmark_summary import COMPOSITION, MEAN, markdown, summarize
from csgcnn.evaluation.matbench import matbench_record
from csgcnn.evaluation.metrics import Metrics, target_metrics
from csgcnn.hardware import select_device
from csgcnn.io import write_bytes, write_json, write_text
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.runs.results import read_fold
from csgcnn.training.resume import check_same_run, data_digest, last_checkpoint

log = logging.getLogger(__name__)

OWN_KEYS = ("task", "folds")  # the others are those of a training


def benchmark(cfg: DictConfig) -> None:
    """Run the folds that are asked for and not finished, and say what all that are finished amount to."""
    start, folder = time.monotonic(), Path(HydraConfig.get().runtime.output_dir)
    _check(cfg)
    folds = _wanted(cfg.folds, cfg.task.n_folds)
    select_device(cfg.trainer.device, cfg.trainer.threads, cfg.trainer.deterministic)
    graph, rejected = GraphSettings(**cfg.graph), folder / "rejected.csv"
    dataset = load_dataset(cfg.dataset, graph, rejected, cfg.trainer.workers, cfg.trainer.progress)
    settings = [
        SplitSettings(**_training(cfg, fold).dataset.split) for fold in range(cfg.task.n_folds)
    ]
    splits = [split_rows(dataset.store, dataset.rows, of_fold) for of_fold in settings]
    data = [data_digest(dataset, split) for split in splits]
    target, n_rows = dataset.targets[0], sum(len(split["test"]) for split in splits)
    baselines = _baselines(dataset, splits)
    del dataset, splits  # each run has its own
    for fold in folds:
        run = folder / f"fold-{fold}"
        if fold in _finished(folder, cfg, data):
            log.info("fold %d of %d is finished: %s", fold, cfg.task.n_folds, run)
            continue
        log.info("fold %d of %d: %s", fold, cfg.task.n_folds, run)
        run.mkdir(exist_ok=True)
        train_in(run, _training(cfg, fold, time.monotonic() - start))
        _write_summary(cfg, folder, target, data, n_rows, baselines)
    log.info(
        "%s\neverything is in %s",
        _write_summary(cfg, folder, target, data, n_rows, baselines),
        folder,
    )


def _check(cfg: DictConfig) -> None:
    method = cfg.dataset.split.method
    if method not in ("fold", "matbench"):
        raise ConfigError(
            f"dataset.split.method={method}: a benchmark has folds, expected fold or matbench"
        )
    if cfg.resume not in (None, "auto"):
        raise ConfigError(
            f"resume={cfg.resume}: a benchmark goes on by itself; to say where, hydra.run.dir=FOLDER"
        )
    if not cfg.dataset.targets:
        raise ConfigError(
            "dataset.targets: the first is what the benchmark measures; please name it"
        )


def _wanted(folds: Any, n_folds: int) -> list[int]:
    if folds is None:
        return list(range(n_folds))
    wanted = [folds] if isinstance(folds, int) else folds
    is_wrong = [
        type(fold) is not int or fold not in range(n_folds) or list(wanted).count(fold) > 1
        for fold in wanted
    ]
    if not wanted or any(is_wrong):
        raise ConfigError(
            f"folds={folds}: expected one or a list of 0 to {n_folds - 1}, such as folds=[0,1]"
        )
    return list(wanted)


def _training(cfg: DictConfig, fold: int, seconds: float = 0) -> DictConfig:
    """The configuration of a fold's run, `seconds` after the start of the benchmark."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    own = OmegaConf.create({key: value for key, value in plain.items() if key not in OWN_KEYS})
    own.resume, own.dataset.split.fold = "auto", fold
    if own.trainer.max_minutes:
        own.trainer.max_minutes = max(own.trainer.max_minutes - seconds / 60, 1e-3)
    return own


def _finished(folder: Path, cfg: DictConfig, data: Sequence[str]) -> list[int]:
    """The folds whose runs are finished; `data`: what `data_digest` says of each.

    Raises:
        ConfigError: a run was started with another configuration.
        UserError: or with other data.
    """
    finished = []
    for fold, digest in enumerate(data):
        run = folder / f"fold-{fold}"
        if checkpoint := _checkpoint(run, cfg.ensemble > 1):
            config: Any = OmegaConf.to_container(_training(cfg, fold))
            check_same_run(checkpoint, config, digest, is_fold=True)
            finished += [fold] if (run / "metrics.json").exists() else []
    return finished


def _checkpoint(run: Path, is_ensemble: bool) -> dict[str, Any] | None:
    """What says of a run with which configuration and data it was started; an ensemble's lies there when it is done."""
    best = run / "checkpoints" / "best.ckpt"
    if is_ensemble:
        return load_checkpoint(best) if best.exists() else None
    return last_checkpoint(best.parent)


def _baselines(dataset: Dataset, splits: list[Split]) -> dict[str, list[Metrics]]:
    """Metrics per fold of the mean (of classes: the shares) of all rows but the test rows, and of the composition."""
    target, values, features = (
        dataset.targets[0],
        dataset.values[:, :1],
        composition_features(dataset.store),
    )
    found: dict[str, list[Metrics]] = {MEAN: [], COMPOSITION: []}
    for split in splits:
        known, test = values[torch.cat([split["train"], split["val"]])], values[split["test"]]
        prediction = predict_by_composition(features, values[:, 0], split, len(target.classes))
        found[MEAN].append(baseline_metrics(known, test, [target])[target.name])
        found[COMPOSITION].append(target_metrics(prediction, test, [target])[target.name])
    return found


def _write_summary(
    cfg: DictConfig,
    folder: Path,
    target: Target,
    data: Sequence[str],
    n_rows: int,
    baselines: Mapping[str, list[Metrics]],
) -> str:
    """Write summary.json, summary.md and, if the score is one, results.json.gz; returns the text.

    Finished are also folds that other processes ran meanwhile.
    """
    folds = [
        read_fold(fold, folder / f"fold-{fold}", target) for fold in _finished(folder, cfg, data)
    ]
    facts = {
        "task": cfg.task.name,
        "csgcnn": __version__,
        "recipe": HydraConfig.get().runtime.choices["recipe"],
        "words": _words(),
        "seed": cfg.seed,
        "split_seed": cfg.dataset.split.seed,
        "source": cfg.task.source,
    }
    shortfall = _shortfall(cfg, len(folds), n_rows)
    summary = summarize(facts, target, folds, baselines, cfg.task.published, shortfall)
    write_json(folder / "summary.json", summary)
    write_text(folder / "summary.md", text := markdown(summary))
    if not shortfall and len(target.classes) in (0, 2):
        record = matbench_record(cfg.task.name, target, folds, {**facts, "score": summary["score"]})
        write_bytes(folder / "results.json.gz", gzip.compress(json.dumps(record).encode()))
    return text


def _words() -> list[str]:
    """The words of the command line that decide what is trained, as they decide on the folder."""
    return overrides_of_result(HydraConfig.get().overrides.task)


def _shortfall(cfg: DictConfig, n_done: int, n_rows: int) -> str:
    missing = []
    if n_done < cfg.task.n_folds:
        missing.append(f"{n_done} of {cfg.task.n_folds} folds")
    if cfg.task.n_rows not in (None, n_rows):
        missing.append(f"{n_rows:,} of {cfg.task.n_rows:,} crystals")
    return f"{' and '.join(missing)}: not a Matbench score" if missing else ""
