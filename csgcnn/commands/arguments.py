"""Run commands from Python: arguments as overrides and configurations, messages as output."""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from csgcnn.commands.frames import is_frame, write_frame
from csgcnn.config.compose import compose, to_overrides
from csgcnn.config.keys import command_keys
from csgcnn.config.locations import group_names, option_names
from csgcnn.config.override import ALIASES, SHORT_NAMES
from csgcnn.config.paths import claim_directory
from csgcnn.config.plugins import plugins_loaded
from csgcnn.config.tree import leaves
from csgcnn.config.validate import validate
from csgcnn.errors import ConfigError, DataWarning, first_line, nearest
from csgcnn.io import writing

DATA_FILE = "dataset.jsonl.gz"


def dataset_keys(dataset: Any, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides that select a data set, which is written to the folder if needed.

    Args:
        dataset: Option of the group `dataset`, path, DataFrame, or None for the default.
        folder: Folder for the file of a DataFrame.
        settings: The other arguments.
    """
    if dataset is None:
        return {}
    if is_frame(dataset):
        column = settings.get("dataset.structure_column")
        return {"dataset": "csv", "dataset.hint": ""} | write_frame(
            dataset, folder / DATA_FILE, column
        )
    if str(dataset) in option_names("dataset") and not Path(dataset).exists():
        return {"dataset": str(dataset)}
    return {"dataset": "csv", "dataset.hint": "", "dataset.path": str(dataset)}


def new_folder(folder: str | Path | None, name: str) -> Path:
    """Return the folder of a run, which is made.

    Args:
        folder: The folder; None: a new one in `runs/`.
        name: End of the name of a new one.

    Raises:
        UserError: It cannot be made.
    """
    if folder is None:
        return Path(claim_directory(f"{datetime.now():runs/%Y-%m-%d/%H-%M-%S}_{name}"))
    path = Path(folder).expanduser()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def full_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by the keys of the command line.

    Raises:
        ConfigError: There is no such key.
    """
    keys = {SHORT_NAMES.get(name, name): value for name, value in settings.items()}
    known = {*group_names(), *ALIASES, *SHORT_NAMES}
    known |= {name.partition(".")[0] for name in command_keys("train")}
    for name in keys:
        if name.partition(".")[0] not in known:
            raise ConfigError(f"there is no argument {name}{nearest(name, sorted(known))}")
    return keys


def _with_entries(command: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which entries of a dict, such as dataset.units.gap, are in the dict."""
    keys = command_keys(command)
    dicts = [name for name, key in keys.items() if key.type.startswith("dict")]
    found: dict[str, Any] = {}
    for key, value in settings.items():
        parent = next((name for name in dicts if key.startswith(f"{name}.")), None)
        if parent:
            found[parent] = {**found.get(parent, {}), key.removeprefix(f"{parent}."): value}
        else:
            found[key] = {**(value or {}), **found[key]} if key in found else value
    return found


def compose_settings(
    command: str, settings: Mapping[str, Any], config_dir: Path | None = None
) -> DictConfig:
    """Return the configuration of a command.

    Args:
        command: Name of the command.
        settings: Values by key of the command line.
        config_dir: Folder of a run, whose configuration is used instead of the one of the command.

    Raises:
        ConfigError: A key or value is wrong.
    """
    try:
        return compose(
            command,
            to_overrides(_with_entries(command, settings)),
            config_dirs=[config_dir] if config_dir else [],
            config_name="config" if config_dir else None,
        )
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error.__cause__ or error)) from error


class _Report(logging.Handler):
    """Print messages, and pass warnings to `warnings`."""

    def __init__(self, verbose: bool) -> None:
        super().__init__()
        self.verbose = verbose

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            warnings.warn(record.getMessage(), DataWarning, stacklevel=2)
        elif self.verbose:
            print(record.getMessage(), flush=True)


@contextmanager
def called(
    command: str,
    cfg: DictConfig,
    settings: Mapping[str, Any],
    verbose: bool,
    log_file: Path | None = None,
) -> Iterator[None]:
    """Check the configuration of a command, which the block runs, and report its messages.

    Args:
        command: Name of the command.
        cfg: Its configuration.
        settings: Values by key of the command line that were given.
        verbose: Whether to print messages; warnings are always passed to `warnings`.
        log_file: File to which messages and warnings are appended.

    Raises:
        ConfigError: A key has no effect, or a value is wrong.
    """
    logger = logging.getLogger("csgcnn")
    handlers: list[logging.Handler] = [_Report(verbose)]
    if log_file is not None:
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    # A dict sets a key for each of its entries.
    given = [name for key, value in settings.items() for name, _ in leaves(value, key)]
    try:
        with plugins_loaded(cfg.plugins):
            validate(cfg, command, given)
            yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(level)
        logger.propagate = propagate


@contextmanager
def prepared(
    command: str, dataset: Any, settings: Mapping[str, Any], verbose: bool
) -> Iterator[DictConfig]:
    """Provide the checked configuration of a command that reads a data set.

    Args:
        command: Name of the command.
        dataset: The data set, as for `dataset_keys`.
        settings: The other arguments, by key of the command line.
        verbose: Whether to print messages.
    """
    with tempfile.TemporaryDirectory() as scratch:
        keys = dataset_keys(dataset, Path(scratch), settings)
        cfg = compose_settings(command, {**keys, **settings})
        with called(command, cfg, settings, verbose):
            yield cfg


@contextmanager
def removed_if_refused(folder: Path) -> Iterator[None]:
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
