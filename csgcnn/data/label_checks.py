"""Check that the targets can be learned from the training rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from csgcnn.data.targets import Target, label_columns
from csgcnn.errors import UserError

# Smallest relative spread of a target: float32 has 7 digits.
RESOLVED = 1e-5


def check_labels(values: Tensor, targets: Sequence[Target]) -> None:
    """Check that every target can be learned from the training rows.

    Args:
        values: [n_rows, sum of n_labels], NaN where missing.
        targets: The targets.

    Raises:
        UserError: A target has no known label, a classification target labels of one class only,
            or a regression target no spread that float32 resolves.
    """
    for target, labels in zip(targets, label_columns(values, targets), strict=True):
        known = labels[labels.isfinite()]
        if not len(known):
            raise UserError(
                f"no training row has a value of {target.name}; "
                "change dataset.split or dataset.targets"
            )
        if target.classes:
            _check_classes(target, known)
        else:
            _check_spread(target.trained_title, known.double())


def _check_classes(target: Target, known: Tensor) -> None:
    present = known.unique().tolist()
    if len(present) < 2:
        raise UserError(
            f"all training rows are of one class, {target.name} = "
            f"{target.classes[int(present[0])]}: there is nothing to learn. Keep the shares of "
            f"the classes with dataset.split.stratify={target.name}, or remove the target"
        )


def _check_spread(name: str, known: Tensor) -> None:
    low, high = known.min().item(), known.max().item()
    spread, smallest = high - low, torch.finfo(torch.float32).tiny
    if spread <= RESOLVED * max(abs(low), abs(high)) or spread < smallest:
        values = f"is {low:.7g}" if low == high else f"lies between {low:.9g} and {high:.9g}"
        raise UserError(
            f"{name} {values} in all training rows that have it ({len(known)}): there is nothing "
            "to learn; change dataset.split, remove the target, or subtract a constant from its "
            "column, because numbers have 7 digits"
        )
