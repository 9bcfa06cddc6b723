"""All records of a data set at once."""

from pathlib import Path

from csgcnn.crystals.datasets import iter_records
from csgcnn.crystals.records import DEFAULT_OPTIONS, ReadOptions, Record


def read_records(path: Path, options: ReadOptions = DEFAULT_OPTIONS) -> list[Record]:
    return list(iter_records(path, options))
