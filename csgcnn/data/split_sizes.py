"""Check the sizes of the parts of a split, and limit that of the training part."""

from collections.abc import Mapping

import torch
from torch import Tensor

from csgcnn.config.keys import command_keys
from csgcnn.config.settings.dataset import EXTRAPOLATING_METHODS, SplitSettings
from csgcnn.data.split_files import CALIBRATION, PARTS
from csgcnn.errors import UserError


def check_sizes(sizes: Mapping[str, int], n_rows: int, settings: SplitSettings) -> None:
    """Check that no part is empty, unless this was asked for.

    Args:
        sizes: Rows of each part.
        n_rows: Rows that were divided.
        settings: How they were divided.

    Raises:
        UserError: A part is empty.
    """
    empty = [part for part in sizes if not sizes[part] and part not in _left_empty(settings)]
    if not empty:
        return
    parts = " and ".join(empty)
    advice = "change dataset.split"
    if read := _fractions_read(settings):
        known = [part for part in empty if part in read]
        zeros = "".join(f" dataset.split.{part}=0" for part in known if part != "train")
        ways = [f"enlarge dataset.split.{known[0]}" if known else advice]
        ways += [f"ask for none with{zeros}"] if zeros else []
        if settings.method in EXTRAPOLATING_METHODS:
            ways = ["choose fewer dataset.split.folds"] if "test" in empty else ways
        elif settings.method != "kfold":
            ways += ["omit the fractions and test every row once with dataset.split.method=kfold"]
        *others, last = ways
        advice = f"{', '.join(others)}, or {last}" if others else last
    raise UserError(
        f"the {settings.method} split of {n_rows} rows leaves {parts} empty "
        f"({', '.join(f'{part} {n}' for part, n in sizes.items())}); {advice}"
    )


def _left_empty(settings: SplitSettings) -> list[str]:
    """Return the parts that are empty by choice."""
    if settings.method == "file":
        return [*PARTS[1:], CALIBRATION]
    read = _fractions_read(settings)
    return [part for part in read if part != "train" and not getattr(settings, part)]


def _fractions_read(settings: SplitSettings) -> list[str]:
    """Return the parts whose fraction the method reads."""
    keys, section = command_keys("train"), {"method": settings.method}
    parts = (*PARTS, "in_distribution")
    return [p for p in parts if keys[f"dataset.split.{p}"].setting.is_read(section)]


def limit_train(split: Mapping[str, Tensor], settings: SplitSettings) -> dict[str, Tensor]:
    """Return a split with `train_size` of its training rows; a smaller size keeps a subset.

    Args:
        split: Rows of each part.
        settings: The size; `seed` orders the rows.

    Raises:
        UserError: There are fewer training rows.
    """
    train, size = split["train"], settings.train_size
    if size is None:
        return dict(split)
    if size > len(train):
        raise UserError(
            f"dataset.split.train_size={size}: the {settings.method} split has only {len(train)} "
            "training rows"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(settings.seed))
    return {**split, "train": train[order[:size]]}
