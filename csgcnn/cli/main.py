"""The command line: `csgcnn train`, `benchmark`, `predict`, ..., Hydra applications over conf/, and two without.

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.
"""

import argparse
import importlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from csgcnn import __version__
from csgcnn.cli.messages import format_error, report, report_refusal
from csgcnn.cli.overrides import QUOTED_KEYS, canonical, config_folders, resumed
from csgcnn.commands.job import Job
from csgcnn.config.hydra_guard import refuse_foreign_code
from csgcnn.config.paths import CONF
from csgcnn.config.schema import COMMANDS as SCHEMAS
from csgcnn.config.validate import validate
from csgcnn.errors import AbortError, ConfigError, FailedJobError, UserError, nearest
from csgcnn.hardware import Rank, read_rank
from csgcnn.training.interruption import Interruption

USAGE = """\
csgcnn: crystal graph neural networks, from crystal files to trusted predictions

  csgcnn train    [group=option ...] [key=value ...] [--multirun]        train a model
  csgcnn predict  ckpt=PATH structures=PATH [output=predictions.csv]     predict with a trained model
  csgcnn evaluate ckpt=PATH dataset=OPTION [split=train|val|test]        measure a trained model
  csgcnn build    dataset=OPTION output=FOLDER                           make the graphs of a large data set once
  csgcnn table    DIR [DIR ...]                                          compare the runs below these folders
  csgcnn benchmark task=OPTION [recipe=OPTION] [folds=[0,1,...]]         train on the folds of a public benchmark
  csgcnn import-cgcnn FILE.pth.tar [output=PATH]                         take over a model of the original CGCNN

  csgcnn COMMAND --help    its options, its configuration, examples
  csgcnn --version"""
COMMANDS = ["train", "predict", "evaluate", "build", "benchmark", "table", "import-cgcnn"]
QUOTED_KEYS += " hydra.sweep.dir"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command in `words`, by default those the program was started with; returns the exit code.

    Raises: SystemExit where Hydra or a failing command ends the program.
    """
    words = sys.argv[1:] if words is None else words
    if not words:
        print(USAGE, file=sys.stderr)
        return 2
    command, *rest = words
    if command in ("--help", "-h"):
        print(USAGE)
        return 0
    if "--version" in words:
        print(f"csgcnn {__version__}")
        return 0
    if command not in COMMANDS:
        hint = "" if "=" in command else nearest(command, COMMANDS)
        expected = hint or f"; expected {', '.join(COMMANDS)}"
        print(
            f"csgcnn: there is no command {command!r}{expected} (see csgcnn --help)",
            file=sys.stderr,
        )
        return 2
    if command == "table":
        return compare(rest)
    if command == "import-cgcnn":
        return import_cgcnn(rest)
    own = read_rank()
    with Interruption():  # while torch is imported, too
        return run(command, rest) if own.world_size == 1 else run_on_rank(command, rest, own)


def compare(words: Sequence[str]) -> int:
    """`csgcnn table`, whose words are folders; returns the exit code."""
    parser = argparse.ArgumentParser(
        "csgcnn table",
        description="Compares all runs below the folders. Runs that differ only in seeds and paths become one row: "
        "mean test MAE ± standard deviation (number of seeds). Writes table.md and table.csv to the first DIR.",
        epilog="example: csgcnn table runs sweeps/2026-11-23/06-51-48",
    )
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="a run, a sweep, or a folder of them"
    )
    folders = parser.parse_args(words).folders
    try:
        table, left_out = importlib.import_module("csgcnn.commands.table").leaderboard(folders)
    except Exception as error:
        return report("table", error)
    print(table, end="")
    print(*left_out, sep="\n", end="\n" if left_out else "", file=sys.stderr)
    return 0


def import_cgcnn(words: Sequence[str]) -> int:
    """`csgcnn import-cgcnn`, whose words are a file and key=value; returns the exit code."""
    parser = argparse.ArgumentParser(
        "csgcnn import-cgcnn",
        usage="csgcnn import-cgcnn FILE.pth.tar [output=PATH] [name=NAME] [unit=UNIT]",
        description="Turns a checkpoint of the original CGCNN into one for csgcnn predict and evaluate; nothing in the "
        "file is executed.",
        epilog="example: csgcnn import-cgcnn formation-energy-per-atom.pth.tar output=formation.ckpt",
    )
    parser.add_argument(
        "file", metavar="FILE.pth.tar", type=Path, help="what CGCNN's main.py wrote"
    )
    keys = "output, by default FILE.ckpt; name and unit of what it predicts, which the published files say themselves"
    parser.add_argument("words", metavar="key=value", nargs="*", help=keys)
    found = parser.parse_args(words)
    try:
        given = dict(word.partition("=")[::2] for word in found.words)
        for key in given.keys() - {"output", "name", "unit"}:
            raise ConfigError(f"there is no key {key}{nearest(key, ['output', 'name', 'unit'])}")
        path = found.file.expanduser()
        output = Path(
            given.get("output") or path.name.removesuffix(".tar").removesuffix(".pth") + ".ckpt"
        ).expanduser()
        imported = importlib.import_module("csgcnn.commands.import_cgcnn")
        print(imported.import_cgcnn(path, output, given.get("name"), given.get("unit")))
    except Exception as error:
        return report("import-cgcnn", error)
    return 0


def run_on_rank(command: str, words: Sequence[str], own: Rank) -> int:
    """Run the command on this rank; rank 0 reads the overrides and broadcasts the configuration."""
    if command != "train":
        print(
            f"csgcnn {command}: runs in one process, {own.world_size} were started together",
            file=sys.stderr,
        )
        return 2
    distributed, train = (
        importlib.import_module(f"csgcnn.{name}") for name in ("distributed", "commands.train")
    )
    try:
        with distributed.process_group(own):
            if own.rank:
                logging.disable()
                return train.follow()
            code = run(command, words)
            distributed.broadcast_text()  # nothing more to do
            return code
    except Exception as error:
        return report(f"{command} (process {own.rank} of {own.world_size})", error)


def run(command: str, words: Sequence[str]) -> int:
    """Start the Hydra application of `command` with the words that follow it; returns the exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    logging.raiseExceptions = False  # a full disk must not flood the terminal through train.log
    failures: list[str] = []
    try:
        words = canonical(resumed(words) if command == "train" else words)
        for folder in config_folders(words):
            refuse_foreign_code(folder)
        sys.argv = [f"csgcnn {command}", *words]
    except UserError as error:
        return report(command, error)
    try:
        application(command, failures)()
    except Exception as error:
        if isinstance(error, UserError) and not isinstance(error, FailedJobError):
            return report(command, error)
        if not failures and not isinstance(
            error, FailedJobError
        ):  # so it comes from Hydra, before any job
            return report_refusal(command, error)
        failures = failures or [str(error)]  # of the first job that failed in a process of its own
    for failure in failures:
        print(f"csgcnn {command} {failure}", file=sys.stderr)
    return 1 if failures else 0


def application(command: str, failures: list[str]) -> Callable[[], None]:
    """The Hydra application of `command`; the jobs of a multirun that fail are added to `failures`."""

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)
    def job(cfg: DictConfig) -> Any:
        sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
        trial = HydraConfig.get().sweeper.get("trial")  # of a search
        name = " ".join(HydraConfig.get().overrides.task) if trial is None else f"trial {trial}"
        try:
            validate(cfg, SCHEMAS[command])
            run_command = getattr(importlib.import_module(f"csgcnn.commands.{command}"), command)
            if command in ("train", "benchmark"):
                result = run_command(cfg, Job.of_hydra())
            else:
                result = run_command(cfg)
        except AbortError as error:
            raise SystemExit(report(command, cast(Exception, error.__cause__))) from error
        except Exception as error:
            if sweeping:
                failures.append(f"{name}: {format_error(error)}")
                raise FailedJobError(
                    failures[-1]
                ) from error  # launchers and sweepers keep the book of failed jobs
            code = report(command, error)
            if command in ("train", "benchmark"):
                _remove_if_empty(Path(HydraConfig.get().runtime.output_dir))
            raise SystemExit(code) from None
        if command in ("predict", "build") and result:
            if not sweeping:
                raise SystemExit(result)
            failures.append(f"{name}: not every structure could be used")
        return result

    return job


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of a run that was refused before it wrote anything."""
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if not any(path.stat().st_size for path in files):
        shutil.rmtree(folder, ignore_errors=True)
