"""A hyperparameter search: an Optuna study in study.db, and a run directory for each trial."""

import logging
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from csgcnn.config.keys import has_effect
from csgcnn.errors import ConfigError, UserError, one_line
from csgcnn.io import exclusive, exclusive_when_free, read_json, write_csv, write_text
from csgcnn.search.sampling import Check, PossibleSampler
from csgcnn.search.space import Space, value_in
from csgcnn.search.storage import STUDY, open_storage, storage_errors

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

# Trials after which a search ends if all of them failed.
MAX_FAILURES = 3
# Trials in the table of the best.
SHOWN = 5
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Keep other processes from opening the search in a folder, which is made, within the block.

    Raises:
        UserError: Another process uses it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    busy = f"{folder}: another process searches there; wait for it or stop it"
    with exclusive(folder / ".lock", busy):
        yield folder


class Search:
    """Choose trials by TPE and record their results; a search in the folder is continued.

    Args:
        folder: Folder of the search, which is `locked`.
        space: Ranges by key.
        overrides: All overrides by key.
        seed: Seed of the choice of values.
        first: Values of the first trial; those outside the space are chosen instead.
        check: Check of a combination of values; impossible ones are not chosen.

    Raises:
        ConfigError: The folder holds another search.
        UserError: The database cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        overrides: Mapping[str, str],
        seed: int,
        first: Mapping[str, str],
        check: Check,
    ) -> None:
        self.folder = folder
        self.space = space
        self.seed = seed
        self.check = check
        with storage_errors(folder):
            self._storage = open_storage(folder)
            self._study = optuna.create_study(
                storage=self._storage, study_name=STUDY, load_if_exists=True
            )
            if not self._study.user_attrs:
                self._study.set_user_attr("words", dict(overrides))
            self._check_overrides(overrides)
            if not self._study.trials:
                values = {
                    key: value_in(range_, first[key])
                    for key, range_ in space.items()
                    if key in first
                }
                self._study.enqueue_trial({k: v for k, v in values.items() if v is not None})
            for trial in self._running():
                self._recover(trial)

    def _check_overrides(self, overrides: Mapping[str, str]) -> None:
        before = self._study.user_attrs["words"]
        keys = [k for k in sorted({*overrides, *before}) if not has_effect(k, "execution")]
        differing = [key for key in keys if overrides.get(key) != before.get(key)]
        if differing:
            shown = ", ".join(
                f"{overrides.get(key, key + ' not given')} (it has {before.get(key)})"
                for key in differing[:4]
            )
            raise ConfigError(
                f"{self.folder} holds a search with other overrides: {shown}; use these, or "
                "another hydra.sweep.dir"
            )

    def _recover(self, trial: FrozenTrial) -> None:
        """Record a trial that was interrupted after its run ended; fail one without values."""
        folder = self.folder / str(trial.number)
        if trial.params.keys() != self.space.keys():
            self._study.tell(trial.number, state=TrialState.FAIL)
        elif folder.exists():
            log.info("trial %d was interrupted; waiting for a process that trains it", trial.number)
            with exclusive_when_free(folder / ".lock"):
                is_over = (folder / "metrics.json").exists()
            if is_over:
                self.record(trial.number)

    def next(self, size: int, n_trials: int) -> list[FrozenTrial]:
        """Return the next trials to run, interrupted ones first; `params` are overrides by key.

        Args:
            size: Largest number of trials.
            n_trials: Trials of the whole search.
        """
        with storage_errors(self.folder):
            if not self._running():
                for number in range(self.n_chosen, min(self.n_chosen + size, n_trials)):
                    # A seed for each trial: an interrupted search chooses what it would have.
                    seeds = np.random.SeedSequence([self.seed, number])
                    seed = int(seeds.generate_state(1)[0])
                    self._study.sampler = PossibleSampler(seed, self.space, self.check)
                    self._study.ask(self.space)
            return self._running()[:size]

    def record(self, number: int, failure: Exception | None = None) -> None:
        """Record how a trial ended, which its metrics.json says unless it failed.

        Args:
            number: Number of the trial.
            failure: The error of a trial that failed.
        """
        score, is_pruned = (None, False) if failure else _result(self.folder / str(number))
        with storage_errors(self.folder):
            if is_pruned:
                self._study.tell(number, state=TrialState.PRUNED)
            elif score is None:
                reason = failure or "its validation rows give no score"
                self._fail(number, one_line(reason).removeprefix(f"trial {number}: "))
            else:
                self._study.tell(number, score)

    def _fail(self, number: int, reason: str) -> None:
        log.warning("trial %d failed: %s", number, reason)
        study_id = self._storage.get_study_id_from_name(STUDY)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        self._storage.set_trial_user_attr(trial_id, "reason", reason)
        self._study.tell(number, state=TrialState.FAIL)

    @property
    def n_chosen(self) -> int:
        """Number of trials that were chosen so far."""
        return sum(trial.state != TrialState.WAITING for trial in self._study.trials)

    @property
    def is_hopeless(self) -> bool:
        """Whether all trials failed so far: the one with the default values, or three others."""
        ended = [trial for trial in self._study.trials if trial.state in STATES]
        if {trial.state for trial in ended} != {TrialState.FAIL}:
            return False
        default = ended[0].system_attrs.get("fixed_params", {})
        return len(ended) >= MAX_FAILURES or default.keys() == self.space.keys()

    @property
    def ranking(self) -> list[FrozenTrial]:
        """The trials that were trained to the end, the best first."""
        complete = self._study.get_trials(states=[TrialState.COMPLETE])
        return sorted(complete, key=lambda trial: trial.value or 0.0)

    def write(self) -> None:
        """Write trials.csv, and best/config.yaml to run the best trial again."""
        with storage_errors(self.folder):
            trials, ranking = self._study.trials, self.ranking
        rows = [
            [
                trial.number,
                STATES[trial.state],
                trial.value,
                trial.last_step,
                *map(trial.params.get, self.space),
                trial.user_attrs.get("reason"),
            ]
            for trial in trials
            if trial.state in STATES
        ]
        header = ["trial", "state", "score", "epochs", *self.space, "reason"]
        write_csv(self.folder / "trials.csv", header, rows, exact=True)
        if ranking:
            best = self.folder / "best"
            best.mkdir(exist_ok=True)
            config = self.folder / str(ranking[0].number) / "config.yaml"
            write_text(best / "config.yaml", config.read_text(encoding="utf-8"))

    def summary(self, n_trials: int) -> str:
        """Return the best of `n_trials` trials as a table, and how to run the best one again."""
        with storage_errors(self.folder):
            ranking, trials = self.ranking, self._study.trials
        ending = self._ending(n_trials, [trial for trial in trials if trial.state in STATES])
        if not ranking:
            return ending
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
        of_first = (f"; the first has {t.value:.4f}" for t in ranking if t.number == 0)
        lines.append(f"{ending}; all in {self.folder / 'trials.csv'}{next(of_first, '')}")
        best = shlex.quote(str(self.folder / "best"))
        lines.append(f"csgcnn train --config-dir {best} --config-name config runs the best again")
        return "\n".join(lines)

    def _ending(self, n_trials: int, ended: list[FrozenTrial]) -> str:
        """Return why the search has ended: how many trials ended, and how."""
        counts = Counter(STATES[trial.state] for trial in ended)
        counted = ", ".join(f"{n} {state}" for state, n in counts.items()) or "none"
        reasons = (
            f" (first: trial {trial.number}: {trial.user_attrs['reason']})"
            for trial in ended
            if "reason" in trial.user_attrs
        )
        why = f"all {len(ended)} trials are done"
        if len(ended) < n_trials:
            why = f"ended after {len(ended)} of {n_trials} trials"
            why += ", because all of them failed" if self.is_hopeless else ""
        return f"{why}: {counted}{next(reasons, '')}"

    def _running(self) -> list[FrozenTrial]:
        return self._study.get_trials(states=[TrialState.RUNNING])


def _result(folder: Path) -> tuple[float | None, bool]:
    """Return the validation score of a run, and whether it was pruned."""
    try:
        metrics = read_json(folder / "metrics.json")
        return metrics["val_score"], metrics["outcome"].startswith("pruned")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / 'metrics.json'} cannot be read: {error}; remove it to train the trial again"
        ) from error


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
