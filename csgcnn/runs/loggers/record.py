"""The protocol of a logger, and the records of a run in its loggers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from csgcnn.config.tree import leaves
from csgcnn.errors import ConfigError, one_line
from csgcnn.io import read_csv, read_json, write_json

log = logging.getLogger(__name__)

# Ids and outcomes of the records, by which a resumed run continues them.
RECORDS = "loggers.json"
FINISHED = "finished"
FIGURES = (".png", ".pdf", ".svg")

Row = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Start:
    """What a record starts from.

    Attributes:
        folder: Run directory.
        config: Configuration of the run, plain.
        id: Id of the record to continue; None: a new one.
        epoch: Epochs that are completed; the last of them is logged again.
    """

    folder: Path
    config: Mapping[str, Any]
    id: str | None
    epoch: int


@dataclass(frozen=True, slots=True)
class End:
    """What a record ends with.

    Attributes:
        outcome: "finished", "stopped" if the run can be resumed, or "failed".
        metrics: Numbers of metrics.json by names such as test/band_gap/mae, of a finished run.
        figures: Files of the figures of a finished run.
    """

    outcome: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    figures: Sequence[Path] = ()


class Logger(Protocol):
    """Record one training in a service. Its methods may raise anything."""

    def start(self, run: Start) -> str:
        """Start a record, or continue one; return its id."""

    def log_epoch(self, row: Row) -> None:
        """Record an epoch: the columns of metrics.csv that have a value."""

    def finish(self, end: End) -> None:
        """End the record."""


def require(package: str) -> None:
    """Check that the package of a logger, and the extra of the same name, is installed.

    Raises:
        ConfigError: It is not.
    """
    if find_spec(package) is None:
        raise ConfigError(f"logger={package} needs an extra: pip install 'csgcnn[{package}]'")


class Records:
    """The records of a run. A logger that fails is a warning, and takes no further part.

    Args:
        loggers: Loggers by name.
        folder: Run directory.
        config: Configuration of the run, plain.
    """

    def __init__(
        self, loggers: Mapping[str, Logger], folder: Path, config: Mapping[str, Any]
    ) -> None:
        self._loggers = dict(loggers)
        self._folder, self._config = folder, config
        self._has_started = False

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._has_started:
            can_resume = kind is not None and issubclass(kind, SystemExit | KeyboardInterrupt)
            self._end(End("stopped" if can_resume else "failed"))

    def start(self, history: Sequence[Row]) -> None:
        """Start new records with all epochs, or continue those of the run with the last one."""
        known = self._known()
        self._has_started = True

        def start(name: str, logger: Logger) -> None:
            id_ = known.get(name, {}).get("id")
            run = Start(self._folder, self._config, id_, len(history))
            known[name] = {"id": logger.start(run), "outcome": "running"}
            _log(logger, history if id_ is None else history[-1:])

        self._each(start)
        self._write(known)

    def log_epochs(self, rows: Sequence[Row]) -> None:
        """Record further epochs."""
        self._each(lambda _, logger: _log(logger, rows))

    def finish(self) -> None:
        """End the records with metrics.json and the figures; record a finished run as a whole."""
        if not self._has_started:
            ended = {name for name, of in self._known().items() if of["outcome"] == FINISHED}
            self._loggers = {k: v for k, v in self._loggers.items() if k not in ended}
        if not self._loggers:
            return
        if not self._has_started:
            self.start(_read_rows(self._folder / "metrics.csv"))
        metrics = _numbers_of(read_json(self._folder / "metrics.json"))
        figures = sorted(path for path in self._folder.iterdir() if path.suffix in FIGURES)
        self._end(End(FINISHED, metrics, figures))

    def _end(self, end: End) -> None:
        self._each(lambda _, logger: logger.finish(end))
        ended = {name: {"outcome": end.outcome} for name in self._loggers}
        known = self._known()
        self._write({name: of | ended.get(name, {}) for name, of in known.items()})
        self._has_started = False

    def _known(self) -> dict[str, dict[str, str]]:
        path = self._folder / RECORDS
        return dict(read_json(path)) if path.exists() else {}

    def _write(self, known: Mapping[str, Mapping[str, str]]) -> None:
        if known:
            write_json(self._folder / RECORDS, known)

    def _each(self, act: Callable[[str, Logger], None]) -> None:
        for name, logger in [*self._loggers.items()]:
            try:
                act(name, logger)
            except Exception as error:
                del self._loggers[name]
                log.warning(
                    "logger=%s failed and records no more of this run: %s: %s",
                    *(name, type(error).__name__, one_line(error)),
                )


def _numbers_of(tree: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of nested data by their path, such as test/band_gap/mae."""
    return {
        path.replace(".", "/"): value
        for path, value in leaves(tree)
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _log(logger: Logger, rows: Sequence[Row]) -> None:
    for row in rows:
        logger.log_epoch({name: value for name, value in row.items() if value == value})


def _read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    rows = [{k: float(v or "nan") for k, v in row.items()} for row in read_csv(path)]
    # The members of an ensemble have records of their own.
    return [row for row in rows if "member" not in row]
