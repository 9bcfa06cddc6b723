"""Overrides of the command line in the form that Hydra reads."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString

from csgcnn.config.compose import ALIASES
from csgcnn.config.paths import CONF
from csgcnn.errors import ConfigError, UserError

OPEN_KEYS = (
    "dataset.units.",
    "dataset.derived.",
    "dataset.tasks.",
    "dataset.task_weights.",
)  # the user adds entries


CONFIG_FLAGS = ("--config-", "-cd", "-cn", "-cp")


# Paths and comparisons, in which Hydra would read signs of its own.
QUOTED_KEYS = "ckpt init_from structures output where by resume dataset.path dataset.split.file dataset.cache_dir hydra.run.dir"


def config_folders(words: Sequence[str]) -> list[Path]:
    """The folders of configurations from elsewhere, as --config-dir and --config-path name them."""
    found = get_args_parser().parse_known_args(list(words))[
        0
    ]  # Hydra's own: it knows abbreviations
    return [Path(folder).expanduser() for folder in (found.config_dir, found.config_path) if folder]


def resumed(words: Sequence[str]) -> list[str]:
    """The words with what `resume=DIR` stands for: the folder, and its configuration where no group is chosen.

    Raises:
        UserError: the folder holds no run.
        ConfigError: one run is to be continued by a sweep.
    """
    chosen = [word.partition("=")[2].strip("'\"") for word in words if word.startswith("resume=")]
    if not chosen or chosen[-1] in ("", "null", "auto"):
        return list(words)
    folder = chosen[-1]
    if "--multirun" in words or "-m" in words:
        raise ConfigError(
            f"resume={folder} goes on with one run; a sweep goes on with resume=auto in its hydra.sweep.dir"
        )
    if not Path(folder).expanduser().joinpath("config.yaml").is_file():
        raise UserError(
            f"resume={folder}: there is no run to continue, the folder has no config.yaml"
        )
    groups = {path.name for path in CONF.iterdir()} | {*ALIASES}
    with_config = any(
        word.partition("=")[0] in groups or word.startswith(CONFIG_FLAGS) for word in words
    )
    own_config = [] if with_config else ["--config-dir", folder, "--config-name", "config"]
    return [*own_config, *words, f"hydra.run.dir={folder}"]


def canonical(words: Sequence[str]) -> list[str]:
    """The words as Hydra reads them: flags first, aliases replaced by the names they stand for, paths quoted."""
    sweeping = "--multirun" in words or "-m" in words
    is_override = [
        not word.startswith("-")
        and not before.startswith("--config")
        and ("=" in word or word.startswith("~"))
        for before, word in pairwise(["", *words])
    ]
    flags = [word for word, override in zip(words, is_override, strict=True) if not override]
    return flags + [
        _canonical(word, sweeping)
        for word, override in zip(words, is_override, strict=True)
        if override
    ]


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
    if key in QUOTED_KEYS.split() or key.startswith("dataset.derived."):
        values = value.split(",") if sweeping and not _is_quoted(value) else [value]
        value = ",".join(map(_quoted, values))
    return f"{prefix}{key}={value}"


def _quoted(path: str) -> str:
    if _is_quoted(path) or path in ("", "null", "???"):
        return path
    return QuotedString(path, Quote.single).with_quotes()


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] + value[-1] in ("''", '""', "[]")
