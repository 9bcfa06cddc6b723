"""Paths of configurations, data and run directories."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from itertools import chain, count
from pathlib import Path

from omegaconf import DictConfig, Node, OmegaConf

from csgcnn.config.keys import has_effect
from csgcnn.config.locations import INCLUDED_DATA, option_names
from csgcnn.errors import ConfigError, UserError


def user_path(text: str) -> Path:
    """Return the path that a user gave, with ~ expanded."""
    return Path(text).expanduser()


def data_path(text: str, hint: str = "", included: Path = INCLUDED_DATA) -> Path:
    """Return the path of a data file or folder.

    A relative path is looked for in the working directory, then, without a leading `data/`, in
    the folder $CSGCNN_DATA and among the data sets that come with the package.

    Args:
        text: The path that the configuration gives.
        hint: Advice of the data set, for the message.
        included: Folder of the data sets that come with the package.

    Raises:
        UserError: Nothing is there.
    """
    path = user_path(text)
    name = Path(*path.parts[1:]) if path.parts[:1] == ("data",) and path.parts[1:] else path
    folders = [user_path(os.environ["CSGCNN_DATA"])] if os.environ.get("CSGCNN_DATA") else []
    places = [Path.cwd() / path, *(folder / name for folder in [*folders, included])]
    if path.is_absolute():
        places = [path]
    for place in places:
        if place.exists():
            return place
    advice = f" ({hint})" if hint else ""
    raise UserError(
        f"no data at {' or '.join(map(str, places))}{advice}; "
        "give dataset.path=PATH, or set the environment variable CSGCNN_DATA to a folder of data"
    )


def claim_directory(path: str) -> str:
    """Create the folder `path`, or `path`-1, `path`-2, ... if it exists; return its name.

    Raises:
        UserError: No folder can be made there.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        for name in chain([path], (f"{path}-{attempt}" for attempt in count(1))):
            with suppress(FileExistsError):
                # mkdir is atomic: of a hundred runs started in one second each gets a folder.
                os.mkdir(name)
                break
    except OSError as error:
        raise UserError(
            f"cannot make the folder {Path(path).absolute()}: {error.strerror or error}; start in "
            "another folder, or give one"
        ) from error
    return name


# Keys of csgcnn learning-curve that choose runs: with other values, the same folder gets more.
CURVE_KEYS = ("sizes", "repeats")


def benchmark_directory(
    task: str | None, recipe: str, overrides: Sequence[str], dataset: str = "data"
) -> str:
    """Return the folder of a benchmark; the same command resumes the benchmark that is there.

    Args:
        task: Name of the task.
        recipe: Name of the recipe.
        overrides: Overrides of the command line. Those that change what is trained give the
            folder a hash of its own.
        dataset: Option of the group `dataset`, which names a cross-validation without a task.

    Raises:
        ConfigError: There is neither a task nor a number of folds.
    """
    given = overrides_of_result(overrides)
    if not task:
        n_folds = [text for text in overrides if re.fullmatch(r"\+*folds=\d+", text)]
        if not n_folds and not any("dataset.split." in text for text in given):
            raise ConfigError(
                "please give task=…, or folds=5 to cross-validate your own data; "
                f"the tasks are {', '.join(option_names('task'))}"
            )
        given += n_folds
        task = f"cross-validation/{dataset}"
    return _coded(f"runs/{task}/{recipe}", given)


def curve_directory(recipe: str, overrides: Sequence[str], dataset: str) -> str:
    """Return the folder of a learning curve, likewise; other sizes and repeats are added there.

    Args:
        recipe: Name of the recipe.
        overrides: Overrides of the command line.
        dataset: Option of the group `dataset`.
    """
    return _coded(
        f"runs/learning-curve/{dataset}/{recipe}", overrides_of_result(overrides, CURVE_KEYS)
    )


def _coded(path: str, overrides: Sequence[str]) -> str:
    """Return a path with a hash of the overrides, if there are any."""
    deciding = ",".join(sorted(overrides))
    return f"{path}_{blake2b(deciding.encode(), digest_size=4).hexdigest()}" if deciding else path


def overrides_of_result(overrides: Sequence[str], further: Sequence[str] = ()) -> list[str]:
    """Return the overrides that change what is trained, but for task, recipe and folds.

    Args:
        overrides: Overrides of a command that trains several runs.
        further: Further keys that choose runs.
    """
    own = ("task", "recipe", "folds", *further)
    names = ((given, given.partition("=")[0].lstrip("+")) for given in overrides)
    return [given for given, name in names if name not in own and not has_effect(name, "execution")]


def _unique_dir(path: str, *, _node_: Node, _root_: DictConfig) -> str:
    """Resolve ${unique_dir:PATH}, which creates a folder once, for the folders of runs only."""
    if _node_._get_full_key(None) not in ("hydra.run.dir", "hydra.sweep.dir"):
        raise ConfigError("unique_dir is for hydra.run.dir and hydra.sweep.dir only")
    # Hydra copies this cache to the configurations of jobs.
    cache = OmegaConf.get_cache(_root_)["unique_dir"]
    if path not in cache:
        cache[path] = claim_directory(path)
    return str(cache[path])


OmegaConf.register_new_resolver("unique_dir", _unique_dir, replace=True)
OmegaConf.register_new_resolver("benchmark_dir", benchmark_directory, replace=True)
OmegaConf.register_new_resolver("curve_dir", curve_directory, replace=True)
