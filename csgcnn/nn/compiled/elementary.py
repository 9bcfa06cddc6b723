"""Elementary functions of single precision for the kernels.

numba does not notice that a function of another file has changed: remove `__pycache__` after
changes here.
"""

from typing import Any

import numpy as np
from numba import njit

F32 = np.float32
ONE, TWO = F32(1), F32(2)
# Powers of e below and above which a float32 is 0 or infinite.
SMALLEST, LARGEST = F32(-87), F32(88)
LOG2_E = F32(1.44269504)
# ln 2 as the sum of a short number and a rest, so that n ln 2 is exact for small integers n.
LN2, LN2_REST = F32(0.693359375), F32(-2.12194440e-4)

# Sums may be reordered; NaN and infinity stay what they are.
_options: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
}
compiled = njit(**_options)
parallel = njit(parallel=True, **_options)


@compiled
def exp(x: np.float32) -> np.float32:
    """Return e^x by the method of Cephes, which the compiler computes for many x at once."""
    x = min(max(x, SMALLEST), LARGEST)
    n = np.floor(x * LOG2_E + F32(0.5))
    r = x - n * LN2 - n * LN2_REST
    p = F32(1.9875691500e-4)
    p = p * r + F32(1.3981999507e-3)
    p = p * r + F32(8.3334519073e-3)
    p = p * r + F32(4.1665795894e-2)
    p = p * r + F32(1.6666665459e-1)
    p = p * r + F32(5.0000001201e-1)
    power_of_2 = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (p * r * r + r + ONE) * power_of_2


@compiled
def softplus(x: np.float32, decayed: np.float32) -> np.float32:
    """Return log(1 + e^x) by the series of log(1 + y) = 2 artanh(y / (2 + y)).

    Args:
        x: A number.
        decayed: e^-|x|.
    """
    t = decayed / (TWO + decayed)
    t2 = t * t
    p = F32(1 / 13)
    p = p * t2 + F32(1 / 11)
    p = p * t2 + F32(1 / 9)
    p = p * t2 + F32(1 / 7)
    p = p * t2 + F32(1 / 5)
    p = p * t2 + F32(1 / 3)
    return max(x, F32(0)) + TWO * t * (p * t2 + ONE)


@compiled
def sigmoid(x: np.float32) -> np.float32:
    """Return 1 / (1 + e^-x)."""
    return ONE / (ONE + exp(-x))
