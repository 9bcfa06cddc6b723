"""Kernels for the messages of CSGCNN and CSGANN, and for their gradients.

Shapes, float32 unless stated: z [n_edges, 2 hidden], messages before the norm, which is
y = z scale + shift with scale and shift [2 hidden]; multiplicity [n_edges]; first [n_atoms + 1]
int64, the first edge of each atom.
"""

import numpy as np
from numba import prange

from csgcnn.nn.compiled.edges import (
    N_BLOCKS,
    Array,
    Doubles,
    Integers,
    add_norm_sums,
    atoms_of_block,
    move_sums,
)
from csgcnn.nn.compiled.elementary import F32, ONE, compiled, exp, parallel, sigmoid, softplus

# Loops over all columns of a row become vector operations; loops over the columns of one head are
# too short for that. Values of heads are therefore repeated for their columns.


@compiled
def _gated(
    z: Array, k: int, scale: Array, shift: Array, weight: np.float32, out: Array, i: int
) -> None:
    hidden = out.shape[1]
    for c in range(hidden):
        gate = sigmoid(z[k, c] * scale[c] + shift[c])
        y = z[k, hidden + c] * scale[hidden + c] + shift[hidden + c]
        out[i, c] += weight * gate * softplus(y, exp(-abs(y)))


@compiled
def _gated_backward(
    z: Array, k: int, scale: Array, shift: Array, weight: np.float32,
    by_out: Array, i: int, grad: Array,
) -> None:  # fmt: skip
    hidden = by_out.shape[1]
    for c in range(hidden):
        gate = sigmoid(z[k, c] * scale[c] + shift[c])
        y = z[k, hidden + c] * scale[hidden + c] + shift[hidden + c]
        decayed = exp(-abs(y))
        by_core = weight * by_out[i, c] * gate
        grad[k, c] = by_core * (ONE - gate) * softplus(y, decayed)
        grad[k, hidden + c] = by_core * (ONE if y > 0 else decayed) / (ONE + decayed)


@parallel
def gated_sum(z: Array, scale: Array, shift: Array, multiplicity: Array, first: Integers) -> Array:
    """Return the sum of gated messages over the neighbors of each atom [n_atoms, hidden].

    Args:
        z: Messages before the norm.
        scale: Factors of the norm.
        shift: Summands of the norm.
        multiplicity: Number of neighbors that each edge stands for.
        first: First edge of each atom.
    """
    n_atoms = len(first) - 1
    out = np.zeros((n_atoms, z.shape[1] // 2), F32)
    for block in prange(N_BLOCKS):
        start, end = atoms_of_block(block, n_atoms)
        for i in range(start, end):
            for k in range(first[i], first[i + 1]):
                _gated(z, k, scale, shift, multiplicity[k], out, i)
    return out


@parallel
def gated_sum_backward(
    by_out: Array,
    z: Array,
    scale: Array,
    shift: Array,
    multiplicity: Array,
    first: Integers,
    mean: Array,
) -> tuple[Array, Doubles]:
    """Return gradients of `gated_sum`.

    Args:
        by_out: Gradient with respect to its result.
        z: Messages before the norm.
        scale: Factors of the norm.
        shift: Summands of the norm.
        multiplicity: Number of neighbors that each edge stands for.
        first: First edge of each atom.
        mean: Mean of z.

    Returns:
        The gradient with respect to y [n_edges, 2 hidden]; its sum over the edges, and that of its
        product with z - mean, [2, 2 hidden].
    """
    n_atoms, size = len(first) - 1, z.shape[1]
    grad = np.empty_like(z)
    sums = np.zeros((N_BLOCKS, 2, size))
    for block in prange(N_BLOCKS):
        start, end = atoms_of_block(block, n_atoms)
        of_atom, of_block = np.zeros((2, size), F32), np.zeros((2, size))
        for i in range(start, end):
            for k in range(first[i], first[i + 1]):
                _gated_backward(z, k, scale, shift, multiplicity[k], by_out, i, grad)
                add_norm_sums(grad, z, k, mean, of_atom)
            move_sums(of_atom, of_block)
        sums[block] = of_block
    return grad, sums.sum(0)


@compiled
def _silu(z: Array, k: int, scale: Array, shift: Array, active: Array, row: int) -> None:
    for c in range(len(scale)):
        y = z[k, c] * scale[c] + shift[c]
        active[row, c] = y * sigmoid(y)


@compiled
def _silu_and_slope(
    z: Array, k: int, scale: Array, shift: Array, active: Array, slope: Array
) -> None:
    for c in range(len(scale)):
        y = z[k, c] * scale[c] + shift[c]
        s = sigmoid(y)
        active[c] = y * s
        slope[c] = s * (ONE + y * (ONE - s))


@compiled
def _sum_heads(product: Array, out: Array, row: int) -> None:
    """Sum the columns of each head."""
    heads = out.shape[1]
    width = len(product) // heads
    for h in range(heads):
        total = F32(0)
        for c in range(h * width, (h + 1) * width):
            total += product[c]
        out[row, h] = total


@compiled
def _repeat(values: Array, row: int, out: Array) -> None:
    """Repeat the value of each head for its columns."""
    heads = values.shape[1]
    width = len(out) // heads
    for h in range(heads):
        for c in range(h * width, (h + 1) * width):
            out[c] = values[row, h]


@compiled
def _softmax(logits: Array, start: int, stop: int, multiplicity: Array) -> None:
    """Replace logits [n_edges, heads] by their softmax over rows from start to stop."""
    for h in range(logits.shape[1]):
        highest, total = F32(-np.inf), F32(0)
        for k in range(start, stop):
            if multiplicity[k] > 0:
                highest = max(highest, logits[k, h])
        for k in range(start, stop):
            weight = F32(0)
            if multiplicity[k] > 0:
                weight = multiplicity[k] * exp(logits[k, h] - highest)
            logits[k, h] = weight
            total += weight
        if total > 0:
            for k in range(start, stop):
                logits[k, h] /= total


@parallel
def attention_sum(
    z: Array, scale: Array, shift: Array, multiplicity: Array, first: Integers, attention: Array
) -> tuple[Array, Array]:
    """Return the mean of messages over the neighbors of each atom, weighted by attention.

    Args:
        z: Queries and values before the norm.
        scale: Factors of the norm.
        shift: Summands of the norm.
        multiplicity: Number of neighbors that each edge stands for.
        first: First edge of each atom.
        attention: Vectors of the heads [heads, hidden / heads].

    Returns:
        The means [n_atoms, hidden], and the weights of the edges [n_edges, heads].
    """
    n_atoms, size = len(first) - 1, z.shape[1]
    hidden, most = size // 2, 0
    for i in range(n_atoms):
        most = max(most, first[i + 1] - first[i])
    out = np.zeros((n_atoms, hidden), F32)
    alpha = np.empty((len(z), len(attention)), F32)
    for block in prange(N_BLOCKS):
        start, end = atoms_of_block(block, n_atoms)
        vectors, work = attention.ravel(), np.empty(hidden, F32)
        active = np.empty((most, size), F32)
        for i in range(start, end):
            for k in range(first[i], first[i + 1]):
                row = k - first[i]
                _silu(z, k, scale, shift, active, row)
                for c in range(hidden):
                    work[c] = active[row, c] * vectors[c]
                _sum_heads(work, alpha, k)
            _softmax(alpha, first[i], first[i + 1], multiplicity)
            for k in range(first[i], first[i + 1]):
                row = k - first[i]
                _repeat(alpha, k, work)
                for c in range(hidden):
                    out[i, c] += work[c] * active[row, hidden + c]
    return out, alpha


@parallel
def attention_sum_backward(
    by_out: Array, out: Array, alpha: Array, z: Array, scale: Array, shift: Array,
    first: Integers, mean: Array, attention: Array,
) -> tuple[Array, Doubles, Array]:  # fmt: skip
    """Return gradients of `attention_sum`.

    Args:
        by_out: Gradient with respect to its first result.
        out: Its first result.
        alpha: Its second result.
        z: Queries and values before the norm.
        scale: Factors of the norm.
        shift: Summands of the norm.
        first: First edge of each atom.
        mean: Mean of z.
        attention: Vectors of the heads [heads, hidden / heads].

    Returns:
        The gradient with respect to y [n_edges, 2 hidden]; its sum over the edges, and that of its
        product with z - mean, [2, 2 hidden]; the gradient with respect to `attention`.
    """
    n_atoms, size = len(first) - 1, z.shape[1]
    hidden, heads = size // 2, len(attention)
    grad = np.empty_like(z)
    sums, by_vectors = np.zeros((N_BLOCKS, 2, size)), np.zeros((N_BLOCKS, 1, hidden))
    for block in prange(N_BLOCKS):
        start, end = atoms_of_block(block, n_atoms)
        vectors, work = attention.ravel(), np.empty(hidden, F32)
        active, slope = np.empty(size, F32), np.empty(size, F32)
        by_total, by_logit = np.empty((1, heads), F32), np.empty((1, heads), F32)
        of_atom, of_block = np.zeros((2, size), F32), np.zeros((2, size))
        vectors_of_atom, vectors_of_block = np.zeros((1, hidden), F32), np.zeros((1, hidden))
        for i in range(start, end):
            for c in range(hidden):
                work[c] = by_out[i, c] * out[i, c]
            _sum_heads(work, by_total, 0)
            for k in range(first[i], first[i + 1]):
                _silu_and_slope(z, k, scale, shift, active, slope)
                for c in range(hidden):
                    work[c] = by_out[i, c] * active[hidden + c]
                _sum_heads(work, by_logit, 0)
                for h in range(heads):
                    by_logit[0, h] = alpha[k, h] * (by_logit[0, h] - by_total[0, h])
                _repeat(alpha, k, work)
                for c in range(hidden):
                    grad[k, hidden + c] = by_out[i, c] * work[c] * slope[hidden + c]
                _repeat(by_logit, 0, work)
                for c in range(hidden):
                    grad[k, c] = work[c] * vectors[c] * slope[c]
                    vectors_of_atom[0, c] += work[c] * active[c]
                add_norm_sums(grad, z, k, mean, of_atom)
            move_sums(of_atom, of_block)
            move_sums(vectors_of_atom, vectors_of_block)
        sums[block] = of_block
        by_vectors[block] = vectors_of_block
    return grad, sums.sum(0), by_vectors.sum(0).astype(F32).reshape(attention.shape)
