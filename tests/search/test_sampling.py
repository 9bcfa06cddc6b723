from collections.abc import Mapping
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="pip install 'csgcnn[sweep]'")

from optuna.distributions import CategoricalDistribution, IntDistribution  # noqa: E402

from csgcnn.errors import CombinationError  # noqa: E402
from csgcnn.search.sampling import PossibleSampler, check_space  # noqa: E402

SPACE = {
    "hidden": IntDistribution(32, 128, log=True),
    "heads": CategoricalDistribution(["3", "8"]),
    "layers": CategoricalDistribution(["2"]),
}


def divides(values: Mapping[str, Any]) -> None:
    assert values["layers"] == "2"
    if int(values["hidden"]) % int(values["heads"]):
        raise CombinationError(f"hidden={values['hidden']}")


def test_only_possible_combinations_are_chosen() -> None:
    study = optuna.create_study(sampler=PossibleSampler(0, SPACE, divides))
    for _ in range(15):
        trial = study.ask(SPACE)
        assert trial.params["hidden"] % int(trial.params["heads"]) == 0
        study.tell(trial, trial.params["hidden"])
    assert len({trial.params["heads"] for trial in study.trials}) == 2


def test_values_fit_to_those_that_are_given() -> None:
    study = optuna.create_study(sampler=PossibleSampler(0, SPACE, divides))
    study.enqueue_trial({"hidden": 33})
    assert study.ask(SPACE).params == {"hidden": 33, "heads": "3", "layers": "2"}


def test_possible_values_are_those_of_tpe() -> None:
    plain = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
    checked = optuna.create_study(sampler=PossibleSampler(1, SPACE, lambda _: None))
    for value in range(15):
        trials = [study.ask(SPACE) for study in (plain, checked)]
        assert trials[0].params == trials[1].params
        for study, trial in zip((plain, checked), trials, strict=True):
            study.tell(trial, float(value))


def test_a_space_without_a_possible_combination_is_refused() -> None:
    with pytest.raises(CombinationError, match=r"none of 200 combinations .* is possible: hidden="):
        check_space(SPACE | {"hidden": IntDistribution(49, 50)}, divides, 0)
    space = {key: CategoricalDistribution([value]) for key, value in ONLY.items()}
    with pytest.raises(CombinationError, match="is possible: hidden=50"):
        check_space(space, divides, 0)


ONLY = {"hidden": "50", "heads": "8", "layers": "2"}
