"""Grids of targets whose values are lists: their points, and what excludes them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from csgcnn.errors import ConfigError

MOST_POINTS = 10_000
LARGEST = 1e37  # as of a value: the largest float32 is 3e38


def grid_points(name: str, grid: Any) -> tuple[float, ...]:
    """Return the points of a grid.

    Args:
        name: Name of the target.
        grid: `start:stop:step` with both ends, or a list of increasing numbers.

    Raises:
        ConfigError: It is neither.
    """
    key = f"dataset.grid.{name}"
    if isinstance(grid, str):
        text, grid = grid, number_range(grid)
        if len(grid) < 2 or grid[0] > grid[1]:
            raise ConfigError(
                f"{key}={text}: expected start:stop:step with 2 to {MOST_POINTS:,} points, such as "
                "10:90:0.5"
            )
    if not isinstance(grid, Sequence) or not 2 <= len(grid) <= MOST_POINTS:
        raise ConfigError(
            f"{key}={grid!r:.60}: expected start:stop:step, such as 10:90:0.5, or a list of 2 to "
            f"{MOST_POINTS:,} numbers"
        )
    for point in grid:
        if type(point) not in (int, float) or not abs(point) <= LARGEST:
            raise ConfigError(f"{key}: expected a list of finite numbers, not {point!r:.40}")
    for number, (point, following) in enumerate(pairwise(grid), 1):
        if not point < following:
            raise ConfigError(
                f"{key}: expected increasing numbers, but point {number + 1} is {following:g} "
                f"after {point:g}"
            )
    return tuple(map(float, grid))


def is_grid(points: Any) -> bool:
    """Return whether a value, which may be untrusted, is the points of a grid."""
    try:
        return not isinstance(points, str) and bool(grid_points("", points))
    except ConfigError:
        return False


def number_range(text: str) -> list[float]:
    """Return the numbers of `start:stop:step` with both ends; none: no range, or too long."""
    try:
        start, stop, step = map(float, text.split(":"))
        n_steps = (stop - start) / step + 1e-9  # the stop is included
    except (ValueError, ZeroDivisionError):
        return []
    if not 0 <= n_steps < MOST_POINTS:
        return []
    # 12 digits: 0.1:0.3:0.1 ends with 0.3
    return [float(f"{start + i * step:.12g}") for i in range(int(n_steps) + 1)]


def check_grids(config: Mapping[str, Any], command: str) -> None:
    """Check that nothing is asked of a target with a grid that needs a single number.

    Args:
        config: A plain configuration of a training.
        command: Name of the command.

    Raises:
        ConfigError: A grid is malformed, or another key excludes it.
    """
    dataset = config["dataset"]
    if dataset["grid"] and command != "train":
        raise ConfigError(f"csgcnn {command} has no tables for dataset.grid; use csgcnn train")
    for key in ("grid_units", "grid_loss"):
        for name in dataset[key]:
            if name not in dataset["grid"]:
                raise ConfigError(f"dataset.{key}.{name} needs dataset.grid.{name}=…")
    for name, grid in dataset["grid"].items():
        grid_points(name, grid)
        if dataset["targets"] != [name]:
            raise ConfigError(
                f"dataset.grid.{name}: a target with a grid is the only one; give "
                f"dataset.targets=[{name}]"
            )
        if reason := _excluded(name, config):
            raise ConfigError(f"{reason}, and dataset.grid.{name} makes {name} a list; omit one")


def _excluded(name: str, config: Mapping[str, Any]) -> str:
    """Return what excludes that a target has a grid, or nothing."""
    dataset, split = config["dataset"], config["dataset"]["split"]
    is_tail = split["method"] == "target_tail" and split["column"] in (None, name)
    reasons = {
        "ensemble_folds=true gives intervals of a number": bool(config.get("ensemble_folds")),
        f"dataset.tasks.{name}=classification predicts one class": name in dataset["tasks"]
        and dataset["tasks"][name] != "regression",
        f"dataset.derived.{name} computes a number": name in dataset["derived"],
        f"dataset.delta={dataset['delta']} subtracts one number": dataset["delta"]
        not in (None, "composition"),
        "dataset.fidelities divides columns of numbers": bool(dataset["fidelities"]),
        f"dataset.inputs=[{name}] reads a number": name in (dataset["inputs"] or ()),
        f"dataset.weight_column={name} reads a number": name == dataset["weight_column"],
        "dataset.split.calibration gives intervals of a number": bool(split["calibration"]),
        f"dataset.split.stratify={name} needs classes": name == split["stratify"],
        f"dataset.split.column={name} reads a single value": name == split["column"],
        "dataset.split.method=target_tail orders numbers": is_tail,
        "loss=gaussian and laplace predict the deviation of a number": bool(
            config["model"].get("predict_std")
        ),
        "a kernel head predicts a number": bool(config["head"]),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")
