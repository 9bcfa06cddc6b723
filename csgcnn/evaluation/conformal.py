"""Prediction intervals from calibration rows, which neither trained nor chose anything.

Split-conformal intervals (Lei et al., JASA 113, 1094, 2018; Vovk et al., Algorithmic Learning in a
Random World, 2005) need one network and its calibration rows. CV+ (Barber et al., Ann. Stat. 49,
486, 2021) needs several, each with the fold of rows that it was not trained on. With one network,
CV+ is split conformal, so that one function computes both.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from csgcnn.data.targets import Target
from csgcnn.errors import ConfigError
from csgcnn.evaluation.calibration import LEVELS, calibration_labels

# Calibration labels that a level of 0.9, the default, needs.
MIN_LABELS = 9
# Halvings of the range in which the end of an interval lies.
HALVINGS = 60


@dataclass(frozen=True, slots=True, eq=False)
class ConformalScores:
    """Scores of calibration rows, which give the intervals of new predictions.

    The score of a row is |error| / s, where s is the standard deviation that the network predicts
    for it, or 1 if it predicts none. Errors are those of the trained scale.

    Outputs of networks have the shape [n_rows, 2, n_networks, sum of n_outputs]: predictions and
    standard deviations, NaN where there are none; see `inference.predict_with_pooled`.

    Attributes:
        scores: Sorted scores of each number, [n_labels] float32 for each network.
    """

    scores: Mapping[str, Sequence[Tensor]]

    @classmethod
    def of(cls, outputs: Tensor, truth: Tensor, targets: Sequence[Target]) -> "ConformalScores":
        """Compute the scores of calibration rows.

        Args:
            outputs: Outputs of one network [n_rows, 2, 1, sum of n_outputs].
            truth: Values [n_rows, n_targets], NaN where unknown.
            targets: The targets.
        """
        scores = {}
        for name, place, column in _numbers(targets):
            center, width = _center_and_width(outputs, column)
            found = (center[:, 0] - truth[:, place]).abs() / width[:, 0]
            # a prediction that is not finite has the largest score
            found = found[~truth[:, place].isnan()].nan_to_num(nan=torch.inf)
            scores[name] = [found.clamp(max=torch.finfo(torch.float32).max).float().sort().values]
        return cls(scores)

    @classmethod
    def joined(cls, parts: Sequence["ConformalScores"]) -> "ConformalScores":
        """Return the scores of several networks, each with calibration rows of its own."""
        return cls({name: [part.scores[name][0] for part in parts] for name in parts[0].scores})

    @classmethod
    def from_plain(
        cls, plain: Mapping[str, Any] | None, targets: Sequence[Target], n_networks: int
    ) -> "ConformalScores | None":
        """Return the scores that a checkpoint holds, if it holds some.

        Args:
            plain: The entry of the checkpoint.
            targets: Targets of the model.
            n_networks: Number of its networks.

        Raises:
            ValueError: They are those of another model.
        """
        if plain is None:
            return None
        numbers = {name for name, _, _ in _numbers(targets)}
        sizes = {len(of_networks) for of_networks in plain.values()}
        if plain.keys() != numbers or sizes not in ({1}, {n_networks}):
            raise ValueError("its calibration scores are those of other targets or networks")
        return cls(plain)

    def plain(self) -> dict[str, list[Tensor]]:
        """Return plain data for a checkpoint."""
        return {name: [*of_networks] for name, of_networks in self.scores.items()}

    @property
    def n_networks(self) -> int:
        """The number of networks with scores of their own: of the members of an ensemble, or 1."""
        return max(map(len, self.scores.values()))

    @property
    def n_labels(self) -> dict[str, int]:
        """The number of calibration labels of each number."""
        return {name: sum(map(len, of_networks)) for name, of_networks in self.scores.items()}

    def bounds(
        self, outputs: Tensor, targets: Sequence[Target], level: float
    ) -> tuple[Tensor, Tensor]:
        """Return the ends of intervals.

        Args:
            outputs: Outputs of the networks.
            targets: The targets.
            level: Coverage of the intervals, between 0 and 1.

        Returns:
            Lower and upper ends on the trained scale [n_rows, sum of n_outputs] float64, NaN for
            probabilities.

        Raises:
            ConfigError: The level is not between 0 and 1, or needs more labels than there are.
        """
        lower = torch.full_like(outputs[:, 0, 0], math.nan, dtype=torch.float64)
        upper = lower.clone()
        for name, _, column in _numbers(targets):
            rank = _rank(self.n_labels[name], level, name)
            center, width = _center_and_width(outputs, column)
            scores = [of_network.double() for of_network in self.scores[name]]
            upper[:, column] = _smallest(center, width, scores, rank)
            lower[:, column] = -_smallest(-center, width, scores, rank)
        return lower, upper

    def coverage(
        self, outputs: Tensor, truth: Tensor, targets: Sequence[Target]
    ) -> dict[str, dict[str, float]]:
        """Return the fraction of known values in the intervals of each number and level.

        Args:
            outputs: Outputs of the networks.
            truth: Values [n_rows, n_targets], NaN where unknown.
            targets: The targets.

        Returns:
            By number, the fraction at those of `LEVELS` for which there are enough labels.
        """
        found: dict[str, dict[str, float]] = {}
        possible = [
            level for level in LEVELS if _needed_labels(level) <= min(self.n_labels.values())
        ]
        for level in possible:
            lower, upper = self.bounds(outputs, targets, level)
            for name, place, column in _numbers(targets):
                values = truth[:, place].double()
                known = ~values.isnan()
                inside = (lower[:, column] <= values) & (values <= upper[:, column])
                if known.any():
                    fraction = inside[known].double().mean().item()
                    found.setdefault(name, {})[f"{level:.4g}"] = fraction
        return found


def check_calibration(values: Tensor, targets: Sequence[Target]) -> None:
    """Check that there are enough calibration labels for intervals of the default level.

    Args:
        values: Values of the calibration rows [n_rows, n_targets], NaN where unknown.
        targets: The targets.

    Raises:
        ConfigError: A number has too few labels, or there is no number.
    """
    if grids := [target.name for target in targets if target.grid]:
        raise ConfigError(
            f"calibration rows have no effect on {grids[0]}, which has a grid and no intervals; "
            "omit dataset.split.calibration, or these rows in dataset.split.file"
        )
    n_labels = calibration_labels(values, targets)
    if not n_labels:
        raise ConfigError(
            "calibration rows have no effect on classes, which have no intervals; omit "
            "dataset.split.calibration, ensemble_folds, or these rows in dataset.split.file"
        )
    name, fewest = min(n_labels.items(), key=lambda item: item[1])
    if fewest < MIN_LABELS:
        raise ConfigError(
            f"{fewest} calibration rows have a label of {name}, expected at least {MIN_LABELS} for "
            "level=0.9; give a larger dataset.split.calibration, or a smaller ensemble with "
            "ensemble_folds=true"
        )


def _rank(n_labels: int, level: float, name: str) -> int:
    """Return ⌈(n + 1) level⌉, the rank of the score that gives half of the width of an interval.

    If calibration rows and new rows are exchangeable, the interval holds a new label with a
    probability of at least the level.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: expected a number between 0 and 1")
    if (needed := _needed_labels(level)) > n_labels:
        raise ConfigError(
            f"level={level} needs {needed} calibration labels of {name}, and the model has "
            f"{n_labels}; choose a lower level, or train with a larger dataset.split.calibration"
        )
    return _ceil((n_labels + 1) * level)


def _needed_labels(level: float) -> int:
    return _ceil(level / (1 - level))


def is_plain(value: Any) -> bool:
    """Return whether an entry of a checkpoint holds scores."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(parts, list) and parts and all(map(_is_sorted, parts))
        for name, parts in value.items()
    )


def interval_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return lines about the coverage of intervals, from entries of metrics.json, for the user."""
    return [
        f"{_percentages(map(float, fractions))} intervals of {name} hold "
        f"{_percentages(fractions.values())} of the values "
        f"({facts['interval_labels'][name]} calibration labels)"
        for name, fractions in facts.get("intervals", {}).items()
    ]


def _percentages(fractions: Iterable[float]) -> str:
    *others, last = [f"{fraction:.0%}".replace("%", " %") for fraction in fractions]
    return f"{', '.join(others).replace(' %', '')} and {last}" if others else last


def _is_sorted(scores: Any) -> bool:
    return (
        isinstance(scores, Tensor)
        and scores.dtype == torch.float32
        and scores.ndim == 1
        and bool(scores.isfinite().all() and (scores >= 0).all() and (scores.diff() >= 0).all())
    )


def _ceil(value: float) -> int:
    # 0.9 of 10 is 9, although the product of floats may be slightly larger.
    return math.ceil(value - 1e-9)


def _numbers(targets: Sequence[Target]) -> list[tuple[str, int, int]]:
    """Return name, column of the values and column of the outputs of each number."""
    found, column = [], 0
    for place, target in enumerate(targets):
        found += [] if target.classes else [(target.name, place, column)]
        column += target.n_outputs
    return found


def _center_and_width(outputs: Tensor, column: int) -> tuple[Tensor, Tensor]:
    """Return the predictions, and the widths of a score of 1, [n_rows, n_networks] float64."""
    center, std = outputs[..., column].double().unbind(1)
    tiny = torch.finfo(torch.float32).tiny
    return center, torch.where(std.isnan(), 1.0, std.clamp(min=tiny))


def _smallest(center: Tensor, width: Tensor, scores: Sequence[Tensor], rank: int) -> Tensor:
    """Return the `rank`-th smallest of center + width * score of all networks [n_rows].

    It lies between the smallest and the largest of the corresponding quantiles of each network.
    """
    n_scores = sum(map(len, scores))
    of_network = [(center[:, i], width[:, i], own) for i, own in enumerate(scores) if len(own)]
    quantiles = torch.stack(
        [c + w * own[_ceil(len(own) * rank / n_scores) - 1] for c, w, own in of_network]
    )
    low, high = quantiles.amin(0), quantiles.amax(0)
    for _ in range(HALVINGS if len(of_network) > 1 else 0):
        middle = (low + high) / 2
        below = [torch.searchsorted(own, (middle - c) / w, right=True) for c, w, own in of_network]
        is_enough = torch.stack(below).sum(0) >= rank
        low, high = torch.where(is_enough, low, middle), torch.where(is_enough, middle, high)
    return high
