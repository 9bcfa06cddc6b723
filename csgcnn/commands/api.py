"""Commands as functions, for scripts and notebooks: train, evaluate, describe and report."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from csgcnn.commands.arguments import DATA_FILE, compose_settings, dataset_keys, full_keys, names
from csgcnn.commands.describe import describe as run_describe
from csgcnn.commands.evaluate import evaluate as run_evaluate
from csgcnn.commands.job import Job
from csgcnn.commands.report import report as run_report
from csgcnn.commands.reporting import reported
from csgcnn.commands.train import train as run_train
from csgcnn.config.compose import to_overrides
from csgcnn.config.paths import claim_directory
from csgcnn.config.plugins import check_opt_in, plugins_loaded
from csgcnn.config.settings.commands import COMMANDS
from csgcnn.config.validate import validate
from csgcnn.errors import ConfigError, UserError
from csgcnn.evaluation.data_report import DataReport
from csgcnn.io import read_json, writing
from csgcnn.predictor import Predictor, load
from csgcnn.runs.locate import find_run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainingResult:
    """A finished training.

    Attributes:
        folder: The run directory.
    """

    folder: Path
    _plugins: tuple[str, ...] = ()

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Content of metrics.json: errors by part and target, best epoch, sizes, time."""
        return read_json(self.folder / "metrics.json")

    @cached_property
    def predictions(self) -> "pd.DataFrame":
        """Known values, predictions and errors of the val and test rows."""
        import pandas as pd

        return pd.read_csv(self.folder / "predictions.csv", dtype={"id": str})

    @cached_property
    def predictor(self) -> Predictor:
        """The trained model, on the CPU."""
        return load(self.folder / "checkpoints" / "best.ckpt", plugins=self._plugins)


@dataclass(frozen=True)
class EvaluationResult:
    """Errors of a model on a data set.

    Attributes:
        metrics: Metrics by target.
        predictions: Known values, predictions and errors.
    """

    metrics: dict[str, dict[str, float]]
    predictions: "pd.DataFrame"


def train(
    dataset: "str | Path | pd.DataFrame | None" = None,
    target: str | Sequence[str] | None = None,
    model: str | None = None,
    *,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    verbose: bool = True,
    **settings: Any,
) -> TrainingResult:
    """Train a model, as `csgcnn train` does.

    Args:
        dataset: Option of the group `dataset` (by default "dielectric"), a data file or folder, or
            a DataFrame with a column of structures and columns of targets.
        target: Column to predict, or several.
        model: Option of the group `model`: csgcnn, csgann or csginn.
        folder: Run directory; by default a new one in `runs/`.
        resume: Run directory to resume. Its configuration is used; give only what differs.
        verbose: Whether to print what the command prints.
        **settings: Keys and groups of the command line: `seed=1`, `recipe="accurate"`,
            `**{"trainer.ema": None}`; those in `SHORT_NAMES` also by their short name:
            `max_epochs=50`, `batch_size=32`, `lr=1e-3`, `device="cpu"`.

    Returns:
        The result, with `metrics`, `predictions`, `predictor` and `folder`.

    Raises:
        UserError: The data or the settings cannot be used.
        KeyboardInterrupt: The training was interrupted; its message says how to resume.

    Examples:
        >>> result = csgcnn.train(dataset=frame, target="band_gap", max_epochs=50)
        >>> result.metrics["test"]["band_gap"]["mae"]
    """
    settings |= {"target": [target] if isinstance(target, str) else target, "model": model}
    given = {key: value for key, value in settings.items() if value is not None or "." in key}
    if resume is None:
        home = _new_folder(folder, model)
        with _removed_if_refused(home):
            given |= dataset_keys(dataset, home, given)
            keys = full_keys(given)
            return _train(compose_settings("train", keys), home, verbose, keys)
    home = find_run(Path(resume).expanduser())
    if dataset is not None:
        raise ConfigError("resume continues with the data of the run; omit dataset")
    keys = full_keys({**given, "resume": str(home)})
    cfg = compose_settings("train", keys, home)
    check_opt_in(cfg.plugins, settings.get("plugins", ()))
    return _train(cfg, home, verbose, keys)


def evaluate(
    ckpt: str | Path | Sequence[str | Path],
    dataset: "str | Path | pd.DataFrame",
    split: str | None = None,
    *,
    verbose: bool = True,
    **settings: Any,
) -> EvaluationResult:
    """Measure the errors of a trained model, as `csgcnn evaluate` does.

    Args:
        ckpt: Checkpoint, or several of an ensemble.
        dataset: Option of the group `dataset`, a data file or folder, or a DataFrame with a column
            of structures and columns of targets.
        split: Evaluate only the train, val or test rows of the training.
        verbose: Whether to print what the command prints.
        **settings: Keys of the command line, such as `device="cuda"`.

    Returns:
        The result, with `metrics` and `predictions`.

    Raises:
        UserError: The checkpoint or the data cannot be used.
    """
    import pandas as pd

    paths = str(ckpt) if isinstance(ckpt, str | Path) else [*map(str, ckpt)]
    settings |= {"ckpt": paths, "split": split}
    with _prepared("evaluate", dataset, settings, verbose) as cfg:
        found = run_evaluate(cfg)
    return EvaluationResult(found.metrics, pd.DataFrame(found.rows, columns=found.columns))


def describe(
    dataset: "str | Path | pd.DataFrame",
    target: str | Sequence[str] | None = None,
    *,
    verbose: bool = True,
    **settings: Any,
) -> DataReport:
    """Report what a data set holds and what to check, as `csgcnn describe` does.

    Args:
        dataset: Option of the group `dataset`, a data file or folder, or a DataFrame with a column
            of structures.
        target: Column to describe, or several; by default all columns of numbers.
        verbose: Whether to print the report.
        **settings: Keys of the command line, such as `max_difference=0.5`.

    Returns:
        The report; `to_dict()` returns it as plain data.

    Raises:
        UserError: The data cannot be read.
    """
    targets = [target] if isinstance(target, str) else target
    settings |= {"dataset.targets": targets} if targets is not None else {}
    with _prepared("describe", dataset, settings, verbose) as cfg:
        return run_describe(cfg)


def report(
    *paths: str | Path,
    output: str | Path | None = None,
    structures: str | Path | None = None,
) -> Path:
    """Write an HTML report, as `csgcnn report` does.

    Args:
        *paths: Runs, folders of runs, folders that `csgcnn evaluate` wrote, and tables of
            predictions beside known values; several are compared.
        output: The file, which is replaced; by default report.html in the first folder.
        structures: The data set or structure files; by default the data set of the run.

    Returns:
        The file.

    Raises:
        UserError: There are no predictions, or the file cannot be written.
    """
    return run_report(
        [Path(path).expanduser() for path in paths],
        None if output is None else Path(output).expanduser(),
        None if structures is None else str(structures),
    )


@contextmanager
def _prepared(
    command: str, dataset: Any, settings: Mapping[str, Any], verbose: bool
) -> Iterator[DictConfig]:
    """Provide the checked configuration of a command that reads a data set."""
    with tempfile.TemporaryDirectory() as scratch:
        keys = dataset_keys(dataset, Path(scratch), settings)
        cfg = compose_settings(command, {**keys, **settings})
        with plugins_loaded(cfg.plugins), reported(verbose):
            validate(cfg, COMMANDS[command], names(settings))
            yield cfg


def _train(cfg: DictConfig, folder: Path, verbose: bool, keys: Mapping[str, Any]) -> TrainingResult:
    with plugins_loaded(cfg.plugins), reported(verbose, folder / "train.log"):
        validate(cfg, COMMANDS["train"], names(keys))
        try:
            run_train(cfg, Job(folder, to_overrides(keys), recipe=cfg.recipe))
        except SystemExit as stop:
            raise _stopped(folder, stop.code) from None
    return TrainingResult(folder, tuple(cfg.plugins))


@contextmanager
def _removed_if_refused(folder: Path) -> Iterator[None]:
    """Remove a new run directory if the block fails before a run is there; keep other files."""
    try:
        yield
    except BaseException:
        if not (folder / "config.yaml").exists():
            for name in (DATA_FILE, "train.log", ".lock"):
                (folder / name).unlink(missing_ok=True)
            with suppress(OSError):
                (folder / "checkpoints").rmdir()
            with suppress(OSError):
                folder.rmdir()
        raise


def _new_folder(folder: str | Path | None, model: str | None) -> Path:
    if folder is None:
        name = f"{datetime.now():runs/%Y-%m-%d/%H-%M-%S}_{model or 'csgann'}"
        return Path(claim_directory(name))
    path = Path(folder).expanduser()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    if (path / "config.yaml").exists():
        raise UserError(
            f"{path} already holds a run, which is never overwritten: resume it with "
            f"csgcnn.train(resume={str(path)!r}), or choose another folder"
        )
    return path


def _stopped(folder: Path, code: Any) -> BaseException:
    """Return the error of a training that was stopped."""
    has_run = (folder / "config.yaml").exists()
    advice = f"; csgcnn.train(resume={str(folder)!r}) resumes it" if has_run else ""
    message = f"the training was stopped{advice}"
    return KeyboardInterrupt(message) if code == 130 else UserError(message)
