"""How predictions and trainings are told: columns of csv files and lines on the terminal."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, combinations
from statistics import median
from typing import Any, TypeVar

from torch import Tensor

from csgcnn.data.targets import Target
from csgcnn.training.metrics import Metrics
from csgcnn.training.run_directory import with_unit

T = TypeVar("T")

SETTLED = 0.03  # relative change of a loss that is none
CLEAR = 0.1  # relative change of a loss that is no accident
DIVERGED = 2.0  # times its lowest: a training loss that ends above this, having lost half of its way, has diverged
SPIKE = 5.0  # times its lowest so far: a training loss that jumps above this, near to where it began, is unstable
BETTER = 0.95  # times the score of predicting the mean: a model that learned something is below this


def predicted_columns(targets: Sequence[Target], with_std: bool = False) -> list[tuple[str, str]]:
    """Name and unit of what is told of new structures: a number, a class and the probabilities of all classes.

    `with_std`: the standard deviation behind each number and probability.
    """
    columns = []
    for target in targets:
        unit = "" if target.classes else target.unit
        columns += [(target.name, "")] if target.classes else []
        for name in target.outputs:
            columns += [(name, unit), (f"{name}_std", unit)] if with_std else [(name, unit)]
    return columns


def predicted_cells(row: Sequence[float], targets: Sequence[Target], std: Sequence[float] | None = None) -> list[Any]:
    """What stands below `predicted_columns` for a row of predictions, and their deviations: [sum of n_outputs]."""
    told = list(zip(row, strict=True)) if std is None else list(zip(row, std, strict=True))
    cells: list[Any] = []
    for target, outputs, of_target in zip(targets, _parts(row, targets), _parts(told, targets), strict=True):
        cells += [_likeliest(target, outputs)] if target.classes else []
        cells += chain.from_iterable(of_target)
    return cells


def compared_columns(targets: Sequence[Target], with_std: bool = False) -> list[str]:
    """Header of predictions beside known values; `with_std`: and the standard deviations of numbers."""
    columns = []
    for target in targets:
        name, unit = target.name, target.unit
        if target.classes:
            columns += [name, f"{name}_prediction", *target.outputs]
        else:
            own = (name, f"{name}_prediction", f"{name}_error", *[f"{name}_std"] * with_std)
            columns += [with_unit(column, unit) for column in own]
    return columns


def compared_rows(
    prediction: Tensor, values: Tensor, targets: Sequence[Target], std: Tensor | None = None
) -> Iterator[list[Any]]:
    """What stands below `compared_columns` for each row; an unknown number is NaN, an unknown class empty.

    Shapes: prediction, std [n_rows, sum of n_outputs], values [n_rows, n_targets].
    """
    deviations = [[None] * prediction.shape[1]] * len(values) if std is None else std.tolist()
    for row, known, of_row in zip(prediction.tolist(), values.tolist(), deviations, strict=True):
        cells: list[Any] = []
        parts = zip(targets, _parts(row, targets), known, _parts(of_row, targets), strict=True)
        for target, outputs, value, deviation in parts:
            if target.classes:
                true_class = "" if value != value else target.classes[int(value)]
                cells += [true_class, _likeliest(target, outputs), *outputs]
            else:
                cells += [value, *outputs, outputs[0] - value, *(deviation if std is not None else [])]
        yield cells


def told(target: Target, metrics: Metrics, baseline: Metrics) -> str:
    """The line of a target on the terminal; `baseline`: of `baseline_metrics`."""
    n, unit = metrics["n"], f" {target.unit}" if target.unit else ""
    if not n:
        return f"{target.name}: none of the crystals has a known value"
    if target.classes:
        return (
            f"accuracy of {target.name}: {metrics['accuracy']:.4g}, balanced {metrics['balanced_accuracy']:.4g}, "
            f"ROC-AUC {metrics['roc_auc']:.4g}, {n} crystals "
            f"(always the most frequent class: {baseline['accuracy']:.4g})"
        )
    return (
        f"MAE of {target.name}: {metrics['mae']:.4g}{unit}, RMSE {metrics['rmse']:.4g}, R2 {metrics['r2']:.4g}, "
        f"{n} crystals (predicting the mean: {baseline['mae']:.4g}{unit})"
    )


def outcome(
    history: Sequence[Mapping[str, float]], best_score: float = math.nan, baseline_score: float = math.nan
) -> str:
    """How a training ended, in a phrase.

    It starts with diverged, unstable, no better, too few, overfitting, worse, still improving, unsettled or converged.

    `history`: a row per epoch, of which train_loss and val_loss are read. `best_score`: of the best epoch on the
    validation rows, `baseline_score`: the same of predicting the mean (of classes the shares) of the training rows.
    """
    losses = [row["train_loss"] for row in history]
    train, val = _levels(losses), _levels([row["val_loss"] for row in history])
    fifth, third = (max(2, len(val) // n) for n in (5, 3))
    smooth = _smoothed(val)
    lowest = smooth.index(min(smooth))
    rise = median(val[-fifth:]) - smooth[lowest]
    if rise > CLEAR and (told := _diverged(losses, train, lowest, fifth)):
        return told
    if best_score > BETTER * baseline_score:
        return "no better than predicting the mean"
    if len(val) < 4:
        return "too few epochs to tell"
    jitter = median(abs(a - 2 * b + c) for a, b, c in zip(val, val[1:], val[2:], strict=False)) / 1.65
    if rise > CLEAR + 4 * jitter / math.sqrt(1 + 2 * _reach(val)):
        if median(train[-fifth:]) < _smoothed(train)[lowest] - CLEAR:
            return f"overfitting since epoch {lowest + 1}: the training loss fell on, the validation loss rose"
        return f"worse since epoch {lowest + 1}: the validation loss rose"
    gain = median(val[-2 * third : -third]) - median(val[-third:])
    is_lowest = smooth[-1] - smooth[lowest] < CLEAR
    if is_lowest and gain > SETTLED and _trend(val[-2 * third :]) < -2 and _trend(val[-third:]) <= -1:
        return "still improving: more epochs may help"
    if jitter > CLEAR:
        return f"unsettled: the validation loss still changes by some {jitter:.0%} from epoch to epoch"
    return "converged: the validation loss has settled"


def _diverged(losses: Sequence[float], train: Sequence[float], best: int, size: int) -> str:
    """Tell of a training loss that went up, if the validation loss was lowest before, at the position `best`."""
    lows = list(accumulate(train, min))
    lowest = train.index(lows[-1])
    lost = median(train[-size:]) - lows[-1]
    if lowest < len(train) - size and lost > max(math.log(DIVERGED), (train[0] - lows[-1]) / 2):
        end = median(losses[-size:])
        return f"diverged: the training loss rose from {losses[lowest]:.3g} (epoch {lowest + 1}) to {end:.3g}"
    rises = [level - low for level, low in zip(train, lows, strict=True)]
    peak = rises.index(max(rises))
    if best <= peak and rises[peak] > math.log(SPIKE) and train[peak] > train[0] - math.log(2):
        start = train.index(lows[peak])
        return (
            f"unstable: the training loss jumped from {losses[start]:.3g} (epoch {start + 1}) to {losses[peak]:.3g} "
            f"(epoch {peak + 1})"
        )
    return ""


def _levels(losses: Sequence[float]) -> list[float]:
    """Logarithms, whose differences are relative changes; with learned task weights a loss is logarithmic itself."""
    return [math.log(loss) for loss in losses] if min(losses) > 0 else list(losses)


def _trend(levels: Sequence[float]) -> float:
    """The z of Mann (Econometrica 13, 245, 1945): above 2 for a rise, below -2 for a fall that is no accident."""
    levels = levels[:: len(levels) // 200 + 1]
    n, balance = len(levels), sum((a < b) - (b < a) for a, b in combinations(levels, 2))
    return balance / math.sqrt(max(1, n * (n - 1) * (2 * n + 5) / 18))


def _reach(levels: Sequence[float]) -> int:
    return min(3, len(levels) // 20)


def _smoothed(levels: Sequence[float]) -> list[float]:
    reach = _reach(levels)
    return [median(levels[max(0, i - reach) : i + reach + 1]) for i in range(len(levels))]


def _parts(row: Sequence[T], targets: Sequence[Target]) -> Iterator[list[T]]:
    start = 0
    for target in targets:
        yield list(row[start : start + target.n_outputs])
        start += target.n_outputs


def _likeliest(target: Target, probabilities: Sequence[float]) -> str:
    return target.classes[max(range(len(probabilities)), key=probabilities.__getitem__)]
