"""Runs of a command that trains several in its folder: each is resumed, or skipped if finished."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from csgcnn.commands.ensemble import minutes_left
from csgcnn.commands.job import Job
from csgcnn.commands.prepare import plain, read_dataset
from csgcnn.commands.site_features import pin_site_features
from csgcnn.commands.train import train
from csgcnn.config.settings.run import RunSettings
from csgcnn.data.dataset import Dataset
from csgcnn.data.record_reports import RecordReports
from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError
from csgcnn.evaluation.benchmark_summary import Fold
from csgcnn.hardware import select_device
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.runs.results import read_fold
from csgcnn.training.resume import check_same_run, last_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run of a command that trains several.

    Attributes:
        number: Number of its fold or repeat.
        name: Path of its folder within that of the command.
        label: Which run it is, such as "fold 1 of 5".
        config: Configuration of its training.
        digest: Digest of its data and split.
    """

    number: int
    name: str
    label: str
    config: DictConfig
    digest: str

    def is_finished(self, home: Path) -> bool:
        """Return whether the run is finished, also by another process.

        Args:
            home: Folder of the command.

        Raises:
            ConfigError: The run was started with another configuration.
            UserError: The run was started with other data.
        """
        folder = home / self.name
        checkpoint, best = None, folder / "checkpoints" / "best.ckpt"
        if self.config.ensemble == 1:
            checkpoint = last_checkpoint(best.parent)
        elif best.exists():
            # of a finished ensemble
            checkpoint = load_checkpoint(best)
        if checkpoint:
            check_same_run(checkpoint, plain(self.config), self.digest, is_fold=True)
        return bool(checkpoint) and (folder / "metrics.json").exists()

    def result(self, home: Path, target: Target) -> Fold | None:
        """Return the result of the run if it is finished.

        Args:
            home: Folder of the command.
            target: The target to read.
        """
        return read_fold(self.number, home / self.name, target) if self.is_finished(home) else None


def run_config(cfg: DictConfig) -> DictConfig:
    """Return the configuration of a training, without the keys that only the command has."""
    names = {item.name for item in fields(RunSettings)}
    run = OmegaConf.create({name: value for name, value in plain(cfg).items() if name in names})
    run.resume = "auto"
    return run


def check_not_resumed(cfg: DictConfig, what: str) -> None:
    """Check that `resume` is not given to a command that always resumes.

    Args:
        cfg: Configuration of the command.
        what: What it makes, such as "a benchmark".

    Raises:
        ConfigError: It is given.
    """
    if cfg.resume not in (None, "auto"):
        raise ConfigError(
            f"resume={cfg.resume}: the same command resumes {what}; for another folder give "
            "hydra.run.dir=FOLDER"
        )


def read_data(cfg: DictConfig, job: Job) -> Dataset:
    """Select the device of the runs, and read their data set.

    Args:
        cfg: Configuration of the command.
        job: Its folder.
    """
    pin_site_features(cfg)
    select_device(cfg.trainer.device, cfg.trainer.threads, cfg.trainer.deterministic)
    return read_dataset(cfg, RecordReports.within(job.folder))


def train_unfinished(
    runs: Sequence[PlannedRun], job: Job, start: float, on_trained: Callable[[], object]
) -> None:
    """Train the runs that are not finished, one after another.

    Args:
        runs: The runs.
        job: Folder of the command.
        start: When the command began, by `time.monotonic`; `trainer.max_minutes` limits its time.
        on_trained: Called after each training.

    Raises:
        ConfigError: A run was started with another configuration.
        UserError: A run was started with other data.
    """
    for run in runs:
        part = job.within(run.name, run.label)
        if run.is_finished(job.folder):
            log.info("%s is finished: %s", part.label, part.folder)
            continue
        log.info("%s: %s", part.label, part.folder)
        config = OmegaConf.create(plain(run.config))
        minutes = config.trainer.max_minutes
        config.trainer.max_minutes = minutes_left(minutes, time.monotonic() - start)
        try:
            train(config, part)
        except (SystemExit, KeyboardInterrupt):
            log.warning("rerun the same command to resume all runs")
            raise
        on_trained()
