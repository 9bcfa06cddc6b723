"""Error against the number of training crystals: a power law, and what it predicts for more data.

The error of a size n is modeled as e(n) = a n^-b, a line in log e against log n. The law is fitted
by least squares in each repeat. All that is reported is the mean over the repeats with its 95 %
interval of Student's t, because the errors of one repeat share test rows and training rows, and
are not independent of each other. Means and intervals of errors are those of their logarithms.

The law is that of Cortes et al., NeurIPS 6, 327 (1993), without the error that remains with any
amount of data; Hestness et al., arXiv:1712.00409 (2017), measured it for neural networks.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

# Multiples of the largest size for which the error is extrapolated.
FACTORS = (2, 10)
LEVEL = 0.95
# Two sizes always lie on a line.
MIN_SIZES = 3

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over the repeats.

    Attributes:
        value: The mean.
        low: Lower end of its interval, NaN with one repeat.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Array) -> "Estimate":
        """Return the mean of independent samples and its interval."""
        n, mean = len(samples), float(samples.mean())
        half = math.nan
        if n > 1:
            half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * samples.std(ddof=1) / math.sqrt(n))
        return cls(mean, mean - half, mean + half)

    def exp(self) -> "Estimate":
        """Return the estimate of an error from that of its logarithm."""
        return Estimate(math.exp(self.value), math.exp(self.low), math.exp(self.high))


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """The law e(n) = a n^-b, fitted in each repeat.

    Attributes:
        log_a: ln a [n_repeats].
        b: Exponents [n_repeats].
    """

    log_a: Array
    b: Array

    @classmethod
    def fit(cls, sizes: Array, errors: Array) -> "PowerLaw":
        """Fit the law.

        Args:
            sizes: Training crystals [n_repeats, n_sizes].
            errors: Errors above 0, of the same shape.
        """
        pairs = zip(np.log(sizes), np.log(errors), strict=True)
        slope, log_a = np.array([np.polyfit(x, y, 1) for x, y in pairs]).T
        return cls(log_a, -slope)

    def log_errors(self, sizes: Array) -> Array:
        """Return ln e [n_repeats] for the size of each repeat [n_repeats], or for one size []."""
        return self.log_a - self.b * np.log(sizes)

    def at(self, size: float) -> Estimate:
        """Return the error that the law predicts for a size."""
        return Estimate.of(self.log_errors(np.array(size))).exp()

    @property
    def exponent(self) -> Estimate:
        """The exponent b."""
        return Estimate.of(self.b)


def contradiction(sizes: Array, errors: Array, unit: str = "") -> str:
    """Return why the errors give no power law to extrapolate, or nothing.

    The exponent must be positive, and the law of all sizes but the largest must predict the error
    there: the interval of the difference of the logarithms, over the repeats, contains 0.

    Args:
        sizes: Training crystals [n_repeats, n_sizes], increasing in each repeat.
        errors: Errors of the same shape.
        unit: Unit of the errors.
    """
    n_repeats, n_sizes = errors.shape
    if n_sizes < MIN_SIZES:
        return f"a power law needs at least {MIN_SIZES} sizes, not {n_sizes}"
    if not (errors > 0).all():
        return "an error is 0 or unknown, and has no logarithm"
    exponent = PowerLaw.fit(sizes, errors).exponent
    if exponent.value <= 0:
        return "a power law does not hold; the error does not fall with more crystals"
    if exponent.low <= 0:
        return (
            "the repeats do not show that the error falls with more crystals; the interval of the "
            f"exponent is {exponent.low:.2f} to {exponent.high:.2f}"
        )
    expected = PowerLaw.fit(sizes[:, :-1], errors[:, :-1]).log_errors(sizes[:, -1])
    measured = np.log(errors[:, -1])
    difference = Estimate.of(measured - expected)
    if n_repeats == 1 or difference.low <= 0 <= difference.high:
        return ""
    unit = f" {unit}" if unit else ""
    return (
        "a power law does not hold; fitted to the smaller sizes, it predicts "
        f"{math.exp(expected.mean()):.3g}{unit} for {sizes[:, -1].mean():,.0f} crystals, but "
        f"{math.exp(measured.mean()):.3g}{unit} was measured"
    )
