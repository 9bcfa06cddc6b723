"""Groups of crystals that are equal in any cell, origin, orientation and order of the sites."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def group_duplicates(fingerprint: Array) -> Array:
    """Return the first row with an equal crystal, for each row: [n_graphs] int64.

    Crystals are equal if a hash of their fingerprints agrees, or if a third one is equal to both.

    Args:
        fingerprint: Fingerprints of the crystals, [n_graphs, n_hashes], see
            `crystals.fingerprints`.
    """
    columns = [np.unique(column, return_inverse=True)[1] for column in fingerprint.T]
    first = np.arange(len(fingerprint))
    while True:
        before = first
        for group in columns:
            smallest = np.full(len(first), len(first))
            np.minimum.at(smallest, group, first)
            first = smallest[group]
        if np.array_equal(first, before):
            return first


def rows_without(rows: Tensor, others: Tensor, fingerprint: Array) -> Tensor:
    """Return the rows whose crystals equal none of the others.

    Args:
        rows: [n_rows] int64.
        others: [n_others] int64, none of the rows.
        fingerprint: Fingerprints of all crystals, [n_graphs, n_hashes].
    """
    first = group_duplicates(fingerprint[torch.cat([others, rows]).numpy()])
    return rows[torch.from_numpy(first[len(others) :] >= len(others))]
