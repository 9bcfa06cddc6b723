"""Choose the structures to compute or measure next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.data.given_inputs import NO_INPUTS, Inputs
from csgcnn.data.targets import Target, with_unit
from csgcnn.data.transforms import transformed
from csgcnn.errors import ConfigError, UserError, nearest
from csgcnn.predictor import Predictor
from csgcnn.runs.predictions import IN_TRAINING, OUT_OF_DOMAIN, TRUE
from csgcnn.screening.embedding import Embedding, embed

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]
UNCERTAINTY, UCB, IMPROVEMENT, DIVERSE = RULES = (
    *("uncertainty", "ucb", "expected_improvement", "diverse"),
)
MEDIAN = 50  # percentile of the validation distances


@dataclass(frozen=True, slots=True)
class Rule:
    r"""What makes a structure worth a calculation.

    With prediction μ and standard deviation σ of a target y, and distances in the standardized
    embedding:

    - uncertainty: σ
    - ucb: the upper confidence bound μ + β σ (Srinivas et al., ICML 2010)
    - expected_improvement: the mean of max(0, y - best), for normally distributed y (Jones,
      Schonlau & Welch, J. Global Optim. 13, 455, 1998)
    - diverse: the distance to the nearest training crystal or chosen crystal

    for `goal=max`; min changes the signs of μ and y. With a number as goal, ucb takes -|μ - goal|
    for μ, and improvement is that of the distance to the goal. Structures are chosen one after the
    other, so that a batch does not repeat itself: with all rules but diverse, the value (of ucb,
    above the lowest of all candidates) is multiplied by min(1, d / m). d is the distance to the
    nearest chosen crystal, m the median distance of a validation crystal to the training crystals.

    Attributes:
        by: One of `RULES`.
        goal: max, min or a number; needed for ucb and expected_improvement.
        best: Best known value of the target, needed for expected_improvement.
        beta: Weight of the standard deviation in ucb.
        target: Name of the target; None: the only one.
    """

    by: str = UNCERTAINTY
    goal: str | float | None = None
    best: float | None = None
    beta: float = 1.0
    target: str | None = None

    def __post_init__(self) -> None:
        if self.by not in RULES:
            raise ConfigError(f"by={self.by}: expected {', '.join(RULES)}{nearest(self.by, RULES)}")
        has_goal = self.by in (UCB, IMPROVEMENT)
        is_number = isinstance(self.goal, int | float) and not isinstance(self.goal, bool)
        if has_goal and not (is_number or self.goal in ("max", "min")):
            raise ConfigError(f"by={self.by} needs goal=max, goal=min or goal=NUMBER")
        if self.by == IMPROVEMENT and self.best is None:
            raise ConfigError(f"by={self.by} needs best=NUMBER, the best known value of the target")
        unread = {"goal": None if has_goal else self.goal}
        unread["best"] = None if self.by == IMPROVEMENT else self.best
        for name, value in unread.items():
            if value is not None:
                raise ConfigError(f"{name}={value} has no effect with by={self.by}; omit it")

    def values(self, mean: Array, std: Array, target: Target) -> Array:
        """Return how much each structure is worth, before any is chosen.

        Args:
            mean: Predictions on the scale on which the target is trained [n].
            std: Their standard deviations [n].
            target: The target.
        """
        if self.by == UNCERTAINTY:
            return std
        sign = -1.0 if self.goal == "min" else 1.0
        goal = transformed(float(self.goal or 0), target) if self.goal not in ("max", "min") else 0
        if self.by == UCB:
            towards = sign * mean if self.goal in ("max", "min") else -np.abs(mean - goal)
            return towards + self.beta * std
        best = transformed(float(self.best or 0), target)
        if self.goal in ("max", "min"):
            return _mean_excess(sign * mean, std, sign * best)
        width = abs(best - goal)
        tent = (_mean_excess(mean, std, goal + shift) for shift in (-width, 0.0, width))
        low, middle, high = tent
        return low - 2 * middle + high


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen structure.

    Attributes:
        row: Its row in the embedding.
        value: Value of the rule.
        distance: Distance to the nearest training crystal or crystal that was chosen before.
        neighbor: Id of that crystal.
        is_chosen: Whether it was chosen before.
    """

    row: int
    value: float
    distance: float
    neighbor: str
    is_chosen: bool


def select(
    model: str | Path | Sequence[str | Path] | Predictor,
    structures: Any,
    n: int,
    rule: Rule = Rule(),
    inputs: Inputs = NO_INPUTS,
) -> "pd.DataFrame":
    """Choose the structures to compute or measure next, as `csgcnn select` does.

    Args:
        model: Checkpoint, several of an ensemble, or a loaded model.
        structures: Candidates, as for `Predictor.predict`.
        n: Number of structures to choose.
        rule: How they are chosen.
        inputs: As for `Predictor.predict`.

    Returns:
        A row for each chosen structure, with its rank and the reason; training crystals are not
        chosen.

    Raises:
        UserError: The model predicts no standard deviation, or stores no training crystals.
        ConfigError: The rule needs another value.

    Examples:
        >>> csgcnn.select("runs/*", structures, 10, csgcnn.Rule("ucb", goal="max"))
    """
    import pandas as pd

    predictor = model if isinstance(model, Predictor) else Predictor.load(model)
    check_rule(rule, predictor)
    embedding = embed(predictor, structures, inputs)
    header, rows = selected_table(predictor, embedding, choose(predictor, embedding, n, rule), rule)
    return pd.DataFrame(rows, columns=header)


def check_rule(rule: Rule, predictor: Predictor) -> Target:
    """Return the target of a rule.

    Args:
        rule: The rule.
        predictor: The model.

    Raises:
        UserError: The model predicts no standard deviation, or stores no training crystals.
        ConfigError: The target is unknown, or has classes.
    """
    if predictor.embeddings is None:
        raise UserError(
            "the checkpoint holds no embeddings of training crystals; train again, with "
            "trainer.store_embeddings=true"
        )
    if rule.target is None and len(predictor.targets) > 1 and rule.by != DIVERSE:
        raise ConfigError(f"give target=… of {', '.join(predictor.names)}")
    name = rule.target or predictor.names[0]
    if name not in predictor.names:
        known = ", ".join(predictor.names)
        raise ConfigError(f"target={name}: expected {known}{nearest(name, predictor.names)}")
    target = predictor.targets[predictor.names.index(name)]
    if rule.by == DIVERSE:
        return target
    if target.n_outputs > 1:
        several = "classes" if target.classes else "a grid"
        raise ConfigError(f"by={rule.by} needs a number, and {name} has {several}; use by=diverse")
    if not predictor.has_std:
        raise UserError(
            f"by={rule.by} needs standard deviations: give several checkpoints as an ensemble, "
            "train with ensemble=5 or loss=gaussian, or use by=diverse"
        )
    return target


def choose(predictor: Predictor, embedding: Embedding, n: int, rule: Rule) -> list[Choice]:
    """Choose structures one after the other.

    Args:
        predictor: The model, checked by `check_rule`.
        embedding: The candidates.
        n: Largest number of structures to choose.
        rule: How they are chosen.
    """
    if not embedding.ids:
        return []
    prediction, vectors = embedding.prediction, embedding.standardized
    cells = prediction.domain
    is_free = np.array([cell != TRUE for cell in cells[IN_TRAINING]], bool)
    distance = np.array(cells["nearest_distance"], float)
    neighbor, by_choice = list(cells["nearest_id"]), np.zeros(len(vectors), bool)
    own = np.full(len(vectors), np.inf)  # distance to the nearest chosen structure
    values = distance if rule.by == DIVERSE else _values(predictor, embedding, rule)
    is_free &= np.isfinite(values)
    known = predictor.embeddings.percentiles if predictor.embeddings else ()
    # without validation rows, the candidates stand for them
    unit = float(known[MEDIAN] if len(known) else np.median(distance))
    shift = values[is_free].min() if rule.by == UCB and is_free.any() else 0.0
    chosen = list[Choice]()
    for _ in range(min(n, int(is_free.sum()))):
        weight = np.minimum(1.0, own / unit) if unit > 0 else 1.0
        scores = distance if rule.by == DIVERSE else (values - shift) * weight
        row = int(np.where(is_free, scores, -np.inf).argmax())
        value = float(distance[row] if rule.by == DIVERSE else values[row])
        found = (float(distance[row]), neighbor[row], bool(by_choice[row]))
        chosen.append(Choice(row, value, *found))
        is_free[row] = False
        to_row = np.linalg.norm(vectors - vectors[row], axis=1)
        own = np.minimum(own, to_row)
        for i in np.flatnonzero(to_row < distance):
            neighbor[i], by_choice[i] = embedding.ids[row], True
        distance = np.minimum(distance, to_row)
    return chosen


def selected_table(
    predictor: Predictor, embedding: Embedding, chosen: Sequence[Choice], rule: Rule
) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of the table of chosen structures.

    Args:
        predictor: The model.
        embedding: The candidates.
        chosen: What `choose` returned.
        rule: How they were chosen.
    """
    target = check_rule(rule, predictor)
    prediction, column = embedding.prediction, predictor.columns.index(target.outputs[0])
    with_std = predictor.has_std and target.n_outputs == 1 and target.transform == "none"
    header = ["rank", "id"]
    header += [] if target.n_outputs > 1 else [with_unit(target.name, target.unit)]
    header += [with_unit(f"{target.name}_std", target.unit)] if with_std else []
    header += [rule.by, "distance", "reason", OUT_OF_DOMAIN]
    rows = []
    outside = prediction.domain.get(OUT_OF_DOMAIN, [""] * len(embedding.ids))
    for rank, one in enumerate(chosen, 1):
        kind = "chosen" if one.is_chosen else "training"
        reason = f"{rule.by} {one.value:.4g}; {one.distance:.4g} from the {kind} crystal "
        row: list[Any] = [rank, embedding.ids[one.row]]
        row += [] if target.n_outputs > 1 else [float(prediction.values[one.row, column])]
        if with_std and prediction.std is not None:
            row.append(float(prediction.std[one.row, column]))
        reason += one.neighbor
        rows.append([*row, one.value, one.distance, reason, outside[one.row]])
    return header, rows


def _values(predictor: Predictor, embedding: Embedding, rule: Rule) -> Array:
    target, prediction = check_rule(rule, predictor), embedding.prediction
    column = predictor.columns.index(target.name)
    mean = np.array([transformed(float(v), target) for v in prediction.values[:, column]])
    std = np.zeros(len(mean)) if prediction.std is None else prediction.std[:, column]
    return rule.values(mean, std.astype(float), target)


def _mean_excess(mean: Array, std: Array, limit: float) -> Array:
    """Return the mean of max(0, y - limit) of normally distributed y."""
    from scipy.stats import norm

    width = np.maximum(std, 1e-12)
    z = (mean - limit) / width
    return width * (norm.pdf(z) + z * norm.cdf(z))
