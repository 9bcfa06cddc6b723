"""The command line: `csgcnn train | predict | evaluate`, each a Hydra application over conf/, and `csgcnn table`.

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.
"""

import argparse
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from csgcnn import __version__
from csgcnn.config import CONF, nearest, validate
from csgcnn.errors import UserError

USAGE = """\
csgcnn: crystal graph neural networks, from crystal files to trusted predictions

  csgcnn train    [group=option ...] [key=value ...] [--multirun]        train a model
  csgcnn predict  ckpt=PATH structures=PATH [output=predictions.csv]     predict with a trained model
  csgcnn evaluate ckpt=PATH dataset=OPTION [split=train|val|test]        measure a trained model
  csgcnn table    DIR [DIR ...]                                          compare the runs below these folders

  csgcnn COMMAND --help    its options, its configuration, examples
  csgcnn --version"""
COMMANDS = ["train", "predict", "evaluate", "table"]
ALIASES = {"edge": "edge_calculator", "global_features": "graph.global_features"}
OPEN_KEYS = ("dataset.units.", "dataset.derived.", "dataset.tasks.", "dataset.task_weights.")  # the user adds entries
PATH_KEYS = "ckpt structures output dataset.path dataset.split.file dataset.cache_dir"
EXPECTED = {
    "IntegerNode": "an integer",
    "FloatNode": "a number",
    "BooleanNode": "true or false",
    "StringNode": "a text",
    "ListConfig": "a list, such as [a,b]",
}
# Whoever sets it wants tracebacks; main sets it for itself, so that Hydra raises what it would print.
WANTS_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"


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
        expected = nearest(command, COMMANDS) or f"; expected {', '.join(COMMANDS)}"
        print(f"csgcnn: there is no command {command!r}{expected} (see csgcnn --help)", file=sys.stderr)
        return 2
    return compare(rest) if command == "table" else run(command, rest)


def compare(words: Sequence[str]) -> int:
    """`csgcnn table`, whose words are folders; returns the exit code."""
    parser = argparse.ArgumentParser(
        "csgcnn table",
        description="Compares all runs below the folders. Runs that differ only in seeds and paths become one row: "
        "mean test MAE ± standard deviation (number of seeds). Writes table.md and table.csv to the first DIR.",
        epilog="example: csgcnn table runs sweeps/2026-11-23/06-51-48",
    )
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="a run, a sweep, or a folder of them")
    folders = parser.parse_args(words).folders
    try:
        table, left_out = importlib.import_module("csgcnn.table").leaderboard(folders)
    except Exception as error:
        return report("table", error)
    print(table, end="")
    print(*left_out, sep="\n", end="\n" if left_out else "", file=sys.stderr)
    return 0


def run(command: str, words: Sequence[str]) -> int:
    """Start the Hydra application of `command` with the words that follow it; returns the exit code."""
    sys.argv = [f"csgcnn {command}", *canonical(words)]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    failures: list[tuple[str, Exception]] = []
    try:
        application(command, failures)()
    except Exception as error:
        if not failures:  # so it comes from Hydra, before any job
            return report_refusal(command, error)
    for overrides, failure in failures:
        report(f"{command} {overrides}", failure)
    return 1 if failures else 0


def application(command: str, failures: list[tuple[str, Exception]]) -> Callable[[], None]:
    """The Hydra application of `command`; the jobs of a multirun that fail are added to `failures`."""

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)
    def job(cfg: DictConfig) -> Any:
        sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
        overrides = " ".join(HydraConfig.get().overrides.task)
        try:
            validate(cfg)
            result = getattr(importlib.import_module(f"csgcnn.{command}"), command)(cfg)
        except Exception as error:
            if sweeping:
                failures.append((overrides, error))
                raise  # launchers and sweepers keep the book of failed jobs
            raise SystemExit(report(command, error)) from None
        if command == "predict" and result:
            if not sweeping:
                raise SystemExit(result)
            failures.append((overrides, UserError("not every structure was predicted")))
        return result

    return job


def report(what: str, error: Exception) -> int:
    """Print why `what` failed, unexpected errors with their traceback; returns the exit code."""
    if not isinstance(error, UserError) or WANTS_TRACEBACKS:
        traceback.print_exception(error)
    if not isinstance(error, UserError):
        return 1
    print(f"csgcnn {what}: {error}", file=sys.stderr)
    return error.exit_code


def report_refusal(command: str, error: Exception) -> int:
    """Print why Hydra refused the words or the configuration; returns the exit code."""
    if WANTS_TRACEBACKS or not isinstance(error, HydraException | OmegaConfBaseException | ValueError):
        traceback.print_exception(error)
        return 1
    print(f"csgcnn {command}: {explain(error)}", file=sys.stderr)
    return 2


def canonical(words: Sequence[str]) -> list[str]:
    """The words as Hydra reads them: flags first, aliases replaced by the names they stand for, paths quoted."""
    sweeping = "--multirun" in words or "-m" in words
    is_override = [
        not word.startswith("-") and not before.startswith("--config") and ("=" in word or word.startswith("~"))
        for before, word in pairwise(["", *words])
    ]
    flags = [word for word, override in zip(words, is_override, strict=True) if not override]
    return flags + [_canonical(word, sweeping) for word, override in zip(words, is_override, strict=True) if override]


def _canonical(word: str, sweeping: bool) -> str:
    override = re.fullmatch(r"(\+{1,2}|~)?([A-Za-z_][^=]*?)(=.*)?", word, re.DOTALL)
    if override is None or (override[1] is None and override[3] is None):
        return word
    prefix, key, assignment = override[1] or "", override[2], override[3]
    first, rest = re.fullmatch(r"(\w+)(.*)", key, re.DOTALL).groups()  # type: ignore[union-attr]
    key = ALIASES.get(first, first) + rest
    if assignment is None:
        return prefix + key
    value = assignment[1:]
    if key.startswith(OPEN_KEYS):
        prefix = prefix or "++"  # else Hydra refuses a key that is not there yet
    if key in PATH_KEYS.split() or key.startswith("dataset.derived."):
        values = value.split(",") if sweeping and not _is_quoted(value) else [value]
        value = ",".join(map(_quoted, values))
    return f"{prefix}{key}={value}"


def _quoted(path: str) -> str:
    if _is_quoted(path) or path in ("", "null", "???"):
        return path
    return QuotedString(path, Quote.single).with_quotes()


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] + value[-1] in ("''", '""', "[]")


def explain(error: Exception) -> str:
    """What is wrong with the words or the configuration, in a line, with the nearest right spelling."""
    cause = error.__cause__
    if isinstance(error, OverrideParseException):
        quoted = "\"{}='...'\"".format(error.override.partition("=")[0])
        return f"cannot read {error.override!r}; expected key=value, with special characters quoted: {quoted}"
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = list(error.options or sorted(path.stem for path in (CONF / group).glob("*.yaml")))
        return f"{group} has no option {option!r}, only {', '.join(options)}{nearest(option, options)}"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return _explain_key(cause)
    if isinstance(cause, ValidationError):
        override = str(error).removeprefix("Error merging override ") or cause.full_key
        expected = EXPECTED.get(type(cause.child_node).__name__)
        return f"{override}: expected {expected}" if expected else f"{override}: {_first_line(cause)}"
    if "Ambiguous value" in str(error):
        return f"{_first_line(error)}; several values need --multirun, a list needs brackets: key=[a,b]"
    return _first_line(error) if str(error) or cause is None else _first_line(cause)


def _explain_key(unknown: ConfigKeyError | ConfigAttributeError) -> str:
    key, parent, full_key = str(unknown.key), unknown.parent_node, str(unknown.full_key)
    if str(unknown.ref_type_str).startswith("Dict["):
        return f"{full_key} is new there; to add it, write +{full_key}=..."
    siblings = [sibling for sibling in map(str, parent) if sibling != "hydra"]
    if "." not in full_key:
        siblings += ["experiment", *ALIASES]  # groups that no key of the configuration is named after
    home = full_key.rpartition(".")[0]
    hint = nearest(full_key, [f"{home}.{sibling}" for sibling in siblings] if home else siblings)
    if not hint:
        namesakes = [full for full in _full_keys(parent._get_root()) if full.endswith(f".{key}")]
        hint = f"; did you mean {' or '.join(namesakes)}?" if namesakes else f"; expected {', '.join(siblings)}"
    return f"there is no key {full_key}{hint}"


def _full_keys(node: DictConfig, prefix: str = "") -> list[str]:
    full_keys = []
    for key in map(str, node):
        child = node._get_node(key)
        full_keys.append(prefix + key)
        if isinstance(child, DictConfig) and key != "hydra":
            full_keys += _full_keys(child, f"{prefix}{key}.")
    return full_keys


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
