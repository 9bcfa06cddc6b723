import io
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from csgcnn.cli import main as cli


@dataclass(frozen=True)
class Answer:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def run_command(*words: str, cwd: Path, environment: Mapping[str, str]) -> Answer:
    """Run `csgcnn WORDS` in this process, in the directory `cwd`, with variables of its own."""
    out, err, handlers = io.StringIO(), io.StringIO(), logging.root.handlers[:]
    with chdir(cwd), patch.dict(os.environ), patch.object(sys, "argv", ["csgcnn"]):
        for name in ("CSGCNN_DATA", "HYDRA_FULL_ERROR"):
            os.environ.pop(name, None)
        os.environ.update(environment)
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = cli.main(words)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
    for handler in set(logging.root.handlers) - set(handlers):
        handler.close()
    logging.root.handlers[:] = handlers
    return Answer(code, out.getvalue(), err.getvalue())
