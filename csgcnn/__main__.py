"""`csgcnn` and `python -m csgcnn`."""

import signal
import sys
from typing import NoReturn

from csgcnn.cli.main import main


def program() -> NoReturn:
    """Run `main` and end Python with its exit code."""
    try:
        sys.exit(main())
    finally:
        if hasattr(signal, "SIGUSR1"):  # it is too late for a warning to change the exit code
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)


if __name__ == "__main__":
    program()
