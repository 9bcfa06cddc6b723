"""Folds for cross-validation of a data set that has no folds of its own."""

from collections import Counter
from collections.abc import Sequence

import torch

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.data.store import Scalar
from csgcnn.errors import ConfigError


def assign_folds(
    groups: Sequence[Sequence[int]], labels: Sequence[Scalar] | None, settings: SplitSettings
) -> list[int]:
    """Return the fold of each group of rows; folds differ by at most one row if groups are rows.

    The groups are taken in random order, class by class, the large ones first; each joins the fold
    that has the fewest rows of its class, then the fewest rows.

    Args:
        groups: Rows that stay together.
        labels: Class of each group, which gets the same share in every fold; None: no classes.
        settings: Reads folds, repeats, fold and seed; the repeat `fold // folds` has its own order.

    Returns:
        Folds from 0 to folds - 1 [n_groups].

    Raises:
        ConfigError: There are fewer groups than folds.
    """
    n_folds = settings.folds
    if n_folds > len(groups):
        raise ConfigError(
            f"dataset.split.folds={n_folds}: expected at most {len(groups)}, the number of "
            "different crystals"
        )
    generator = torch.Generator().manual_seed(settings.seed)
    # The order of a repeat does not depend on the number of repeats.
    for _ in range(settings.fold // n_folds + 1):
        order = torch.randperm(len(groups), generator=generator).tolist()
    classes = {label: i for i, label in enumerate(dict.fromkeys(labels or ()))}
    class_of = [classes[label] for label in labels] if labels else [0] * len(groups)
    order.sort(key=lambda i: (class_of[i], -len(groups[i])))
    n_rows, n_of_class = Counter[int](), Counter[tuple[int, int]]()
    found = [0] * len(groups)
    for i in order:
        own = class_of[i]
        fold = min(range(n_folds), key=lambda f: (n_of_class[own, f], n_rows[f], f))
        found[i] = fold
        n_rows[fold] += len(groups[i])
        n_of_class[own, fold] += len(groups[i])
    return found
