"""`csgcnn` and `python -m csgcnn`."""

import io
import os
import signal
import sys
from typing import NoReturn

from csgcnn.cli.main import main

# Exit code of a program whose output is a closed pipe, as in csgcnn train --help | head
CLOSED_PIPE = 141


def program() -> NoReturn:
    """Run `main` and end Python with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal cannot show must not end the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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
