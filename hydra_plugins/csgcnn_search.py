"""The Hydra sweeper of `hparams=csgcnn`.

Hydra accepts plugins of this package only, and imports all of it when it starts.
"""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from csgcnn.errors import CombinationError, ConfigError, FailedJobError, UserError
from csgcnn.hardware import cores


@dataclass
class SearchConfig:
    """Keys of `hydra/sweeper=csgcnn_search`.

    Attributes:
        n_trials: Trials in all, with those of earlier commands in the same hydra.sweep.dir.
        max_batch_size: Trials that are chosen at once; null: one, or twice as many as joblib runs
            in parallel.
        prune_after: Fraction of max_epochs that each trial gets; null: no trial is pruned.
        min_trials: Trials that must be finished before any is pruned.
        seed: Seed of the choice of values.
        params: Ranges by key.
        trial: Number of the trial that a job runs; set by the sweeper.
    """

    _target_: str = "hydra_plugins.csgcnn_search.SearchSweeper"
    n_trials: int = 50
    max_batch_size: int | None = None
    prune_after: float | None = 0.5
    min_trials: int = 5
    seed: int = 0
    params: dict[str, str] = field(default_factory=dict)
    trial: int | None = None


ConfigStore.instance().store("csgcnn_search", SearchConfig, "hydra/sweeper", provider="csgcnn")


class SearchSweeper(Sweeper):
    """Run the trials that a `csgcnn.search.study.Search` chooses, batch by batch.

    Args:
        n_trials: See `SearchConfig`; the others likewise.
    """

    def __init__(
        self,
        n_trials: int,
        max_batch_size: int | None,
        prune_after: float | None,
        min_trials: int,
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
        """Prepare the sweeper; called by Hydra."""
        self.config = config
        self.loader = hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the remaining trials.

        Args:
            arguments: Overrides of the command line.

        Raises:
            ConfigError: An override is wrong, the extra is not installed, or the folder holds
                another search.
            FailedJobError: All trials failed.
            UserError: No trial was trained to the end.
        """
        self._check()
        space_module, study, sampling = map(_module, ("space", "study", "sampling"))
        given = [f"{key}={values}" for key, values in self.params.items()] + arguments
        parsed = OverridesParser.create(self.loader).parse_overrides(given)
        space, overrides = space_module.space_of(parsed)
        fixed = [override for key, override in overrides.items() if key not in space]
        first = self._first(space, fixed)

        def check(values: Mapping[str, Any]) -> None:
            self._validate([*fixed, *(f"{key}={value}" for key, value in values.items())])

        defaults = (space_module.value_in(space[key], first.get(key, "")) for key in space)
        if None in defaults:  # else the default values are a possible combination
            sampling.check_space(space, check, self.seed)
        with study.locked(Path(self.config.hydra.sweep.dir)) as folder:
            search = study.Search(folder, space, overrides, self.seed, first, check)
            failures = self._run(search, fixed)
            print(search.summary(self.n_trials))
            if not search.ranking:
                raise failures[0] if failures else UserError("no trial was trained to the end")

    def _run(self, search: Any, fixed: Sequence[str]) -> list[FailedJobError]:
        """Run trials until all are done or the search is hopeless; return the failures."""
        failures: list[FailedJobError] = []
        while batch := search.next(self._batch_size(), self.n_trials):
            for trial, result in zip(batch, self._launch(batch, fixed), strict=True):
                failure = result._return_value if result.status == JobStatus.FAILED else None
                search.record(trial.number, failure)
                failures += [FailedJobError(str(failure))] if failure else []
            search.write()
            if search.is_hopeless:
                break
        return failures

    def _check(self) -> None:
        options = self.config.hydra.sweeper
        for name, is_valid, expected in (
            ("n_trials", self.n_trials >= 1, "an integer of at least 1"),
            ("max_batch_size", (self.max_batch_size or 1) >= 1, "an integer of at least 1"),
            ("prune_after", 0 <= (options.prune_after or 0) <= 1, "a number from 0 to 1"),
            ("min_trials", options.min_trials >= 1, "an integer of at least 1"),
            ("seed", self.seed >= 0, "an integer of at least 0"),
        ):
            if not is_valid:
                raise ConfigError(f"hydra.sweeper.{name}={options[name]}: expected {expected}")

    def _first(self, space: dict[str, Any], fixed: Sequence[str]) -> dict[str, str]:
        """Return the default value of each key, after a check that all values are allowed.

        If the default values exclude each other, none are returned.
        """
        values = {
            key: getattr(range_, "choices", None) or (range_.low, range_.high)
            for key, range_ in space.items()
        }
        for i in range(max(map(len, values.values()))):
            choices = [f"{key}={some[i % len(some)]}" for key, some in values.items()]
            with suppress(CombinationError):  # other values may fit together
                self._validate([*fixed, *choices])
        try:
            self._validate(fixed)
        except CombinationError:
            return {}
        except ConfigError:
            pass  # a key that the space sets is missing
        default, chosen = self._job(fixed)
        return {
            key: str(chosen[key]) if key in chosen else _text(OmegaConf.select(default, key))
            for key in space
        }

    def _validate(self, overrides: Sequence[str]) -> None:
        """Check the configuration of a job."""
        from csgcnn.config.validate import validate

        validate(self._job(overrides)[0], "train")

    def _job(self, overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """Return the configuration of a job with these overrides, and the chosen options."""
        cfg = self.loader.load_sweep_config(self.config, list(overrides))
        chosen = cfg.hydra.runtime.choices
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg, chosen

    def _launch(self, batch: Sequence[Any], fixed: Sequence[str]) -> Sequence[JobReturn]:
        given = {override.partition("=")[0] for override in fixed}
        shared = [item for item in self._shared() if item.partition("=")[0] not in given]
        jobs = [
            [
                *shared,
                *fixed,
                *(f"{key}={value}" for key, value in trial.params.items()),
                f"hydra.sweeper.trial={trial.number}",
                f"hydra.sweep.subdir={trial.number}",
            ]
            for trial in batch
        ]
        return self.launcher.launch(jobs, initial_job_idx=batch[0].number)

    def _shared(self) -> list[str]:
        """Return overrides of all trials: resume, and share the cores of this machine."""
        if (n_parallel := self._n_parallel()) == 1:
            return ["resume=auto"]
        threads = max(1, cores() // n_parallel)
        return ["resume=auto", f"trainer.threads={threads}", "trainer.progress=false"]

    def _batch_size(self) -> int:
        n = self._n_parallel()
        return self.max_batch_size or (2 * n if n > 1 else 1)

    def _n_parallel(self) -> int:
        """Return how many trials the launcher runs on this machine in parallel."""
        launcher = self.config.hydra.launcher
        kind = launcher._target_.rpartition(".")[2]
        if kind == "JoblibLauncher":
            return launcher.n_jobs if launcher.n_jobs > 0 else cores()
        return (self.max_batch_size or 1) if kind == "LocalLauncher" else 1


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"csgcnn.search.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"a search needs {error.name}: pip install 'csgcnn[sweep]'") from error


def _text(value: Any) -> str:
    """Return a value as on the command line: parts of a section by their names, [atom_init]."""
    return (
        f"[{','.join(map(str, value))}]"
        if isinstance(value, DictConfig | ListConfig)
        else str(value)
    )
