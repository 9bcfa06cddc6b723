"""Commands as functions, for scripts and notebooks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from csgcnn.commands.arguments import (
    called,
    compose_settings,
    dataset_keys,
    full_keys,
    new_folder,
    prepared,
    removed_if_refused,
)
from csgcnn.commands.describe import describe as run_describe
from csgcnn.commands.evaluate import evaluate as run_evaluate
from csgcnn.commands.job import Job
from csgcnn.commands.learning_curve import learning_curve as run_learning_curve
from csgcnn.commands.train import train as run_train
from csgcnn.config.compose import to_overrides
from csgcnn.config.plugins import check_opt_in
from csgcnn.errors import ConfigError, UserError
from csgcnn.evaluation.data_report import DataReport
from csgcnn.io import read_json
from csgcnn.predictor import Predictor, load
from csgcnn.runs.locate import find_run

if TYPE_CHECKING:
    import pandas as pd

LEARNING_CURVE = "learning-curve"


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
        home = new_folder(folder, model or "csgann")
        if (home / "config.yaml").exists():
            raise UserError(
                f"{home} already holds a run, which is never overwritten: resume it with "
                f"csgcnn.train(resume={str(home)!r}), or choose another folder"
            )
        with removed_if_refused(home):
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


def learning_curve(
    dataset: "str | Path | pd.DataFrame | None" = None,
    target: str | Sequence[str] | None = None,
    sizes: Sequence[int | str] = (50, 100, 200, 400, "all"),
    repeats: int = 3,
    *,
    folder: str | Path | None = None,
    verbose: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Measure test errors against the number of training crystals, as `csgcnn learning-curve` does.

    Args:
        dataset: Option of the group `dataset` (by default "dielectric"), a data file or folder, or
            a DataFrame with a column of structures and columns of targets.
        target: Column to predict, or several, of which the first one is measured.
        sizes: Numbers of training crystals; "all" is the training part.
        repeats: Times that the data are divided and trained on.
        folder: Folder of the runs; those that are there are resumed. By default a new one in
            `runs/`.
        verbose: Whether to print what the command prints.
        **settings: Keys and groups of the command line, as for `csgcnn.train`.

    Returns:
        The content of summary.json: `sizes`, `runs`, and `power_law`, or None with the reason in
        `contradiction`.

    Raises:
        UserError: The data or the settings cannot be used.
        KeyboardInterrupt: The command was interrupted; with the same folder it resumes.

    Examples:
        >>> curve = csgcnn.learning_curve("dielectric", sizes=[50, 100, 200, "all"], folder="curve")
        >>> curve["power_law"]["extrapolated"]
    """
    home = new_folder(folder, LEARNING_CURVE)
    targets = [target] if isinstance(target, str) else target
    given = settings if targets is None else settings | {"target": targets}
    keys = full_keys(given | dataset_keys(dataset, home, given))
    keys |= {"sizes": list(sizes), "repeats": repeats}
    cfg = compose_settings(LEARNING_CURVE, keys)
    return _run(LEARNING_CURVE, run_learning_curve, cfg, home, verbose, keys)


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
    paths = str(ckpt) if isinstance(ckpt, str | Path) else [*map(str, ckpt)]
    settings |= {"ckpt": paths, "split": split}
    with prepared("evaluate", dataset, settings, verbose) as cfg:
        found = run_evaluate(cfg)
    return EvaluationResult(found.metrics, found.predictions)


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
    with prepared("describe", dataset, settings, verbose) as cfg:
        return run_describe(cfg)


def _train(cfg: DictConfig, folder: Path, verbose: bool, keys: Mapping[str, Any]) -> TrainingResult:
    _run("train", run_train, cfg, folder, verbose, keys)
    return TrainingResult(folder, tuple(cfg.plugins))


def _run(
    command: str,
    run: Callable[[DictConfig, Job], Any],
    cfg: DictConfig,
    folder: Path,
    verbose: bool,
    keys: Mapping[str, Any],
) -> Any:
    """Run a command that trains; the error of one that was stopped says how to resume it."""
    with called(command, cfg, keys, verbose, folder / f"{command}.log"):
        try:
            return run(cfg, Job(folder, to_overrides(keys), recipe=cfg.recipe))
        except SystemExit as stop:
            function = "train(resume" if command == "train" else "learning_curve(folder"
            has_run = any(folder.rglob("config.yaml"))
            advice = f"; csgcnn.{function}={str(folder)!r}) resumes it" if has_run else ""
            kind = KeyboardInterrupt if stop.code == 130 else UserError
            raise kind(f"csgcnn {command} was stopped{advice}") from None
