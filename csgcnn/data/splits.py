"""Which crystals train, which validate, which test."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, combinations, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.graphs import CrystalGraphs
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import UserError

PARTS = ("train", "val", "test")
SPELLINGS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
COMPOSITION = "composition"  # a column that every data set has, see `compositions`
TOLERANCE = 0.01  # share of the rows by which a part may exceed its share, for a group
MOST_TOLD = 10  # values of a column in a message
MATBENCH_FOLDS, MATBENCH_SEED = 5, 18012019

Split = dict[str, Tensor]  # part -> positions in the store, int64


def split_rows(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    """Split the usable `rows` [n] of a store into train, val and test; no row is in two parts.

    - `random`: by fractions
    - `group`: likewise, but rows with one value of `column` stay together
    - `column`: `column` says train, val or test
    - `fold`: the rows whose `column` equals `fold` test, the fraction `val` of the others validates
    - `matbench`: likewise, with the folds of `matbench_folds` in place of a column
    - `file`: a JSON file of ids per part

    Raises:
        UserError: a column or id does not exist, or a part is empty.
    """
    split = _METHODS[settings.method](store, rows, settings)
    sizes = {part: len(split[part]) for part in PARTS}
    if empty := [part for part in PARTS if not sizes[part]]:
        raise UserError(
            f"the {settings.method} split of {len(rows)} rows leaves {' and '.join(empty)} empty "
            f"({', '.join(f'{part} {n}' for part, n in sizes.items())}): change dataset.split"
        )
    return split


def _random(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    shuffled = rows[torch.randperm(len(rows), generator=_generator(settings))]
    if settings.stratify:
        return _stratified(store, shuffled, settings)
    n_val, n_test = round(settings.val * len(rows)), round(settings.test * len(rows))
    n_train = min(round(settings.train * len(rows)), len(rows) - n_val - n_test)
    return dict(
        zip(
            PARTS, shuffled[: n_train + n_val + n_test].split([n_train, n_val, n_test]), strict=True
        )
    )


def _stratified(store: GraphStore, shuffled: Tensor, settings: SplitSettings) -> Split:
    """Deal out the rows, class after class, each to the part that is furthest behind its share."""
    column = _existing(store, settings.stratify, "stratify")
    members: dict[Scalar, list[int]] = {}
    for row in shuffled.tolist():
        members.setdefault(column[row], []).append(row)
    shares = {part: getattr(settings, part) for part in PARTS}
    shares["unused"] = 1 - sum(shares.values())
    parts: dict[str, list[int]] = {part: [] for part in shares}
    for n_dealt, row in enumerate(chain.from_iterable(members.values()), 1):
        parts[max(shares, key=lambda part: shares[part] * n_dealt - len(parts[part]))].append(row)
    return {part: torch.tensor(parts[part], dtype=torch.long) for part in PARTS}


def _group(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    """Deal out the groups in random order, those first that only a large part can hold."""
    members: dict[Scalar, list[int]] = {}
    for row, value in zip(rows.tolist(), _column(store, rows, settings), strict=True):
        members.setdefault(value, []).append(row)
    names = sorted(members, key=str)
    groups = [
        members[names[i]]
        for i in torch.randperm(len(names), generator=_generator(settings)).tolist()
    ]
    wanted = {part: getattr(settings, part) * len(rows) for part in PARTS}
    wanted["unused"] = len(rows) - sum(wanted.values())
    wanted = {part: n for part, n in wanted.items() if n > 0.5}
    groups.sort(key=lambda group: -len(group) if len(group) > min(wanted.values()) else 0)
    parts: dict[str, list[int]] = {part: [] for part in (*PARTS, *wanted)}
    for n_left, group in zip(range(len(groups), 0, -1), groups, strict=True):
        parts[_neediest(parts, wanted, len(group), n_left)] += group
    return {part: torch.tensor(sorted(parts[part]), dtype=torch.long) for part in PARTS}


def _neediest(
    parts: Mapping[str, list[int]], wanted: Mapping[str, float], size: int, n_left: int
) -> str:
    """The part for the next of `n_left` groups, of `size` rows: the one most behind its share of those with room."""
    empty = [part for part in PARTS if part in wanted and not parts[part]]
    candidates = empty if len(empty) >= n_left else list(wanted)
    room = {part: wanted[part] - len(parts[part]) for part in candidates}
    allowed = size - TOLERANCE * sum(wanted.values())
    if fitting := [part for part in candidates if room[part] >= allowed]:
        return max(fitting, key=lambda part: room[part] / wanted[part])
    return max(candidates, key=room.__getitem__)


def _by_column(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    values = [SPELLINGS.get(str(value), str(value)) for value in _column(store, rows, settings)]
    if unknown := sorted(set(values) - set(PARTS)):
        raise UserError(
            f"column {settings.column!r} says {unknown[0]!r}; a split column says train, val or test"
        )
    return {part: rows[torch.tensor([value == part for value in values])] for part in PARTS}


def _fold(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    values = _column(store, rows, settings)
    in_fold = torch.tensor([value in (settings.fold, str(settings.fold)) for value in values])
    if not in_fold.any():
        found = sorted(set(values), key=str)
        some = ", ".join(map(str, found[:MOST_TOLD])) + (", …" if len(found) > MOST_TOLD else "")
        raise UserError(f"column {settings.column!r} has no fold {settings.fold}; it has {some}")
    return _tested_on(in_fold, rows, settings)


def _matbench(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    labels = _existing(store, settings.stratify, "stratify") if settings.stratify else None
    fold = torch.from_numpy(matbench_folds(len(store), labels))
    return _tested_on(fold[rows] == settings.fold, rows, settings)


def _tested_on(in_fold: Tensor, rows: Tensor, settings: SplitSettings) -> Split:
    others = rows[~in_fold]
    shuffled = others[torch.randperm(len(others), generator=_generator(settings))]
    n_val = round(settings.val * len(others))
    return {"train": shuffled[n_val:], "val": shuffled[:n_val], "test": rows[in_fold]}


def matbench_folds(n_rows: int, labels: Sequence[Scalar] | None = None) -> NDArray[np.int64]:
    """The fold, 0 to 4, whose test rows each row belongs to in Matbench v0.1, for rows in the order of its files.

    With the `labels` of a classification task, each fold gets the same share of each class. Equal to scikit-learn's
    KFold and StratifiedKFold(5, shuffle=True, random_state=18012019).

    Shapes: [n_rows]. Source: Dunn et al., npj Comput. Mater. 6, 138 (2020).
    """
    random, fold = np.random.RandomState(MATBENCH_SEED), np.empty(n_rows, dtype=np.int64)
    if labels is None:
        order = np.arange(n_rows)
        random.shuffle(order)
        for number, members in enumerate(np.array_split(order, MATBENCH_FOLDS)):
            fold[members] = number
        return fold
    classes = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    of_class = np.array([classes[label] for label in labels])
    in_order = np.sort(of_class)
    shares = [
        np.bincount(in_order[start::MATBENCH_FOLDS], minlength=len(classes))
        for start in range(MATBENCH_FOLDS)
    ]
    for number, share in enumerate(np.transpose(shares)):
        dealt = np.arange(MATBENCH_FOLDS).repeat(share)
        random.shuffle(dealt)
        fold[of_class == number] = dealt
    return fold


def _from_file(store: GraphStore, rows: Tensor, settings: SplitSettings) -> Split:
    path = Path(str(settings.file)).expanduser()
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
        listed = {part: [str(entry) for entry in ids[part]] for part in PARTS}
    except OSError as error:
        raise UserError(f"dataset.split.file={path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: expected {{"train": [ids], "val": [ids], "test": [ids]}} as JSON'
        ) from error
    for one, other in combinations(PARTS, 2):
        if shared := set(listed[one]) & set(listed[other]):
            raise UserError(f"{path}: {min(shared)} is in both {one} and {other}")
    for part, entries in listed.items():
        if repeated := [entry for entry, n in Counter(entries).items() if n > 1]:
            raise UserError(f"{path}: {repeated[0]} is in {part} more than once")
    position = {store.ids[row]: row for row in rows.tolist()}
    if missing := [entry for part in PARTS for entry in listed[part] if entry not in position]:
        raise UserError(
            f"{path}: {len(missing)} ids are not among the usable rows, the first {missing[0]!r}"
        )
    return {
        part: torch.tensor([position[entry] for entry in listed[part]], dtype=torch.long)
        for part in PARTS
    }


_METHODS: Mapping[str, Callable[[GraphStore, Tensor, SplitSettings], Split]] = {
    "random": _random,
    "group": _group,
    "column": _by_column,
    "fold": _fold,
    "matbench": _matbench,
    "file": _from_file,
}


def _column(store: GraphStore, rows: Tensor, settings: SplitSettings) -> list[Scalar]:
    column = _existing(store, settings.column, "column")
    values = [column[row] for row in rows.tolist()]
    if None in values:
        raise UserError(
            f"column {settings.column!r} has no value for {store.ids[int(rows[values.index(None)])]}"
        )
    return values


def _existing(store: GraphStore, name: str | None, key: str) -> list[Scalar]:
    if name == COMPOSITION and name not in store.columns:
        return list(compositions(store))
    if name not in store.columns:
        raise UserError(
            f"dataset.split.{key}={name}: there is no such column; there are {', '.join(store.columns)}"
        )
    return store.columns[name]


def _generator(settings: SplitSettings) -> torch.Generator:
    return torch.Generator().manual_seed(settings.seed)


def split_ids(store: GraphStore, split: Split) -> dict[str, list[str]]:
    """Ids per part, as written to splits.json and read back by the method `file`."""
    return {
        part: [store.ids[row] for row in positions.tolist()] for part, positions in split.items()
    }


def compositions(store: GraphStore) -> list[str]:
    """The reduced formula of each crystal, elements by atomic number: O3TiSr for any cell of strontium titanate."""
    return [formula for block in store.blocks() for formula in _formulas(block)]


def _formulas(graphs: CrystalGraphs) -> list[str]:
    graph_of_atom = np.repeat(np.arange(len(graphs)), graphs.n_atoms)
    pairs, place = np.unique(
        graph_of_atom * len(SYMBOLS) + graphs.atomic_number, return_inverse=True
    )
    count = np.bincount(place, graphs.atom_multiplicity).astype(np.int64)
    graph, element = np.divmod(pairs, len(SYMBOLS))
    first = np.searchsorted(graph, np.arange(len(graphs) + 1))
    count //= np.repeat(np.gcd.reduceat(count, first[:-1]), np.diff(first))
    terms = [
        f"{SYMBOLS[z]}{n if n > 1 else ''}"
        for z, n in zip(element.tolist(), count.tolist(), strict=True)
    ]
    return ["".join(terms[start:end]) for start, end in pairwise(first.tolist())]
