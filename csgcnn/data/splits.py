"""Splits of a data set into training, validation and test rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from csgcnn.config.settings.dataset import EXTRAPOLATING_METHODS, SplitSettings
from csgcnn.data.columns import column_values, split_column
from csgcnn.data.dataset import Dataset
from csgcnn.data.duplicates import rows_without
from csgcnn.data.extrapolation import held_out
from csgcnn.data.grouped_splits import (
    assign_folds,
    assign_groups,
    grouped,
    indivisible,
    take_fold,
)
from csgcnn.data.matbench import official_folds
from csgcnn.data.split_files import CALIBRATION, PARTS, read_split
from csgcnn.data.split_sizes import check_sizes, limit_train
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError, UserError

# Other spellings in a column that names the part.
SPELLINGS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
# Methods that give the part of each row.
GIVEN_PARTS = ("column", "file")
# Values of a column in a message.
MOST_LISTED = 10

# Rows of each part: positions in the store, int64. Methods whose test rows are unlike the training
# rows also have the part `in_distribution`; `calibration` is a part if there are such rows.
Split = dict[str, Tensor]


def split_dataset(dataset: Dataset, settings: SplitSettings) -> Split:
    """Split the usable rows of a data set, see `split_rows`.

    With `dataset.inputs`, all rows of one crystal stay in one part, unless the parts are given.
    The part `calibration` is taken from the training rows of any method.

    Args:
        dataset: The data set; `target_tail` sorts it by its first target, if no column is given.
        settings: The method and its options.

    Raises:
        UserError: The data cannot be split in this way.
        ConfigError: The settings have no effect on the data, or need a target.
    """
    if settings.method == "target_tail" and not settings.column:
        if not dataset.targets:
            raise ConfigError("dataset.split.method=target_tail needs dataset.targets")
        settings = replace(settings, column=dataset.targets[0].name)
    # The same crystal at another temperature is no new crystal.
    together = replace(settings, duplicates="together") if dataset.inputs else settings
    settings = settings if settings.method in GIVEN_PARTS else together
    split = split_rows(dataset.store, dataset.rows, settings, dataset.n_unread)
    return _with_calibration(dataset.store, split, together) if settings.calibration else split


def split_rows(
    store: GraphStore, rows: Tensor, settings: SplitSettings, n_unread: int = 0
) -> Split:
    """Split rows into train, val and test; no row is in two parts.

    Val and test may be empty by choice: with a fraction of 0, or with an empty list in a file.

    Args:
        store: The data set.
        rows: [n] int64, the usable rows.
        settings: The method, one of the functions below, and its options.
        n_unread: Records of the data set that are not in the store.

    Raises:
        UserError: A column or id does not exist, a part is empty, or the places of rows in the
            file of Matbench are not known.
        ConfigError: Duplicates cannot stay together, because the parts are given.
    """
    if settings.duplicates == "together" and settings.method in GIVEN_PARTS:
        raise ConfigError(
            "dataset.split.duplicates=together has no effect on method="
            f"{settings.method}, which gives the part of each row; omit it"
        )
    method = _METHODS.get(settings.method) or partial(_matbench, n_unread=n_unread)
    split = method(store, rows, settings)
    check_sizes({part: len(split[part]) for part in split}, len(rows), settings)
    return limit_train(split, settings)


def split_ids(store: GraphStore, split: Split) -> dict[str, list[str]]:
    """Return the ids of each part, as splits.json holds them and the method `file` reads them.

    Args:
        store: The data set.
        split: Rows of each part.
    """
    return {
        part: [store.ids[row] for row in positions.tolist()] for part, positions in split.items()
    }


def _with_calibration(store: GraphStore, split: Split, settings: SplitSettings) -> Split:
    """Take the calibration rows from the training rows, with all rows that stay together."""
    if CALIBRATION in split:
        raise ConfigError(
            f"{settings.file} names calibration rows, which excludes dataset.split.calibration "
            "and ensemble_folds"
        )
    train, (fraction, fold) = split["train"], (settings.calibration, settings.calibration_fold)
    groups = indivisible(store, train, settings)
    rows = take_fold(groups, fraction, fold, _generator(settings))
    return split | {"train": train[~torch.isin(train, rows)], CALIBRATION: rows}


def _random(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    """Split at random by the fractions `train`, `val` and `test`; the remainder is not used.

    With `stratify`, every part has the same share of each value of that column.
    """
    if settings.duplicates == "together" and not settings.stratify:
        return _by_fractions(indivisible(store, rows, settings), _fractions(settings), settings)
    shuffled = rows[torch.randperm(len(rows), generator=_generator(settings))]
    if settings.stratify:
        return _stratified(store, shuffled, settings)
    n_val, n_test = round(settings.val * len(rows)), round(settings.test * len(rows))
    n_train = min(round(settings.train * len(rows)), len(rows) - n_val - n_test)
    n_used = n_train + n_val + n_test
    split = dict(zip(PARTS, shuffled[:n_used].split([n_train, n_val, n_test]), strict=True))
    # Rows that rounding would leave out are trained on; the others keep their parts.
    n_wanted = round(sum(_fractions(settings).values()) * len(rows))
    return split | {"train": torch.cat([split["train"], shuffled[n_used:n_wanted]])}


def _stratified(store: GraphStore, shuffled: Tensor, settings: SplitSettings) -> Split:
    """Assign the rows, class by class, to the part that is furthest below its size.

    Rows that stay together are assigned with the class of the first one.
    """
    column = split_column(store, settings.stratify, "stratify")
    groups = indivisible(store, shuffled, settings)
    members = grouped(groups, [column[group[0]] for group in groups])
    fractions = _fractions(settings)
    fractions["unused"] = 1 - sum(fractions.values())
    parts: dict[str, list[int]] = {part: [] for part in fractions}
    n_rows = 0
    for group in chain.from_iterable(members.values()):
        n_rows += len(group)
        missing = {part: fractions[part] * n_rows - len(parts[part]) for part in fractions}
        parts[max(missing, key=missing.__getitem__)] += group
    return {part: torch.tensor(parts[part], dtype=torch.long) for part in PARTS}


def _group(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    """Split by fractions, keeping rows with the same value of `column` in one part."""
    return _by_fractions(indivisible(store, rows, settings), _fractions(settings), settings)


def _by_fractions(
    groups: Sequence[Sequence[int]], fractions: Mapping[str, float], settings: SplitSettings
) -> Split:
    n_rows = sum(map(len, groups))
    sizes = {part: fraction * n_rows for part, fraction in fractions.items()}
    sizes["unused"] = n_rows - sum(sizes.values())
    sizes = {part: size for part, size in sizes.items() if size > 0.5}
    parts = assign_groups(groups, sizes, _generator(settings))
    none = torch.zeros(0, dtype=torch.long)
    return {part: parts.get(part, none) for part in dict.fromkeys([*PARTS, *fractions])}


def _fractions(settings: SplitSettings) -> dict[str, float]:
    return {part: getattr(settings, part) for part in PARTS}


def _by_column(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    """Split by `column`, which holds train, val or test."""
    column = column_values(store, rows, settings.column)
    values = [SPELLINGS.get(str(value), str(value)) for value in column]
    if unknown := sorted(set(values) - set(PARTS)):
        raise UserError(
            f"column {settings.column!r} holds {unknown[0]!r}, expected train, val or test"
        )
    return {part: rows[torch.tensor([value == part for value in values])] for part in PARTS}


def _fold(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    """Test the rows whose `column` equals `fold`; the fraction `val` of the others validates."""
    values = column_values(store, rows, settings.column)
    in_fold = torch.tensor([value in (settings.fold, str(settings.fold)) for value in values])
    if not in_fold.any():
        found = sorted(set(values), key=str)
        listed = ", ".join(map(str, found[:MOST_LISTED]))
        listed += ", …" if len(found) > MOST_LISTED else ""
        raise UserError(f"column {settings.column!r} has no fold {settings.fold}; it has {listed}")
    return _test_on(store, rows[in_fold], rows[~in_fold], settings)


def _matbench(store: GraphStore, rows: Tensor, settings: SplitSettings, n_unread: int) -> Split:
    """Test the rows in `fold` of Matbench; the fraction `val` of the others validates.

    With `stratify`, the folds are those of a classification task with that column.
    """
    labels = split_column(store, settings.stratify, "stratify") if settings.stratify else None
    fold = torch.from_numpy(official_folds(store.ids, n_unread, labels))
    in_fold = fold[rows] == settings.fold
    return _test_on(store, rows[in_fold], rows[~in_fold], settings)


def _kfold(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    """Test the rows of one of `folds` equal parts; the fraction `val` of the others validates.

    Fold number `fold` belongs to repeat `fold // folds`; each repeat divides the rows anew.
    """
    column = split_column(store, settings.stratify, "stratify") if settings.stratify else None
    groups = indivisible(store, rows, settings)
    labels = None if column is None else [column[group[0]] for group in groups]
    of_group = assign_folds(groups, labels, settings)
    in_fold = {
        row
        for group, fold in zip(groups, of_group, strict=True)
        for row in (group if fold == settings.fold % settings.folds else ())
    }
    tested = torch.tensor([row in in_fold for row in rows.tolist()], dtype=torch.bool)
    return _test_on(store, rows[tested], rows[~tested], settings)


def _extrapolating(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    """Test rows that are unlike all others, see `held_out`.

    Of the other rows, the fraction `val` validates, and the fraction `in_distribution` is tested,
    too. Nothing depends on the order of the rows.
    """
    by_id = sorted(rows.tolist(), key=store.ids.__getitem__)
    tested, others = held_out(store, torch.tensor(by_id, dtype=torch.long), settings)
    return _test_on(store, tested, others, settings, settings.in_distribution)


def _test_on(
    store: GraphStore,
    tested: Tensor,
    others: Tensor,
    settings: SplitSettings,
    in_distribution: float = 0.0,
) -> Split:
    """Divide the rows that are not tested at random by the fractions `val` and in_distribution."""
    fractions = {"train": 1 - settings.val - in_distribution, "val": settings.val}
    fractions |= {"in_distribution": in_distribution} if in_distribution else {}
    if settings.duplicates == "together":
        others = rows_without(others, tested, store.graphs.fingerprint)
        groups = indivisible(store, others, settings)
        return _by_fractions(groups, fractions, settings) | {"test": tested}
    shuffled = others[torch.randperm(len(others), generator=_generator(settings))]
    n_val, n_in = (round(share * len(others)) for share in (settings.val, in_distribution))
    split = {"train": shuffled[n_val + n_in :], "val": shuffled[:n_val], "test": tested}
    return split | ({"in_distribution": shuffled[n_val:][:n_in]} if in_distribution else {})


def _from_file(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    """Split by the JSON file `file`: {"train": [ids], "val": [ids], "test": [ids]}."""
    path = Path(str(settings.file)).expanduser()
    ids = read_split(path)
    position = {store.ids[row]: row for row in rows.tolist()}
    if missing := [entry for part in ids.values() for entry in part if entry not in position]:
        raise UserError(
            f"{path}: {len(missing)} of its ids are not among the usable rows, "
            f"the first is {missing[0]!r}"
        )
    return {
        part: torch.tensor([position[entry] for entry in of_part], dtype=torch.long)
        for part, of_part in ids.items()
    }


_METHODS: Mapping[str, Callable[[GraphStore, Tensor, SplitSettings], Split]] = {
    "random": _random,
    "group": _group,
    "column": _by_column,
    "fold": _fold,
    "kfold": _kfold,
    "file": _from_file,
    **dict.fromkeys(EXTRAPOLATING_METHODS, _extrapolating),
}


def _generator(settings: SplitSettings) -> torch.Generator:
    return torch.Generator().manual_seed(settings.seed)
