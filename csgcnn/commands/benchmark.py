"""`csgcnn benchmark`: train on each fold of a public task, or of your own data."""

import gzip
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from csgcnn import __version__
from csgcnn.commands.job import Job
from csgcnn.commands.planned_runs import (
    PlannedRun,
    check_not_resumed,
    read_data,
    run_config,
    train_unfinished,
)
from csgcnn.commands.prepare import dataset_settings, plain
from csgcnn.config.paths import overrides_of_result
from csgcnn.config.settings.dataset import COUNTED_METHODS, DIVIDING_METHODS, FOLD_METHODS
from csgcnn.data.composition_model import composition_features
from csgcnn.data.dataset import Dataset
from csgcnn.data.matbench import is_official_fold
from csgcnn.data.splits import Split, split_dataset, split_ids
from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError
from csgcnn.evaluation.baselines import baseline_metrics, composition_metrics
from csgcnn.evaluation.benchmark_summary import COMPOSITION, MEAN, markdown, summarize
from csgcnn.evaluation.matbench import matbench_record
from csgcnn.evaluation.metrics import Metrics
from csgcnn.io import write_bytes, write_json, write_text
from csgcnn.training.resume import data_digest

log = logging.getLogger(__name__)

# name of the task where there is none
CROSS_VALIDATION = "cross-validation"


@dataclass(frozen=True, slots=True)
class _Data:
    """What the summary needs to know of the data.

    Attributes:
        target: The first target, which the benchmark measures.
        digests: Digest of data and split for each fold.
        n_test: Test rows of all folds.
        unofficial: Folds whose test rows are not those of Matbench.
        baselines: Metrics of each baseline, fold by fold.
        in_distribution: Likewise on rows in the distribution of the training rows.
    """

    target: Target
    digests: list[str]
    n_test: int
    unofficial: list[int]
    baselines: dict[str, list[Metrics]]
    in_distribution: dict[str, list[Metrics]]


def benchmark(cfg: DictConfig, job: Job) -> None:
    """Train on the folds that are not finished, and summarize all that are.

    Args:
        cfg: Configuration of the benchmark.
        job: Its folder.

    Raises:
        ConfigError: The configuration is not that of a benchmark, or not that of earlier folds.
    """
    start = time.monotonic()
    cfg = cfg if cfg.task.name else _cross_validation(cfg)
    _check(cfg)
    folds = _folds_to_run(cfg.folds, cfg.task.n_folds)
    data = _read(cfg, read_data(cfg, job))
    if data.unofficial:
        log.warning("%s: this will not be a Matbench score", _other_folds(data.unofficial))
    runs = _planned(cfg, data.digests)
    # Refuse a fold with other settings before any is trained.
    _ = [run.is_finished(job.folder) for run in runs]
    chosen = [runs[fold] for fold in folds]
    train_unfinished(chosen, job, start, lambda: _write_summary(cfg, job, data, runs))
    log.info("%s\nResults: %s", _write_summary(cfg, job, data, runs), job.folder)


def _cross_validation(cfg: DictConfig) -> DictConfig:
    """Return the configuration of a benchmark of your own data, which has no task.

    A number of folds stands for the method kfold, unless the method has folds already.
    """
    cfg = OmegaConf.create(plain(cfg))
    split = cfg.dataset.split
    n_folds = cfg.folds if isinstance(cfg.folds, int) else None
    if n_folds is not None and n_folds < 2:
        raise ConfigError(f"folds={n_folds}: expected at least 2 folds, or a task")
    if n_folds is not None and split.method == "random":
        split.method = "kfold"
    if cfg.repeats > 1 and split.method not in DIVIDING_METHODS:
        raise ConfigError(f"repeats={cfg.repeats}: dataset.split.method={split.method} has none")
    if split.method in COUNTED_METHODS:
        split.folds = n_folds or split.folds
        split.repeats = max(cfg.repeats, split.repeats)
        cfg.task.n_folds = split.folds * split.repeats
    else:
        cfg.task.n_folds = n_folds or cfg.task.n_folds
    cfg.folds = None if n_folds else cfg.folds
    cfg.task.name = CROSS_VALIDATION
    return cfg


def _check(cfg: DictConfig) -> None:
    method = cfg.dataset.split.method
    if method not in FOLD_METHODS:
        raise ConfigError(
            f"dataset.split.method={method}: a benchmark has folds, expected fold or matbench, or "
            f"for your own data {', '.join(COUNTED_METHODS)}"
        )
    if cfg.task.name != CROSS_VALIDATION and cfg.repeats > 1:
        raise ConfigError(f"repeats={cfg.repeats}: the folds of a task are fixed; omit it")
    check_not_resumed(cfg, "a benchmark")
    if not cfg.dataset.targets and cfg.task.n_rows:
        raise ConfigError("dataset.targets: expected a list; its first entry is measured")


def _folds_to_run(folds: Any, n_folds: int) -> list[int]:
    if folds is None:
        return list(range(n_folds))
    listed = [folds] if isinstance(folds, int) else list(folds) if folds else []
    is_valid = all(type(fold) is int and 0 <= fold < n_folds for fold in listed)
    if not listed or isinstance(folds, str) or not is_valid or len(set(listed)) < len(listed):
        raise ConfigError(
            f"folds={folds}: expected one or a list of 0 to {n_folds - 1}, such as folds=[0,1]"
        )
    return listed


def _planned(cfg: DictConfig, digests: Sequence[str]) -> list[PlannedRun]:
    """Return the runs of all folds, whose digests are given."""
    runs = []
    for fold, digest in enumerate(digests):
        config = run_config(cfg)
        config.dataset.split.fold = fold
        label = f"fold {fold} of {len(digests)}"
        runs.append(PlannedRun(fold, f"fold-{fold}", label, config, digest))
    return runs


def _read(cfg: DictConfig, dataset: Dataset) -> _Data:
    settings = dataset_settings(cfg).split
    folds = [replace(settings, fold=fold) for fold in range(cfg.task.n_folds)]
    splits = [split_dataset(dataset, fold) for fold in folds]
    unofficial = [
        fold
        for fold, split in enumerate(splits)
        if not is_official_fold(cfg.task.name, fold, split_ids(dataset.store, split)["test"])
    ]
    inside = [s | {"test": s["in_distribution"]} for s in splits if "in_distribution" in s]
    return _Data(
        dataset.targets[0],
        [data_digest(dataset, split) for split in splits],
        sum(len(split["test"]) for split in splits),
        unofficial,
        _baselines(dataset, splits),
        _baselines(dataset, inside) if inside else {},
    )


def _baselines(dataset: Dataset, splits: Sequence[Split]) -> dict[str, list[Metrics]]:
    """Return metrics by fold of two baselines, fitted on all rows but the test rows.

    The baselines are the mean (of classes: the frequencies), and a model of the composition.
    """
    targets, values = dataset.targets[:1], dataset.values[:, :1]
    features = composition_features(dataset.store)
    found: dict[str, list[Metrics]] = {MEAN: [], COMPOSITION: []}
    for split in splits:
        known, test = values[torch.cat([split["train"], split["val"]])], values[split["test"]]
        name = targets[0].name
        found[MEAN].append(baseline_metrics(known, test, targets)[name])
        found[COMPOSITION].append(composition_metrics(features, values, split, targets)[name])
    return found


def _write_summary(cfg: DictConfig, job: Job, data: _Data, runs: Sequence[PlannedRun]) -> str:
    """Write summary.json, summary.md and, for a score, results.json.gz; return the text."""
    # also those that other processes ran
    folds = [found for run in runs if (found := run.result(job.folder, data.target))]
    shortfall = _shortfall(cfg, len(folds), data)
    facts = _facts(cfg, job)
    published, inside = cfg.task.published, data.in_distribution
    summary = summarize(facts, data.target, folds, data.baselines, published, shortfall, inside)
    write_json(job.folder / "summary.json", summary)
    write_text(job.folder / "summary.md", text := markdown(summary))
    is_task = cfg.task.name != CROSS_VALIDATION
    if is_task and not shortfall and len(data.target.classes) in (0, 2):
        facts["score"] = summary["score"]
        record = json.dumps(matbench_record(cfg.task.name, data.target, folds, facts))
        write_bytes(job.folder / "results.json.gz", gzip.compress(record.encode()))
    return text


def _facts(cfg: DictConfig, job: Job) -> dict[str, Any]:
    facts = {
        "task": cfg.task.name,
        "csgcnn": __version__,
        "recipe": job.recipe,
        "overrides": overrides_of_result(job.overrides),
        "seed": cfg.seed,
        "split_seed": cfg.dataset.split.seed,
        "source": cfg.task.source,
    }
    split = cfg.dataset.split
    if cfg.task.name == CROSS_VALIDATION:
        facts |= {"dataset": cfg.dataset.path, "method": split.method}
        facts |= {"repeats": split.repeats} if split.method in DIVIDING_METHODS else {}
    return facts


def _shortfall(cfg: DictConfig, n_finished: int, data: _Data) -> str:
    """Return what is missing for an official score, or nothing."""
    missing = []
    if n_finished < cfg.task.n_folds:
        missing.append(f"{n_finished} of {cfg.task.n_folds} folds")
    if cfg.task.n_rows not in (None, data.n_test):
        missing.append(f"{data.n_test:,} of {cfg.task.n_rows:,} crystals")
    if data.unofficial:
        missing.append(_other_folds(data.unofficial))
    score = "no mean yet" if cfg.task.name == CROSS_VALIDATION else "not a Matbench score"
    return f"{' and '.join(missing)}: {score}" if missing else ""


def _other_folds(folds: Sequence[int]) -> str:
    word = "folds" if len(folds) > 1 else "fold"
    return f"{word} {', '.join(map(str, folds))} with other test crystals than in Matbench"
