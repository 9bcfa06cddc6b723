r"""Kernels for the linear map of [x_i, x_j, e_ij] and the norm behind it.

Atoms are divided into `N_BLOCKS` blocks. Sums over all edges are added block by block, so that
results do not depend on the number of threads.

Shapes, float32 unless stated: rows of edges such as z [n_edges, size]; ends [2 n_atoms, size], see
`csgcnn.data.batch.GraphBatch.ends_of_edge`; neighbor [n_edges] int64; first [n_atoms + 1] int64,
the first edge of each atom; weights of edges [n_edges]; mean and other columns [size].
"""

import numpy as np
from numba import prange
from numpy.typing import NDArray

from csgcnn.nn.compiled.elementary import F32, compiled, parallel

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

N_BLOCKS = 32


@compiled
def atoms_of_block(block: int, n_atoms: int) -> tuple[int, int]:
    """Return the first atom of a block, and that of the next.

    Args:
        block: From 0 to N_BLOCKS - 1.
        n_atoms: Number of atoms.
    """
    return block * n_atoms // N_BLOCKS, (block + 1) * n_atoms // N_BLOCKS


@parallel
def number_blocks() -> Integers:
    """Return the numbers of the blocks; the smallest kernel."""
    numbers = np.empty(N_BLOCKS, np.int64)
    for block in prange(N_BLOCKS):
        numbers[block] = block
    return numbers


@parallel
def add_ends(z: Array, ends: Array, neighbor: Integers, first: Integers, p: Array) -> Doubles:
    """Add the terms of its two atoms to each edge, in place.

    Args:
        z: Terms of the edges.
        ends: Terms of the atoms.
        neighbor: Neighbor of each edge.
        first: First edge of each atom.
        p: Weights of the edges in the sums.

    Returns:
        Weighted sums of 1, z and its square [3, size].
    """
    n_atoms, size = len(first) - 1, z.shape[1]
    sums = np.zeros((N_BLOCKS, 3, size))
    for block in prange(N_BLOCKS):
        start, end = atoms_of_block(block, n_atoms)
        # Single precision would lose the variance of columns whose mean is large.
        total, values, squares = 0.0, np.zeros(size), np.zeros(size)
        for i in range(start, end):
            for k in range(first[i], first[i + 1]):
                other, weight = 2 * neighbor[k] + 1, np.float64(p[k])
                total += weight
                for c in range(size):
                    value = z[k, c] + ends[2 * i, c] + ends[other, c]
                    z[k, c] = value
                    weighted = weight * value
                    values[c] += weighted
                    squares[c] += weighted * value
        sums[block, 0] = total
        sums[block, 1] = values
        sums[block, 2] = squares
    return sums.sum(0)


@compiled
def add_norm_sums(grad: Array, z: Array, k: int, mean: Array, sums: Array) -> None:
    """Add the terms of edge k to the sums that the gradient of a norm needs.

    Args:
        grad: Gradient with respect to the normalized rows.
        z: Rows before the norm.
        k: Edge.
        mean: Mean of the rows.
        sums: Sums of the gradient, and of the gradient times the centered rows [2, size].
    """
    for c in range(len(mean)):
        sums[0, c] += grad[k, c]
        sums[1, c] += grad[k, c] * (z[k, c] - mean[c])


@compiled
def move_sums(sums: Array, totals: Doubles) -> None:
    """Add sums over the edges of an atom to totals, and set them to 0.

    Args:
        sums: [n, size].
        totals: [n, size].
    """
    for row in range(len(sums)):
        for c in range(sums.shape[1]):
            totals[row, c] += sums[row, c]
            sums[row, c] = 0


@parallel
def norm_backward(
    grad: Array,
    z: Array,
    mean: Array,
    by_shift: Array,
    by_row: Array,
    first: Integers,
    p: Array,
) -> Array:
    """Subtract p (by_shift + (z - mean) by_row) from the gradient, in place.

    Args:
        grad: Gradient with respect to the normalized rows.
        z: Rows before the norm.
        mean: Mean of the rows.
        by_shift: Sum of the gradient.
        by_row: Sum of the gradient times the centered rows, divided by the variance.
        first: First edge of each atom.
        p: Weights of the edges in the mean.

    Returns:
        Sums of the new gradient over the edges of each atom [n_atoms, size].
    """
    n_atoms, size = len(first) - 1, z.shape[1]
    of_center = np.zeros((n_atoms, size), F32)
    for block in prange(N_BLOCKS):
        start, end = atoms_of_block(block, n_atoms)
        for i in range(start, end):
            for k in range(first[i], first[i + 1]):
                weight = p[k]
                for c in range(size):
                    by_mean = by_shift[c] + (z[k, c] - mean[c]) * by_row[c]
                    changed = grad[k, c] - weight * by_mean
                    grad[k, c] = changed
                    of_center[i, c] += changed
    return of_center
