"""Leakage between the parts of a split: equal structures and equal compositions."""

import numpy as np
import torch

from csgcnn.data.compositions import compositions
from csgcnn.data.duplicates import group_duplicates
from csgcnn.data.split_files import PARTS
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore


def count_duplicates(store: GraphStore, split: Split) -> tuple[int, tuple[str, str] | None]:
    """Count pairs of rows in different parts with equal structures.

    Structures are equal in any cell, origin, orientation and order of their sites, see
    `crystals.fingerprints`. A pair in val and test counts, too.

    Args:
        store: The data set.
        split: Rows of each part.

    Returns:
        The number of pairs, and the ids of one of them.
    """
    rows = torch.cat([split[part] for part in PARTS]).numpy()
    part = np.repeat(np.arange(len(PARTS)), [len(split[name]) for name in PARTS])
    first_equal = group_duplicates(store.graphs.fingerprint[rows])
    _, structure, n_equal = np.unique(first_equal, return_inverse=True, return_counts=True)
    # [n_structures, n_parts]: number of rows of each structure in each part
    n_rows = np.bincount(structure * len(PARTS) + part, minlength=len(n_equal) * len(PARTS))
    n_rows = n_rows.reshape(-1, len(PARTS))
    # n rows form n (n - 1) / 2 pairs; subtract those within a part.
    n_pairs = int((n_equal**2 - (n_rows**2).sum(1)).sum()) // 2
    if not n_pairs:
        return 0, None
    is_shared = (n_rows > 0).sum(1) > 1
    equal = np.flatnonzero(structure == structure[is_shared[structure].argmax()])
    other = equal[part[equal] != part[equal[0]]][0]
    return n_pairs, (store.ids[rows[equal[0]]], store.ids[rows[other]])


def shared_compositions(store: GraphStore, split: Split) -> dict[str, int]:
    """Count the rows of val and test whose reduced composition is that of a training row.

    Args:
        store: The data set.
        split: Rows of each part.

    Returns:
        The number of rows by part.
    """
    formula = compositions(store)
    trained = {formula[row] for row in split["train"].tolist()}
    return {
        part: sum(formula[row] in trained for row in split[part].tolist()) for part in PARTS[1:]
    }
