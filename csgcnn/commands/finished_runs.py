"""Finished runs below folders, for `csgcnn table`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from csgcnn.config.keys import described_key, has_effect
from csgcnn.config.upgrade import complete_leaves
from csgcnn.errors import UserError, one_line
from csgcnn.io import read_json
from csgcnn.runs.duration import training_minutes

# Runs of several folds are repetitions, as those of several seeds.
FOLD = "dataset.split.fold"

# errors of reading damaged files
_MALFORMED = (OSError, ValueError, LookupError, TypeError, AttributeError, YAMLError)
UNUSABLE = (*_MALFORMED, UserError, OmegaConfBaseException)
# full key -> value
Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        config: Its configuration by full key, with keys that are newer than the run.
        metrics: Content of its metrics.json.
        minutes: Time of its training.
    """

    config: Config
    metrics: dict[str, Any]
    minutes: float

    @property
    def result_keys(self) -> Config:
        """The keys that change the result, equal for runs that differ only in seeds and fold."""
        found = {}
        for name, value in self.config.items():
            key = described_key(name, {})
            if name == FOLD:
                continue
            if key is None or key.setting.effect == "result":
                by_name = key is not None and key.setting.by_name and value
                found[name] = Path(value).name if by_name else value
        return found

    @property
    def sample(self) -> tuple[Any, ...]:
        """The fold, and the values of all seeds."""
        is_seed = (name for name in self.config if has_effect(name, "seed"))
        return tuple(self.config[name] for name in [FOLD, *sorted(is_seed)])


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """Return the run directories below the folders, each once even if the folders overlap.

    Raises:
        UserError: A folder does not exist.
    """
    runs: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {folder}; expected a run directory, or a folder above it"
            )
        for config in sorted(folder.rglob("config.yaml")):
            run = config.parent
            if (run / "metrics.json").exists() or (run / "checkpoints").exists():
                runs.setdefault(run.resolve(), run)
    return list(runs.values())


def read_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        UserError: It has no test results. Damaged files raise others of `UNUSABLE`.
    """
    metrics = read_json(folder / "metrics.json")
    config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    if "test" not in metrics:
        raise UserError(f"it was {metrics['outcome']}")
    if "test" in metrics.get("not_measured", ()):
        raise UserError("it has no test rows")
    own = {key: value for key, value in config.items() if key not in ("hydra", "defaults")}
    return Run(complete_leaves(own), metrics, training_minutes(folder, metrics))


def reason_left_out(error: Exception) -> str:
    """Return why a run is left out, by the error of reading it."""
    if isinstance(error, FileNotFoundError):
        return "it is not finished (no metrics.json)"
    if isinstance(error, UserError):
        return str(error)
    reason = f"{type(error).__name__}: {one_line(error)}"
    return f"its config.yaml or metrics.json cannot be used ({reason})"
