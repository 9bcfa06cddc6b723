"""`csgcnn` and `python -m csgcnn`."""

import os
import signal
import sys
from typing import NoReturn

from csgcnn.cli.main import main

# Exit code of a program whose output is a closed pipe, as in csgcnn train --help | head
CLOSED_PIPE = 141


def program() -> NoReturn:
    """Run `main` and end Python with its exit code."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes the stream again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CLOSED_PIPE
    finally:
        if hasattr(signal, "SIGUSR1"):
            # It is too late for a cluster's warning to change the exit code.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    program()
