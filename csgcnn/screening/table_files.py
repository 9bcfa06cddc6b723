"""Write tables as csv, csv.gz, parquet or npz, as the name of the file says."""

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from csgcnn.errors import ConfigError
from csgcnn.io import csv_writer, replacing

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".csv", ".csv.gz", ".parquet", ".npz")
# rows of a parquet file that are in memory at once
ROW_GROUP = 65_536


def check_format(path: Path, formats: Sequence[str] = FORMATS) -> str:
    """Return the format of an output, by the end of its name.

    Args:
        path: The output.
        formats: The formats that the command writes.

    Raises:
        ConfigError: The format is unknown, or a package that it needs is not installed.
    """
    suffix = next((suffix for suffix in formats if path.name.endswith(suffix)), None)
    if suffix is None:
        *others, last = formats
        either = f"{', '.join(others)} or " if others else ""
        raise ConfigError(f"output={path}: expected a name that ends in {either}{last}")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ConfigError(
            f"output={path}: parquet needs pyarrow: pip install pyarrow, or use {formats[0]}"
        )
    return suffix


def write_frame(path: Path, frame: "pd.DataFrame") -> None:
    """Write a DataFrame atomically, as parquet or csv.

    Args:
        path: The file; its name gives the format.
        frame: The table; numbers have eight digits in csv.
    """
    with replacing(path) as file:
        if path.suffix == ".parquet":
            frame.to_parquet(file, index=False)
        else:
            frame.to_csv(file, index=False, float_format="%.8g")


def write_table(
    path: Path,
    header: Sequence[str],
    is_number: Sequence[bool],
    rows: Iterable[Sequence[str]],
    vectors: Mapping[str, tuple[int, Sequence[float]]] | None = None,
) -> int:
    """Write a table atomically; but for npz, in memory that does not grow with its length.

    Args:
        path: The file; its name gives the format.
        header: Names of the columns.
        is_number: Whether each column holds numbers, for parquet and npz.
        rows: Cells as text.
        vectors: First column and grid of the targets whose values at the points of the grid are
            consecutive columns, by name. In an npz file they are one array.

    Returns:
        The number of rows.
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
        elif path.name.endswith(".npz"):
            _write_npz(file, header, is_number, counted(), vectors or {})
        elif path.name.endswith(".gz"):
            # mtime=0: the same rows give the same bytes
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed:
                _write_csv(compressed, header, counted())
        else:
            _write_csv(file, header, counted())
    return n_rows


def _write_csv(file: Any, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with csv_writer(file, header) as writer:
        writer.writerows(rows)


def _write_parquet(
    file: BinaryIO, header: Sequence[str], is_number: Sequence[bool], rows: Iterable[Sequence[str]]
) -> None:
    import pyarrow
    from pyarrow import parquet

    types = [pyarrow.float64() if number else pyarrow.string() for number in is_number]
    schema = pyarrow.schema(list(zip(header, types, strict=True)))
    stream = iter(rows)
    with parquet.ParquetWriter(file, schema) as writer:
        while group := list(islice(stream, ROW_GROUP)):
            columns = [
                [*map(float, column)] if number else column
                for column, number in zip(zip(*group, strict=True), is_number, strict=True)
            ]
            arrays = map(pyarrow.array, columns, types)
            writer.write_table(pyarrow.Table.from_arrays(list(arrays), schema=schema))


def _write_npz(
    file: BinaryIO,
    header: Sequence[str],
    is_number: Sequence[bool],
    rows: Iterable[Sequence[str]],
    vectors: Mapping[str, tuple[int, Sequence[float]]],
) -> None:
    """Write an array for each column, and for each vector NAME [n_rows, n_points] and NAME_grid."""
    import numpy as np

    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    arrays: dict[str, Any] = {}
    joined = set[int]()
    for name, (first, grid) in vectors.items():
        of_points = range(first, first + len(grid))
        joined.update(of_points)
        values = np.array([columns[i] for i in of_points], dtype=str)
        arrays |= {name: values.T.astype("f4"), f"{name}_grid": np.array(grid)}
    for i, (name, is_of_numbers) in enumerate(zip(header, is_number, strict=True)):
        if i not in joined:
            cells = np.array(columns[i], dtype=str)
            arrays[name] = cells.astype(float) if is_of_numbers else cells
    np.savez_compressed(file, **arrays)
