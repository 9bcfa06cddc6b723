"""Official ids and folds of Matbench v0.1 (Dunn et al., npj Comput. Mater. 6, 138, 2020)."""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.records import Scalar
from csgcnn.errors import UserError

MATBENCH_FOLDS, MATBENCH_SEED = 5, 18012019
OFFICIAL_ID = re.compile(r"(mb-[a-z0-9-]+)-(\d+)")


class OfficialTask(NamedTuple):
    """A task with structures.

    Attributes:
        n_rows: Rows of its file.
        digests: Digest of the ids of the test rows of each fold, see `fold_digest`.
    """

    n_rows: int
    digests: tuple[str, ...]


# Computed from the ids in matbench_v0.1_validation.json of matbench 0.6.
_TABLE = """
matbench_dielectric 4764 86bbbcbdf90d0046 7f2c61f00d18edd4 a4fd3048255b5ce3 99010918607739c0 \
b3b0da5a4191bcbf
matbench_jdft2d 636 ad5ae7d2deb2372e 2c9141fe6a4715ef 918ef249a83cd0d8 5dbde5d62179aec9 \
ba5c27d8b874bbb5
matbench_log_gvrh 10987 77dc611037b2c1da cf7b90a274920411 03d5f1095a361920 8afd847dc7343bfa \
fed39abe6176c9db
matbench_log_kvrh 10987 5cd6347d65a1d070 f08e982f1a311595 7438c0025a778122 9008add7d538a552 \
9d52cd5d56f25c76
matbench_mp_e_form 132752 8b225cc45b0302cd 1974fc8c9a146ded 8d44a79715f5a910 34076aaa889d8684 \
f5280720d11b7720
matbench_mp_gap 106113 1a327faaa8ce593d dad5439dc09eebc2 d336bd6cfde2d7a9 9fb1578d8ec512ef \
f1479d35757813ba
matbench_mp_is_metal 106113 a065eb55720d29ec 954476ca26f81ce2 10c126bc485bb9cf 9e82d3042f5f3ff8 \
2c34073116b4c12a
matbench_perovskites 18928 68e946fa519b9a36 2dc55f9cea8bf5ad 6b669b2e76be8a8e 5753be7ca1e74080 \
fec0742093f33c32
matbench_phonons 1265 30afdc84aa7e2fc3 0546bbf769398002 0b6ea4275e57198c 5e6a72581aacf1a4 \
2fd63dab7eb5768b
"""
OFFICIAL_TASKS = {
    name: OfficialTask(int(n_rows), tuple(digests))
    for name, n_rows, *digests in map(str.split, _TABLE.strip().splitlines())
}


def matbench_folds(n_rows: int, labels: Sequence[Scalar] | None = None) -> NDArray[np.int64]:
    """Return the fold that tests each row of a file of Matbench.

    The folds equal those of scikit-learn's `KFold(5, shuffle=True, random_state=18012019)`, or of
    `StratifiedKFold` with the same arguments, so that scikit-learn need not be installed.

    Args:
        n_rows: Number of rows, which are in the order of the files of Matbench.
        labels: [n_rows], classes of a classification task, each of which has the same share in
            every fold.

    Returns:
        [n_rows], 0 to 4.
    """
    random, fold = np.random.RandomState(MATBENCH_SEED), np.empty(n_rows, dtype=np.int64)
    if labels is None:
        order = np.arange(n_rows)
        random.shuffle(order)
        for number, members in enumerate(np.array_split(order, MATBENCH_FOLDS)):
            fold[members] = number
        return fold
    classes = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    class_of_row = np.array([classes[label] for label in labels])
    in_order = np.sort(class_of_row)
    # [n_folds, n_classes]: rows of each class in each fold
    sizes = [
        np.bincount(in_order[start::MATBENCH_FOLDS], minlength=len(classes))
        for start in range(MATBENCH_FOLDS)
    ]
    for number, n_in_fold in enumerate(np.transpose(sizes)):
        folds = np.arange(MATBENCH_FOLDS).repeat(n_in_fold)
        random.shuffle(folds)
        fold[class_of_row == number] = folds
    return fold


def official_folds(
    ids: Sequence[str], n_unread: int = 0, labels: Sequence[Scalar] | None = None
) -> NDArray[np.int64]:
    """Return the fold that tests each row of a file of Matbench in any order, whole or in part.

    The place of a row in the official file is the number in its official id (`mb-phonons-0012`), or
    its id if all ids are numbers of rows from 0, as in the files of Matbench. Rows with other ids
    must be in the official order.

    Args:
        ids: Ids of the rows.
        n_unread: Records of the file that are not among the rows.
        labels: Classes of the rows, for the folds of a classification task.

    Returns:
        [n_rows], 0 to 4.

    Raises:
        UserError: The places are not known, or labels of rows are missing.
    """
    places, n_rows = _places(ids, len(ids) + n_unread)
    outside = (places < 0) | (places >= n_rows)
    if outside.any() or len(set(places.tolist())) < len(ids):
        found = f"id {ids[int(outside.argmax())]}" if outside.any() else "a number occurs twice"
        raise UserError(
            f"dataset.split.method=matbench: {found} is not one of {n_rows:,} rows; the file is "
            "incomplete, or its ids are not those of Matbench. Give the complete file, or official "
            "ids such as mb-phonons-0012"
        )
    if labels is None:
        return matbench_folds(n_rows)[places]
    if len(ids) < n_rows:
        raise UserError(
            f"dataset.split.stratify: the folds of Matbench depend on the label of every row, but "
            f"{n_rows - len(ids):,} of {n_rows:,} rows are missing; give the complete file, or use "
            "dataset.split.method=fold with a column of folds"
        )
    order = np.argsort(places)
    return matbench_folds(n_rows, [labels[row] for row in order])[places]


def _places(ids: Sequence[str], n_records: int) -> tuple[NDArray[np.int64], int]:
    """Return the place of each row in the official file, and the number of rows of that file."""
    matches = [OFFICIAL_ID.fullmatch(id_) for id_ in ids]
    prefixes = [match[1] if match else None for match in matches]
    if not any(prefixes):
        if all(id_.isdecimal() for id_ in ids):
            return np.array([int(id_) for id_ in ids]), n_records
        if n_records > len(ids):
            raise UserError(
                f"dataset.split.method=matbench: {n_records - len(ids):,} of {n_records:,} records "
                "cannot be read, so the places of the others in the file are not known; fix them, "
                "or give official ids such as mb-phonons-0012"
            )
        return np.arange(len(ids)), n_records
    if others := [id_ for id_, prefix in zip(ids, prefixes, strict=True) if prefix != prefixes[0]]:
        raise UserError(
            f"dataset.split.method=matbench: {ids[0]} and {others[0]} are not ids of one task of "
            "Matbench"
        )
    places = np.array([int(match[2]) - 1 for match in matches if match])
    sizes = {_prefix(name): task.n_rows for name, task in OFFICIAL_TASKS.items()}
    return places, sizes.get(str(prefixes[0]), n_records)


def official_id(task: str, id_: str, n_rows: int) -> str:
    """Return Matbench's id of a row.

    Args:
        task: Official name of the task.
        id_: The official id, or the number of the row in Matbench's file, from 0.
        n_rows: Rows of all folds, unless the task is known.
    """
    prefix = _prefix(task)
    if id_.startswith(f"{prefix}-") or not id_.isdecimal():
        return id_
    if task in OFFICIAL_TASKS:
        n_rows = OFFICIAL_TASKS[task].n_rows
    return f"{prefix}-{int(id_) + 1:0{len(str(n_rows))}}"


def is_official_fold(task: str, fold: int, ids: Sequence[str]) -> bool:
    """Return whether the test rows of a fold are the official ones; true for an unknown task.

    Args:
        task: Name of the task.
        fold: Number of the fold.
        ids: Ids of its test rows, in any order.
    """
    if task not in OFFICIAL_TASKS:
        return True
    official = [official_id(task, id_, 0) for id_ in ids]
    return OFFICIAL_TASKS[task].digests[fold : fold + 1] == (fold_digest(official),)


def fold_digest(ids: Sequence[str]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the sorted ids, one per line."""
    return sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def _prefix(task: str) -> str:
    return task.replace("matbench", "mb").replace("_", "-")
