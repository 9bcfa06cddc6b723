"""Tables in files whose names say the format: csv, csv.gz or parquet."""

import csv
import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from csgcnn.errors import ConfigError
from csgcnn.io import replacing

FORMATS = (".csv", ".csv.gz", ".parquet")
ROW_GROUP = 65_536  # rows of a parquet file that are in memory at once


def check_format(path: Path) -> str:
    """The format that the name of a table promises.

    Raises:
        ConfigError: none of FORMATS, or one that this environment cannot write.
    """
    found = next((suffix for suffix in FORMATS if path.name.endswith(suffix)), None)
    if found is None:
        raise ConfigError(
            f"output={path}: expected a name that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        )
    if found == ".parquet" and find_spec("pyarrow") is None:
        raise ConfigError(
            f"output={path}: parquet needs pyarrow: pip install pyarrow, or take {FORMATS[0]}"
        )
    return found


def write_table(
    path: Path, header: Sequence[str], is_number: Sequence[bool], rows: Iterable[Sequence[str]]
) -> int:
    """Write a table of cells as text, whole or not at all; returns the number of its rows.

    `is_number` per column: as such it is written where the format tells them from text.
    """
    n_rows = 0

    def counted() -> Iterator[Sequence[str]]:
        nonlocal n_rows
        for row in rows:
            n_rows += 1
            yield row

    with replacing(path) as file:
        if path.name.endswith(".parquet"):
            _write_parquet(file, header, is_number, counted())
        elif path.name.endswith(".gz"):
            with gzip.GzipFile(
                filename="", mode="wb", fileobj=file, mtime=0
            ) as packed:  # without a date
                _write_csv(packed, header, counted())
        else:
            _write_csv(file, header, counted())
    return n_rows


def _write_csv(file: Any, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    text.detach()  # flushed; who opened the file closes it


def _write_parquet(
    file: BinaryIO, header: Sequence[str], is_number: Sequence[bool], rows: Iterable[Sequence[str]]
) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = [pyarrow.float64() if number else pyarrow.string() for number in is_number]
    schema = pyarrow.schema(list(zip(header, kinds, strict=True)))
    stream = iter(rows)
    with parquet.ParquetWriter(file, schema) as writer:
        while group := list(islice(stream, ROW_GROUP)):
            columns = zip(*group, strict=True)
            cells = [
                list(map(float, c)) if number else c
                for c, number in zip(columns, is_number, strict=True)
            ]
            arrays = [
                pyarrow.array(column, kind) for column, kind in zip(cells, kinds, strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
