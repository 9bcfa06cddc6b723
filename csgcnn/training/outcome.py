"""How a training ended."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, combinations
from statistics import median

SETTLED = 0.03  # relative change of a loss that is none


CLEAR = 0.1  # relative change of a loss that is no accident


DIVERGED = 2.0  # times its lowest: a training loss that ends above this, having lost half of its way, has diverged


SPIKE = 5.0  # times its lowest so far: a training loss that jumps above this, near to where it began, is unstable


BETTER = (
    0.95  # times the score of predicting the mean: a model that learned something is below this
)


def outcome(
    history: Sequence[Mapping[str, float]],
    best_score: float = math.nan,
    baseline_score: float = math.nan,
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
    jitter = (
        median(abs(a - 2 * b + c) for a, b, c in zip(val, val[1:], val[2:], strict=False)) / 1.65
    )
    if rise > CLEAR + 4 * jitter / math.sqrt(1 + 2 * _reach(val)):
        if median(train[-fifth:]) < _smoothed(train)[lowest] - CLEAR:
            return f"overfitting since epoch {lowest + 1}: the training loss fell on, the validation loss rose"
        return f"worse since epoch {lowest + 1}: the validation loss rose"
    gain = median(val[-2 * third : -third]) - median(val[-third:])
    is_lowest = smooth[-1] - smooth[lowest] < CLEAR
    if (
        is_lowest
        and gain > SETTLED
        and _trend(val[-2 * third :]) < -2
        and _trend(val[-third:]) <= -1
    ):
        return "still improving: more epochs may help"
    if jitter > CLEAR:
        return (
            f"unsettled: the validation loss still changes by some {jitter:.0%} from epoch to epoch"
        )
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
