"""The sweeper of `hparams=csgcnn`. Hydra takes plugins from this package only, and imports all of it at its start."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from csgcnn.errors import ConfigError, FailedJobError, UserError
from csgcnn.hardware import cores

IN_A_ROW = 3  # trials that fail before the search gives up


@dataclass
class SearchConfig:
    """`hydra/sweeper=csgcnn_search`."""

    _target_: str = "hydra_plugins.csgcnn_search.SearchSweeper"
    n_trials: int = 50  # in all, with those of earlier commands in the same hydra.sweep.dir
    max_batch_size: int | None = (
        None  # trials chosen at once; null: one, or twice as many as joblib runs at once
    )
    prune_after: float | None = (
        0.5  # fraction of max_epochs that each trial gets; null: all of them, always
    )
    seed: int = 0  # of the choice of trials
    params: dict[str, str] = field(default_factory=dict)  # key: range
    trial: int | None = None  # the number of the one that a job is; the sweeper gives it


ConfigStore.instance().store("csgcnn_search", SearchConfig, "hydra/sweeper", provider="csgcnn")


class SearchSweeper(Sweeper):
    """Lets a `csgcnn.search` in hydra.sweep.dir choose the words of each batch of jobs, until it has chosen all."""

    def __init__(
        self,
        n_trials: int,
        max_batch_size: int | None,
        prune_after: float | None,
        seed: int,
        params: DictConfig,
        trial: int | None,
    ) -> None:
        self.n_trials = n_trials
        self.max_batch_size = max_batch_size
        self.seed = seed
        self.params = params

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Get ready, as Hydra wants it."""
        self.config = config
        self.loader = hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are left; `arguments`: words of the command line.

        Raises:
            ConfigError: a word is wrong, the extra is not installed, or the folder holds another search.
            FailedJobError: a trial failed.
            UserError: none was trained to the end.
        """
        self._check()
        search = _search()
        given = [f"{key}={values}" for key, values in self.params.items()] + arguments
        space, words = search.space_of(OverridesParser.create(self.loader).parse_overrides(given))
        fixed = [word for key, word in words.items() if key not in space]
        first = self._first(space, fixed)
        failures: list[Exception] = []
        in_a_row = 0
        with search.opened(
            Path(self.config.hydra.sweep.dir), space, words, self.seed, first
        ) as trials:
            while batch := trials.next(self._batch_size(), self.n_trials):
                for trial, answer in zip(batch, self._launch(batch, fixed), strict=True):
                    failure = answer._return_value if answer.status == JobStatus.FAILED else None
                    trials.tell(trial.number, failure)
                    in_a_row = in_a_row + 1 if failure else 0
                    failures += [failure] if failure else []
                trials.write()
                if in_a_row >= (IN_A_ROW if trials.ranking else 1):
                    break
            print(trials.told())
            if failures:
                raise FailedJobError("\n".join(map(str, failures)))
            if not trials.ranking:
                raise UserError("no trial was trained to the end")

    def _check(self) -> None:
        options = self.config.hydra.sweeper
        for name, is_fine, expected in (
            ("n_trials", self.n_trials >= 1, "an integer of 1 or more"),
            ("max_batch_size", (self.max_batch_size or 1) >= 1, "an integer of 1 or more"),
            ("prune_after", 0 <= (options.prune_after or 0) <= 1, "a number from 0 to 1"),
            ("seed", self.seed >= 0, "an integer of 0 or more"),
        ):
            if not is_fine:
                raise ConfigError(f"hydra.sweeper.{name}={options[name]}: expected {expected}")

    def _first(self, space: dict[str, Any], fixed: Sequence[str]) -> dict[str, str]:
        """What the default configuration has for each key; all that may be chosen is composed and checked, too."""
        from csgcnn.config.schema import COMMANDS
        from csgcnn.config.validate import validate

        values = {
            key: getattr(range_, "choices", None) or (range_.low, range_.high)
            for key, range_ in space.items()
        }
        for i in range(max(map(len, values.values()))):
            words = [*fixed, *(f"{key}={some[i % len(some)]}" for key, some in values.items())]
            validate(self._job(words)[0], COMMANDS["train"])
        default, chosen = self._job(fixed)
        return {
            key: str(chosen[key]) if key in chosen else _word(OmegaConf.select(default, key))
            for key in space
        }

    def _job(self, words: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """The configuration that a job with these words gets, and the options chosen of its groups."""
        cfg = self.loader.load_sweep_config(self.config, list(words))
        chosen = cfg.hydra.runtime.choices
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg, chosen

    def _launch(self, batch: Sequence[Any], fixed: Sequence[str]) -> Sequence[JobReturn]:
        given = {word.partition("=")[0] for word in fixed}
        words = [word for word in self._shares() if word.partition("=")[0] not in given]
        jobs = [
            [
                *words,
                *fixed,
                *trial.words,
                f"hydra.sweeper.trial={trial.number}",
                f"hydra.sweep.subdir={trial.number}",
            ]
            for trial in batch
        ]
        return self.launcher.launch(jobs, initial_job_idx=batch[0].number)

    def _shares(self) -> list[str]:
        """Words for all trials: they go on if they were cut off, and share the cores of this machine."""
        threads = max(1, cores() // self._at_once())
        shared = (
            [f"trainer.threads={threads}", "trainer.progress=false"] if self._at_once() > 1 else []
        )
        return ["resume=auto", *shared]

    def _batch_size(self) -> int:
        n = self._at_once()
        return self.max_batch_size or (2 * n if n > 1 else 1)

    def _at_once(self) -> int:
        """How many trials the launcher runs on this machine at once."""
        launcher = self.config.hydra.launcher
        kind = launcher._target_.rpartition(".")[2]
        if kind == "JoblibLauncher":
            return launcher.n_jobs if launcher.n_jobs > 0 else cores()
        return (self.max_batch_size or 1) if kind == "LocalLauncher" else 1


def _search() -> Any:
    try:
        return importlib.import_module("csgcnn.search")
    except ModuleNotFoundError as error:
        raise ConfigError(f"a search needs {error.name}: pip install 'csgcnn[sweep]'") from error


def _word(value: Any) -> str:
    """A value as a word of the command line: parts of a section by their names, [atom_init]."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, DictConfig) else str(value)
