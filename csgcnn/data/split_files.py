"""Files that name the ids of each part of a split."""

from collections import Counter
from itertools import combinations
from pathlib import Path

from csgcnn.errors import UserError
from csgcnn.io import read_json

PARTS = ("train", "val", "test")
# Rows that calibrate prediction intervals: a part of splits that have such rows.
CALIBRATION = "calibration"


def read_split(path: Path) -> dict[str, list[str]]:
    """Read {"train": [ids], "val": [ids], "test": [ids]}, as every run writes in splits.json.

    A list of calibration rows is read, too, if there is one.

    Raises:
        UserError: The file cannot be read, or an id occurs twice.
    """
    try:
        content = read_json(path)
        parts = [*PARTS, *([CALIBRATION] if CALIBRATION in content else [])]
        ids = {part: [str(entry) for entry in content[part]] for part in parts}
    except OSError as error:
        raise UserError(f"dataset.split.file={path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: expected {{"train": [ids], "val": [ids], "test": [ids]}} as JSON'
        ) from error
    for one, other in combinations(ids, 2):
        if shared := set(ids[one]) & set(ids[other]):
            raise UserError(f"{path}: {min(shared)} is in both {one} and {other}")
    for part, entries in ids.items():
        if repeated := [entry for entry, n in Counter(entries).items() if n > 1]:
            raise UserError(f"{path}: {repeated[0]} is in {part} more than once")
    return ids
