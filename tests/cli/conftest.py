"""Run commands in this process or in forks of a process that refuses heavy imports."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from csgcnn.cli import main as cli
from csgcnn.config.settings.commands import TRAINING_COMMANDS

# Answers commands, each in a fork. Start-up must not need the packages that it refuses.
GUARDED = """
import json, os, signal, sys
HEAVY = ("torch", "torch_geometric", "pymatgen", "matplotlib", "scipy", "numpy")
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Guard())
import csgcnn.cli.application, csgcnn.cli.help
from csgcnn.__main__ import program
for line in sys.stdin:
    folder, outputs, arguments = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(60)
    os.chdir(folder)
    for stream, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv[1:] = arguments
    program()
"""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def server() -> Iterator[subprocess.Popen[str]]:
    removed = ("HYDRA_FULL_ERROR", "CSGCNN_DATA")
    environment = {key: value for key, value in os.environ.items() if key not in removed}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    arguments = [sys.executable, "-c", GUARDED]
    with subprocess.Popen(arguments, env=environment, text=True, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def csgcnn(server: subprocess.Popen[str], tmp_path: Path) -> Command:
    """Return a function that runs a command in `tmp_path`."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with TemporaryDirectory() as folder:
            outputs = [Path(folder, "out"), Path(folder, "err")]
            line = json.dumps([str(tmp_path), list(map(str, outputs)), arguments])
            print(line, file=server.stdin, flush=True)
            code = int(server.stdout.readline())
            texts = [path.read_text() for path in outputs]
        return subprocess.CompletedProcess(arguments, code, *texts)

    return run


@pytest.fixture(autouse=True)
def _no_state_of_hydra() -> None:
    """No command inherits the configuration of an earlier one; a process runs one command."""
    HydraConfig.instance().cfg = None


@pytest.fixture
def replace_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Return a function that replaces a command by a function, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def replace(command: str, function: Callable[[DictConfig], Any]) -> None:
        module = types.ModuleType(f"csgcnn.commands.{command}")
        takes_job = command in TRAINING_COMMANDS
        setattr(module, command, (lambda cfg, job: function(cfg)) if takes_job else function)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return replace


@pytest.fixture
def exit_code() -> Callable[..., object]:
    """Return a function that runs a command in this process."""

    def run(*arguments: str) -> object:
        try:
            return cli.main(arguments)
        except SystemExit as end:
            return end.code

    return run
