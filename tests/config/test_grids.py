"""Test the grids of targets: their points, and what a configuration may ask of them."""

from typing import Any

import pytest

from csgcnn.config.compose import compose
from csgcnn.config.grids import grid_points, is_grid
from csgcnn.config.validate import validate
from csgcnn.errors import ConfigError

WORDS = ["dataset.targets=[dos]", "++dataset.grid.dos=0:1:0.1"]


@pytest.mark.parametrize(
    ("given", "points"),
    [("0:1:0.5", (0, 0.5, 1)), ("-1:0.1:0.5", (-1, -0.5, 0)), ([0, 1, 10], (0, 1, 10))],
)
def test_a_grid_is_a_range_with_both_ends_or_a_list(given: Any, points: tuple[float, ...]) -> None:
    assert grid_points("dos", given) == points
    assert grid_points("dos", "0.1:0.3:0.1") == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ("0:1", "start:stop:step"),
        ("0:1:0", "start:stop:step"),
        ("1:0:-0.1", "start:stop:step"),
        ("0:1e9:1", "2 to 10,000 points"),
        ("a:b:c", "start:stop:step"),
        ([1], "2 to 10,000 numbers"),
        (5, "start:stop:step"),
        ([0, 2, 2], "expected increasing numbers, but point 3 is 2 after 2"),
        ([0, float("nan")], "finite numbers, not nan"),
        ([0, "x"], "finite numbers, not 'x'"),
        ([0, 10**400], "finite numbers, not 1000"),
        ("0:1e300:1e299", "finite numbers, not 1e+299"),
    ],
)
def test_another_grid_is_refused_by_its_key(given: Any, cause: str) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.grid\.dos") as caught:
        grid_points("dos", given)
    assert cause in str(caught.value)
    assert not is_grid(given)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["dataset.targets=[dos,gap]"], "a target with a grid is the only one"),
        (["++dataset.grid_loss.gap=points"], "dataset.grid_loss.gap needs dataset.grid.gap"),
        (["++dataset.tasks.dos=classification"], "dataset.tasks.dos=classification"),
        (["dataset.delta=gga"], "dataset.delta=gga subtracts one number"),
        (["dataset.split.stratify=dos"], "dataset.split.stratify=dos needs classes"),
        (["dataset.split.method=target_tail"], "target_tail orders numbers"),
        (["loss=gaussian"], "loss=gaussian and laplace"),
        (["head=gp"], "a kernel head predicts a number"),
        (["++dataset.grid_loss.dos=area"], "points or cumulative"),
    ],
)
def test_what_excludes_a_grid_is_named(words: list[str], cause: str) -> None:
    with pytest.raises(ConfigError, match=r".") as caught:
        validate(compose("train", [*WORDS, *words]), "train")
    assert cause in str(caught.value)


def test_a_benchmark_has_no_tables_for_a_grid() -> None:
    cfg = compose("benchmark", [*WORDS, "folds=2"])
    with pytest.raises(ConfigError, match="csgcnn benchmark has no tables"):
        validate(cfg, "benchmark")
