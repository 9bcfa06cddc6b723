"""`csgcnn learning-curve`: test error against the number of training crystals."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

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
from csgcnn.config.compose import as_argument
from csgcnn.config.paths import CURVE_KEYS, overrides_of_result
from csgcnn.config.settings.plot import PlotSettings
from csgcnn.data.dataset import Dataset
from csgcnn.data.label_checks import check_labels
from csgcnn.data.split_files import CALIBRATION
from csgcnn.data.split_sizes import limit_train
from csgcnn.data.splits import split_dataset
from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError, UserError
from csgcnn.evaluation.curve_summary import markdown, plot_curve, summarize
from csgcnn.evaluation.figure_files import draw, write_numbers
from csgcnn.io import write_json, write_text
from csgcnn.training.resume import data_digest

log = logging.getLogger(__name__)

ALL = "all"
NO_CALIBRATION = "a learning curve measures no intervals, and calibration rows are not trained on"
# A number of crystals, or `all`.
Size = int | str


@dataclass(frozen=True, slots=True)
class _Run:
    """A run with its place in the curve."""

    size: Size
    planned: PlannedRun
    test: Tensor


def learning_curve(cfg: DictConfig, job: Job) -> dict[str, Any]:
    """Train with each size in each repeat what is not finished, and fit a power law.

    Repeat r adds r to the seeds of split, subsets and networks. Within a repeat, the training rows
    of a size contain those of the smaller sizes; the validation and test rows are the same.

    Args:
        cfg: Configuration of the command.
        job: Its folder.

    Returns:
        The content of summary.json.

    Raises:
        ConfigError: The configuration has no learning curve, or is not that of earlier runs.
        UserError: The data cannot be used with one of the sizes.
    """
    start = time.monotonic()
    sizes = _sizes(cfg.sizes)
    _check(cfg)
    dataset = read_data(cfg, job)
    runs = list(_runs(cfg, dataset, sizes))
    planned = [run.planned for run in runs]
    # Refuse runs with other settings before any is trained.
    _ = [run.is_finished(job.folder) for run in planned]
    target = dataset.targets[0]
    train_unfinished(planned, job, start, lambda: _write_summary(cfg, job, runs, target))
    summary = _write_summary(cfg, job, runs, target)
    log.info("%s\nResults: %s", markdown(summary), job.folder)
    return summary


def _sizes(given: Any) -> list[Size]:
    """Return the sizes in increasing order."""
    is_list = isinstance(given, Sequence) and not isinstance(given, str)
    listed = list(given) if is_list else [given]
    is_valid = all(size == ALL or (type(size) is int and size > 0) for size in listed)
    if not listed or not is_valid or len(set(listed)) < len(listed):
        raise ConfigError(
            f"sizes={as_argument(listed)}: expected different numbers of training crystals, or "
            "all, such as sizes=[50,100,200,all]"
        )
    numbers = sorted(size for size in listed if isinstance(size, int))
    return [*numbers, *[ALL] * (ALL in listed)]


def _check(cfg: DictConfig) -> None:
    check_not_resumed(cfg, "a learning curve")
    if cfg.dataset.split.train_size is not None:
        raise ConfigError("dataset.split.train_size has no effect; sizes=… chooses the sizes")
    if calibration := cfg.dataset.split.calibration:
        raise ConfigError(f"dataset.split.calibration={calibration}: {NO_CALIBRATION}; omit it")
    if cfg.ensemble_folds:
        raise ConfigError(f"ensemble_folds=true: {NO_CALIBRATION}; omit it")
    if cfg.trainer.refit:
        recipe = f", which recipe={cfg.recipe} sets" if cfg.recipe == "small" else ""
        raise ConfigError(
            f"trainer.refit=true{recipe}: the refit adds the validation rows, whose number is the "
            "same for each size; give trainer.refit=false"
        )


def _runs(cfg: DictConfig, dataset: Dataset, sizes: Sequence[Size]) -> Iterator[_Run]:
    """Yield the runs of all repeats, the smallest size first, with splits that can be trained."""
    settings = dataset_settings(cfg).split
    for repeat in range(cfg.repeats):
        of_repeat = replace(settings, seed=settings.seed + repeat)
        split = split_dataset(dataset, of_repeat)
        if CALIBRATION in split:
            raise ConfigError(f"{settings.file} names calibration rows: {NO_CALIBRATION}")
        _check_sizes(sizes, len(split["train"]), len(split["test"]))
        for size in sizes:
            n_rows = None if size == ALL else int(size)
            limited = limit_train(split, replace(of_repeat, train_size=n_rows))
            try:
                check_labels(dataset.values[limited["train"]], dataset.targets)
            except UserError as error:
                raise UserError(f"size {size} of repeat {repeat}: {error}") from error
            config = run_config(cfg)
            # Members of an ensemble have consecutive seeds.
            config.seed = cfg.seed + repeat * cfg.ensemble
            config.dataset.split.seed = of_repeat.seed
            config.dataset.split.train_size = n_rows
            name = f"repeat-{repeat}/size-{size}"
            label = f"repeat {repeat} of {cfg.repeats}, size {size}"
            planned = PlannedRun(repeat, name, label, config, data_digest(dataset, limited))
            yield _Run(size, planned, limited["test"])


def _check_sizes(sizes: Sequence[Size], n_train: int, n_test: int) -> None:
    if not n_test:
        raise ConfigError(
            "there are no test rows, whose error a learning curve shows; give "
            "dataset.split.test=0.1"
        )
    numbers = [size for size in sizes if isinstance(size, int)]
    if numbers and numbers[-1] + (ALL in sizes) > n_train:
        smaller = [size for size in numbers if size < n_train]
        raise ConfigError(
            f"sizes={as_argument(sizes)}: the split has {n_train} training crystals, and `all` "
            f"stands for these; give sizes={as_argument([*smaller, ALL])}"
        )


def _write_summary(
    cfg: DictConfig, job: Job, runs: Sequence[_Run], target: Target
) -> dict[str, Any]:
    """Write summary.json, summary.md, the table of errors and the figure; return the summary."""
    points = [
        (run.size, result) for run in runs if (result := run.planned.result(job.folder, target))
    ]
    summary = summarize(_facts(cfg, job, runs), target, points, len(runs))
    write_json(job.folder / "summary.json", summary)
    write_text(job.folder / "summary.md", markdown(summary))
    path = job.folder / "error_by_size"
    columns = ("repeat", "size", "n_train", "error")
    write_numbers(path, {name: [run[name] for run in summary["runs"]] for name in columns})
    if cfg.trainer.figures and points:
        plot = PlotSettings(**plain(cfg.plot))
        draw(lambda: plot_curve(summary, target, path, plot))
    return summary


def _facts(cfg: DictConfig, job: Job, runs: Sequence[_Run]) -> dict[str, Any]:
    tests = [
        next(group).test.tolist() for _, group in groupby(runs, lambda run: run.planned.number)
    ]
    return {
        "csgcnn": __version__,
        "dataset": cfg.dataset.path,
        "method": cfg.dataset.split.method,
        "recipe": job.recipe,
        "overrides": overrides_of_result(job.overrides, CURVE_KEYS),
        "seed": cfg.seed,
        "split_seed": cfg.dataset.split.seed,
        "repeats": cfg.repeats,
        "same_test_rows": len(tests) > 1 and all(sorted(t) == sorted(tests[0]) for t in tests),
    }
