"""Crystals that lie in several parts of a split."""

import numpy as np
import torch

from csgcnn.data.splits import PARTS, Split, compositions
from csgcnn.data.store import GraphStore


def count_duplicates(store: GraphStore, split: Split) -> tuple[int, tuple[str, str] | None]:
    """Count the pairs of rows in different parts whose structures are the same to 0.001 (Å, fractions).

    A pair in val and test counts like one with a training row: each lets a part tell of another. Also returns the ids
    of a pair, the first.
    """
    rows = torch.cat([split[part] for part in PARTS]).numpy()
    part = np.repeat(np.arange(len(PARTS)), [len(split[name]) for name in PARTS])
    _, structure, n_equal = np.unique(
        store.graphs.fingerprint[rows], return_inverse=True, return_counts=True
    )
    n_in = np.bincount(structure * len(PARTS) + part, minlength=len(n_equal) * len(PARTS)).reshape(
        -1, len(PARTS)
    )
    n_pairs = int((n_equal**2 - (n_in**2).sum(1)).sum()) // 2
    if not n_pairs:
        return 0, None
    is_shared = (n_in > 0).sum(1) > 1
    same = np.flatnonzero(structure == structure[is_shared[structure].argmax()])
    other = same[part[same] != part[same[0]]][0]
    return n_pairs, (store.ids[rows[same[0]]], store.ids[rows[other]])


def shared_compositions(store: GraphStore, split: Split) -> dict[str, int]:
    """How many rows of val and of test have the reduced composition of a training row."""
    formula = compositions(store)
    trained = {formula[row] for row in split["train"].tolist()}
    return {
        part: sum(formula[row] in trained for row in split[part].tolist()) for part in PARTS[1:]
    }
