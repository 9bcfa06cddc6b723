"""Report log messages of a command that is called from Python."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csgcnn.errors import DataWarning


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
def reported(verbose: bool, log_file: Path | None = None) -> Iterator[None]:
    """Print messages of csgcnn, and pass its warnings to `warnings`, within the block.

    Args:
        verbose: Whether to print messages.
        log_file: File to which messages and warnings are appended.
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
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(level)
        logger.propagate = propagate
