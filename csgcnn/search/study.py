"""A hyper-parameter search: an Optuna study in study.db, and beside it a folder for the run of each of its trials."""

import json
import logging
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import optuna
from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Override
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import StorageInternalError
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from csgcnn.config.keys import has_effect, section_keys
from csgcnn.config.settings.run import RunSettings
from csgcnn.errors import ConfigError, UserError
from csgcnn.io import write_csv, write_text

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY = "csgcnn"
PATIENCE = 60  # seconds to wait while another process writes to the database
TO_COMPARE = 5  # finished trials, before which none is given up
MOST_REPORTS = 50  # of a training
SHOWN = 5  # rows of the table on the terminal
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}

Space = dict[str, BaseDistribution]


class Trial(NamedTuple):
    """A choice of values, and its number, which is the name of its folder."""

    number: int
    words: list[str]


def space_of(overrides: Sequence[Override]) -> tuple[Space, dict[str, str]]:
    """What is to be chosen, and all words by their keys; of words with the same key the last one counts.

    Raises:
        ConfigError: there is nothing to choose, or a range is empty.
    """
    words = {override.get_key_element(): override for override in overrides}
    space: Space = {}
    for key, override in words.items():
        if override.is_sweep_override():
            try:
                space[key] = _range(override)
            except ValueError as error:
                raise ConfigError(f"{override.input_line}: {error}") from error
    if not space:
        raise ConfigError(
            "there is nothing to choose; expected hparams=csgcnn, or words such as edge=gaussian,rbf"
        )
    return space, {key: str(override.input_line) for key, override in words.items()}


def _range(override: Override) -> BaseDistribution:
    if not override.is_interval_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    interval: Any = override.value()
    kind = IntDistribution if isinstance(interval.start, int) else FloatDistribution
    return kind(interval.start, interval.end, log="log" in interval.tags)


@contextmanager
def opened(
    folder: Path, space: Space, words: Mapping[str, str], seed: int, first: Mapping[str, str]
) -> Iterator["Search"]:
    """The search in `folder`, a new one or that which is there; no other process can open it meanwhile.

    `words` describe it; `first` is the first trial, as far as it lies in the `space`.

    Raises:
        ConfigError: the folder holds another search.
        UserError: another process searches there, or the database cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield Search(folder, space, words, seed, first)
    except Timeout:
        raise UserError(
            f"{folder}: another process searches there, wait for it or stop it"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error


class Search:
    """Chooses trials by TPE (Bergstra et al., NeurIPS 24, 2546, 2011) and keeps book of them; see `opened`."""

    def __init__(
        self,
        folder: Path,
        space: Space,
        words: Mapping[str, str],
        seed: int,
        first: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self.space = space
        self.seed = seed
        with _told(folder):
            self._study = optuna.create_study(
                storage=_storage(folder), study_name=STUDY, load_if_exists=True
            )
            if not self._study.user_attrs:
                self._study.set_user_attr("words", dict(words))
            self._check_words(words)
            if not self._study.trials:
                values = {
                    key: _value(range_, first[key]) for key, range_ in space.items() if key in first
                }
                self._study.enqueue_trial(
                    {key: value for key, value in values.items() if value is not None}
                )
            for trial in self._running():
                self._recover(trial)

    def _check_words(self, words: Mapping[str, str]) -> None:
        before = self._study.user_attrs["words"]
        run = section_keys(RunSettings)
        keys = [key for key in sorted({*words, *before}) if not has_effect(key, "execution", run)]
        differing = [key for key in keys if words.get(key) != before.get(key)]
        if differing:
            told = ", ".join(
                f"{words.get(key, key + ' not given')} (it has {before.get(key)})"
                for key in differing[:4]
            )
            raise ConfigError(
                f"{self.folder} holds a search that goes on as it was started, but {told}; "
                "leave this as it was, or choose another hydra.sweep.dir"
            )

    def _recover(self, trial: FrozenTrial) -> None:
        """Tell of a trial that was cut off after its run had ended, or before it was chosen; others are run again."""
        folder = self.folder / str(trial.number)
        if trial.params.keys() != self.space.keys():
            self._study.tell(trial.number, state=TrialState.FAIL)
        elif folder.exists():
            log.info(
                "trial %d was cut off; if a process is still at work on it, it is waited for",
                trial.number,
            )
            with FileLock(folder / ".lock"):
                is_over = (folder / "metrics.json").exists()
            if is_over:
                self.tell(trial.number)

    def next(self, size: int, n_trials: int) -> list[Trial]:
        """Up to `size` trials to run: those that were cut off, then new ones until there are `n_trials`."""
        with _told(self.folder):
            if not self._running():
                for number in range(self.n_chosen, min(self.n_chosen + size, n_trials)):
                    # a seed for each, so that a search that was cut off chooses as if it had not been
                    seeds = np.random.SeedSequence([self.seed, number])
                    self._study.sampler = TPESampler(seed=int(seeds.generate_state(1)[0]))
                    self._study.ask(self.space)
            return [_trial(trial) for trial in self._running()[:size]]

    def tell(self, number: int, failure: Exception | None = None) -> None:
        """Note how the run of a trial ended, which its metrics.json says unless it failed."""
        score, is_pruned = (None, False) if failure else _result(self.folder / str(number))
        with _told(self.folder):
            if score is None and not is_pruned:
                self._study.tell(number, state=TrialState.FAIL)
                log.warning(
                    "trial %d failed%s",
                    number,
                    "" if failure else ": its validation rows give no score",
                )
            elif is_pruned:
                self._study.tell(number, state=TrialState.PRUNED)
            else:
                self._study.tell(number, score)

    @property
    def n_chosen(self) -> int:
        """Trials that were chosen so far."""
        return sum(trial.state != TrialState.WAITING for trial in self._study.trials)

    @property
    def ranking(self) -> list[FrozenTrial]:
        """The trials that were trained to the end, the best first."""
        return sorted(
            self._study.get_trials(states=[TrialState.COMPLETE]),
            key=lambda trial: trial.value or 0.0,
        )

    def write(self) -> None:
        """Write trials.csv and, to be run again, best/config.yaml."""
        with _told(self.folder):
            trials, ranking = self._study.trials, self.ranking
        rows = [
            [
                trial.number,
                STATES[trial.state],
                trial.value,
                trial.last_step,
                *map(trial.params.get, self.space),
            ]
            for trial in trials
            if trial.state in STATES
        ]
        write_csv(
            self.folder / "trials.csv", ["trial", "state", "score", "epochs", *self.space], rows
        )
        if ranking:
            best = self.folder / "best"
            best.mkdir(exist_ok=True)
            config = self.folder / str(ranking[0].number) / "config.yaml"
            write_text(best / "config.yaml", config.read_text(encoding="utf-8"))

    def told(self) -> str:
        """The best trials as a Markdown table, how many there were, and how to run the best again."""
        with _told(self.folder):
            ranking, trials = self.ranking, self._study.trials
        counts = Counter(STATES[trial.state] for trial in trials if trial.state in STATES)
        counted = ", ".join(f"{n} {state}" for state, n in counts.items())
        if not ranking:
            return f"{counted or 'no trials'}; none was trained to the end"
        header = ["trial", "score", *(key.rpartition(".")[2] for key in self.space)]
        rows = [
            [
                str(trial.number),
                f"{trial.value:.4f}",
                *(_short(trial.params[key]) for key in self.space),
            ]
            for trial in ranking[:SHOWN]
        ]
        lines = [f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows]]
        first = next(
            (f"; the first has {trial.value:.4f}" for trial in ranking if trial.number == 0), ""
        )
        again = f"csgcnn train --config-dir {shlex.quote(str(self.folder / 'best'))} --config-name config"
        lines += [
            f"{counted}, all in {self.folder / 'trials.csv'}{first}",
            f"{again} runs the best again",
        ]
        return "\n".join(lines)

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(states=[TrialState.RUNNING])


class Pruning:
    """Reports a training of `max_epochs` to its trial, whose `folder` it has; the answer is whether to give it up.

    That is so where its best score is worse than the median, after as many epochs, of the trials trained to the end:
    after a fraction `prune_after` of the epochs (None: never), and as soon as there are some such trials.

    Raises:
        UserError: the database cannot be used.
    """

    def __init__(self, folder: Path, max_epochs: int, prune_after: float | None) -> None:
        self.folder = folder.parent
        self.max_epochs = max_epochs
        self.prune_after = prune_after
        with _told(self.folder):
            self._storage = _storage(self.folder)
            pruner = MedianPruner(TO_COMPARE, math.ceil((prune_after or 0) * max_epochs))
            self._study = optuna.load_study(study_name=STUDY, storage=self._storage, pruner=pruner)
            study_id = self._storage.get_study_id_from_name(STUDY)
            self._trial_id = self._storage.get_trial_id_from_study_id_trial_number(
                study_id, int(folder.name)
            )

    def __call__(self, epoch: int, score: float) -> bool:
        """Report the best `score` so far after an epoch, or pass over it: the database takes some 20 ms."""
        if epoch % math.ceil(self.max_epochs / MOST_REPORTS) and epoch != self.max_epochs:
            return False
        with _told(self.folder):
            self._storage.set_trial_intermediate_value(self._trial_id, epoch, score)
            if self.prune_after is None:
                return False
            return self._study.pruner.prune(self._study, self._storage.get_trial(self._trial_id))


def _storage(folder: Path) -> RDBStorage:
    url = f"sqlite:///file:{quote(os.path.abspath(folder / 'study.db'))}?uri=true"
    return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": PATIENCE}})


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise UserError(f"{folder / 'study.db'} cannot be used: {reason}") from error


def _trial(trial: FrozenTrial) -> Trial:
    return Trial(trial.number, [f"{key}={value}" for key, value in trial.params.items()])


def _result(folder: Path) -> tuple[float | None, bool]:
    """The validation score of a run, and whether it was pruned."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return metrics["val_score"], metrics["outcome"].startswith("pruned")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / 'metrics.json'} cannot be read: {error}; remove it to train the trial again"
        ) from error


def _value(range_: BaseDistribution, text: str) -> Any:
    """What the text stands for, if it lies in the range."""
    if isinstance(range_, CategoricalDistribution):
        return text if text in range_.choices else None
    with suppress(ValueError):
        value = int(text) if isinstance(range_, IntDistribution) else float(text)
        return value if range_.low <= value <= range_.high else None  # type: ignore[attr-defined]
    return None


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
