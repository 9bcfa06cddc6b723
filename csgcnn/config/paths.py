"""Paths of configurations, data and run directories."""

import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from itertools import chain, count
from pathlib import Path

from omegaconf import OmegaConf

from csgcnn.config.keys import has_effect, section_keys
from csgcnn.config.settings.run import RunSettings
from csgcnn.errors import ConfigError, UserError

PACKAGE = Path(__file__).resolve().parents[1]


# A wheel holds the configuration inside the package, a checkout (or an editable install) beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def user_path(text: str) -> Path:
    """The path a user typed, with ~ expanded."""
    return Path(text).expanduser()


def data_path(text: str, hint: str = "") -> Path:
    """Find a data file or folder: as typed, else in the checkout that holds conf/.

    Raises: UserError listing the places looked at, with the data set's `hint`.
    """
    roots = [Path.cwd()] if CONF.parent == PACKAGE else [Path.cwd(), CONF.parent]
    places = list(
        dict.fromkeys(root / user_path(text) for root in roots)
    )  # one, if `text` is absolute
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"no data at {' or '.join(map(str, places))}"
        + (f" ({hint})" if hint else "")
        + "; give dataset.path=PATH, or the folder of all data sets in the environment: CSGCNN_DATA=FOLDER"
    )


def claim_directory(path: str) -> str:
    """Make the directory `path`, or `path`-1, `path`-2, ... if another run has it; returns its name."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    for name in chain([path], (f"{path}-{attempt}" for attempt in count(1))):
        with suppress(FileExistsError):
            os.mkdir(name)  # atomic: of a hundred runs started in one second each gets its own
            break
    return name


def benchmark_directory(task: str | None, recipe: str, overrides: Sequence[str]) -> str:
    """Return the folder of a benchmark; the same command resumes the benchmark that is there.

    Args:
        task: Name of the task.
        recipe: Name of the recipe.
        overrides: Overrides of the command line. Those that change what is trained give the
            folder a hash of its own.

    Raises:
        ConfigError: There is no task.
    """
    if not task:
        options = sorted(path.stem for path in CONF.glob("task/*.yaml"))
        raise ConfigError(f"please give task=…, one of {', '.join(options)}")
    deciding = ",".join(sorted(words_of_result(overrides)))
    code = f"_{blake2b(deciding.encode(), digest_size=4).hexdigest()}" if deciding else ""
    return f"runs/{task}/{recipe}{code}"


def words_of_result(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a benchmark that change what is trained, but for task and recipe."""
    keys = section_keys(RunSettings)
    own = ("task", "recipe", "folds")
    names = ((word, word.partition("=")[0].lstrip("+")) for word in overrides)
    return [
        word for word, name in names if name not in own and not has_effect(name, "execution", keys)
    ]


OmegaConf.register_new_resolver("unique_dir", claim_directory, use_cache=True, replace=True)
OmegaConf.register_new_resolver("benchmark_dir", benchmark_directory, replace=True)
