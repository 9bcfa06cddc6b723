"""Choose values for the trials of a search, whose combination is possible."""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from csgcnn.errors import CombinationError

# Combinations that are drawn for a trial before the space counts as impossible.
MAX_DRAWS = 200
# The first of them are drawn as TPE does, which may propose the same values again and again.
MAX_TPE_DRAWS = 20
# Raises CombinationError for values that exclude each other.
Check = Callable[[Mapping[str, Any]], None]


class PossibleSampler(TPESampler):
    """Draw values as TPE (Bergstra et al., NeurIPS 24, 2546, 2011) until they fit together.

    Args:
        seed: Seed of the choice.
        space: Ranges by key.
        check: Check of a combination.
    """

    def __init__(self, seed: int, space: Mapping[str, BaseDistribution], check: Check) -> None:
        super().__init__(seed=seed)
        self._uniform = RandomSampler(seed)
        self._space = dict(space)
        self._check = check

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the ranges of the values that are drawn together; called by Optuna.

        Args:
            study: The study.
            trial: The trial.
        """
        fixed = trial.system_attrs.get("fixed_params", {})
        return {
            key: range_
            for key, range_ in self._space.items()
            if key not in fixed and not range_.single()
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return values for a trial; called by Optuna.

        Args:
            study: The study.
            trial: The trial.
            search_space: Ranges of the values.

        Raises:
            CombinationError: No combination was possible.
        """
        given = dict(trial.system_attrs.get("fixed_params", {}))
        single = {k: _only_value(r) for k, r in self._space.items() if r.single()}
        for n_drawn in range(1, MAX_DRAWS + 1):
            draw = self._draw_as_tpe if n_drawn <= MAX_TPE_DRAWS else self._draw_at_random
            values = draw(study, trial, search_space)
            try:
                self._check({**single, **values, **given})
            except CombinationError as error:
                if n_drawn == MAX_DRAWS or not search_space:
                    reason = f"none of {n_drawn} combinations of the ranges is possible: {error}"
                    raise CombinationError(reason) from error
            else:
                break
        return values

    def _draw_as_tpe(
        self, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        together = super().infer_relative_search_space(study, trial)
        values = super().sample_relative(study, trial, together)
        return {
            key: values[key]
            if key in values
            else self.sample_independent(study, trial, key, range_)
            for key, range_ in space.items()
        }

    def _draw_at_random(
        self, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {
            key: self._uniform.sample_independent(study, trial, key, range_)
            for key, range_ in space.items()
        }


def check_space(space: Mapping[str, BaseDistribution], check: Check, seed: int) -> None:
    """Check that some combination of the values is possible.

    Args:
        space: Ranges by key.
        check: Check of a combination.
        seed: Seed of the choice.

    Raises:
        CombinationError: None was found.
    """
    sampler, study = PossibleSampler(seed, space, check), optuna.create_study()
    study.ask()
    trial = study.trials[0]
    sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))


def _only_value(range_: BaseDistribution) -> Any:
    return range_.choices[0] if hasattr(range_, "choices") else range_.low  # type: ignore[attr-defined]
