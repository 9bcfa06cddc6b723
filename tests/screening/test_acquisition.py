from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError
from csgcnn.screening.acquisition import Rule

MEAN, STD = np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.1, 0.5])
TARGET = Target("gap", "eV")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(), STD),
        (Rule("ucb", goal="max", beta=2), MEAN + 2 * STD),
        (Rule("ucb", goal="min"), -MEAN + STD),
        (Rule("ucb", goal=1.5), -np.abs(MEAN - 1.5) + STD),
    ],
)
def test_bounds_and_deviations(rule: Rule, expected: Any) -> None:
    np.testing.assert_allclose(rule.values(MEAN, STD, TARGET), expected)


@pytest.mark.parametrize(
    ("goal", "improvement"),
    [
        ("max", lambda y: max(0.0, y - 1.5)),
        ("min", lambda y: max(0.0, 1.5 - y)),
        (1.0, lambda y: max(0.0, 0.5 - abs(y - 1.0))),
    ],
)
def test_the_expected_improvement_is_the_mean_improvement(goal: Any, improvement: Any) -> None:
    found = Rule("expected_improvement", goal=goal, best=1.5).values(MEAN, STD, TARGET)
    for mean, std, value in zip(MEAN, STD, found, strict=True):

        def weighted(y: float, mean: float = mean, std: float = std) -> float:
            return float(improvement(y) * norm.pdf(y, mean, std))

        integral = quad(weighted, mean - 9 * std, mean + 9 * std, points=[0.5, 1, 1.5], limit=200)
        assert value == pytest.approx(integral[0], abs=1e-6)


def test_a_goal_is_compared_on_the_scale_of_the_training() -> None:
    rule, target = Rule("ucb", goal=100.0, beta=0), Target("k", "GPa", transform="log10")
    np.testing.assert_allclose(rule.values(MEAN, STD, target), -np.abs(MEAN - 2))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"by": "ucb"}, "by=ucb needs goal=max, goal=min or goal=NUMBER"),
        ({"by": "ucb", "goal": "maximum"}, "needs goal=max"),
        ({"by": "expected_improvement", "goal": "max"}, "needs best=NUMBER"),
        ({"by": "diverse", "goal": "max"}, "goal=max has no effect with by=diverse"),
        ({"by": "ucb", "goal": "max", "best": 1}, "best=1 has no effect with by=ucb"),
        ({"by": "diversity"}, "did you mean diverse?"),
    ],
)
def test_keys_that_a_rule_lacks_or_does_not_read_are_refused(
    keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        Rule(**keys)
