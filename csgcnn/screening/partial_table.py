"""Predictions that are kept as they come, so that a run that was killed goes on behind the last of them."""

import csv
import io
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any
from zlib import crc32

from filelock import FileLock, Timeout

from csgcnn.crystals.graph_builder import Rejected, Warnings, merge_warnings
from csgcnn.errors import UserError
from csgcnn.io import move_into_place, write_text

log = logging.getLogger(__name__)

SECONDS = 5.0  # between two entries into the journal
FILES = ("rows.csv", "rejected.csv")


@dataclass(frozen=True, slots=True)
class Journal:
    """How far a table is: what lies behind `sizes` in its files was not complete and is made again."""

    started_with: dict[str, Any]
    n_records: int = 0  # predicted or rejected
    n_rejected: int = 0
    ids: int = 0  # sum of the checksums of their ids
    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FILES, 0))  # bytes
    warnings: Warnings = field(default_factory=dict)
    unseen: dict[str, str] = field(
        default_factory=dict
    )  # element that the training never saw -> id of its first

    def after(
        self,
        ids: Iterable[str],
        rejected: Sequence[Rejected],
        warned: Warnings,
        unseen: Mapping[str, str],
        sizes: dict[str, int],
    ) -> "Journal":
        """The journal after a chunk of records, of which those with `ids` were predicted."""
        known = [*ids, *(entry.id for entry in rejected)]
        return Journal(
            self.started_with,
            self.n_records + len(known),
            self.n_rejected + len(rejected),
            self.ids + sum(map(_checksum, known)),
            sizes,
            merge_warnings([self.warnings, warned]),
            {**unseen, **self.unseen},
        )

    def skip(self, ids: Iterator[str]) -> None:
        """Pass over the ids of the records that are done.

        Raises:
            UserError: they are not those records.
        """
        found = list(map(_checksum, islice(ids, self.n_records)))
        if len(found) < self.n_records or sum(found) != self.ids:
            raise UserError(
                f"resume=true: the first {self.n_records} structures are no longer those that were predicted; "
                "leave resume=true out to start again"
            )


class PartialTable:
    """The folder `predictions.csv.partial` beside a table, where its rows lie until all are there.

    It is entered by one process at a time and vanishes when the block ends well, by when the table is to be written.
    Otherwise it stays, and with `resume` is continued: `journal` says behind how many records.

    Raises:
        UserError: what is to be continued was `started_with` something else, or cannot be read or written.
    """

    def __init__(self, output: Path, started_with: Mapping[str, Any], resume: bool) -> None:
        self.folder = partial_folder(output)
        self.journal = Journal(dict(started_with))
        self._resume = resume
        self._files: dict[str, IO[bytes]] = {}
        self._noted = time.monotonic()

    def __enter__(self) -> "PartialTable":
        with self._writing():
            self.folder.mkdir(exist_ok=True)
            self._lock = FileLock(
                self.folder / ".lock", timeout=0
            )  # released by the system if the process dies
            try:
                self._lock.acquire()
            except Timeout:
                raise UserError(
                    f"{self.folder}: another process is writing there, wait for it or stop it"
                ) from None
            try:
                if self._resume and (self.folder / "journal.json").exists():
                    self.journal = _read(self.folder / "journal.json", self.journal.started_with)
                else:
                    (self.folder / "journal.json").unlink(missing_ok=True)
                for name, size in self.journal.sizes.items():
                    self._files[name] = open(self.folder / name, "ab", buffering=0)
                    self._files[name].truncate(size)
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_kept = kind is not None and self.journal.n_records > 0
        with suppress(UserError):
            if is_kept:
                self.note()
                log.warning(
                    "%d records are done and kept; resume=true goes on with the others",
                    self.journal.n_records,
                )
        for file in self._files.values():
            file.close()
        if not is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def add(
        self,
        rows: Sequence[Sequence[str]],
        rejected: Sequence[Rejected] = (),
        warned: Warnings | None = None,
        unseen: Mapping[str, str] | None = None,
    ) -> None:
        """Keep a chunk: rows that begin with an id, and what was rejected; on the disk within seconds.

        `warned` of its structures; `unseen`: elements that the training never saw, and an id with each.
        """
        with self._writing():
            sizes = {
                name: self._append(name, part)
                for name, part in zip(FILES, (rows, rejected), strict=True)
            }
        ids = (row[0] for row in rows)
        self.journal = self.journal.after(
            ids, rejected, warned or {}, unseen or {}, sizes
        )  # at once, or not at all
        if time.monotonic() - self._noted > SECONDS:
            self.note()

    def note(self) -> None:
        """Enter into the journal how far the table is, once that lies on the disk."""
        with self._writing():
            for file in self._files.values():
                os.fsync(file.fileno())
            write_text(self.folder / "journal.json", json.dumps(asdict(self.journal)))
        self._noted = time.monotonic()

    def rows(self, name: str = "rows.csv") -> Iterator[list[str]]:
        """The rows that were added, or those of rejected.csv."""
        with open(self.folder / name, newline="", encoding="utf-8") as file:
            yield from csv.reader(file)

    def publish(self, name: str, path: Path) -> None:
        """Let a file of the folder, which is whole, take its place outside."""
        with self._writing():
            move_into_place(self.folder / name, path)

    def _append(self, name: str, rows: Iterable[Sequence[str]]) -> int:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        content = memoryview(text.getvalue().encode())
        size = self.journal.sizes[name] + len(content)
        while content:
            content = content[self._files[name].write(content) :]
        return size

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror or error}") from error


def partial_folder(output: Path) -> Path:
    """Where the rows of the table `output` lie until all are there."""
    return output.with_name(f"{output.name}.partial")


def _read(path: Path, started_with: Mapping[str, Any]) -> Journal:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["warnings"] = {kind: tuple(told) for kind, told in content["warnings"].items()}
        journal = Journal(**content)
        is_whole = all(
            (path.parent / name).stat().st_size >= size for name, size in journal.sizes.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); leave resume=true out to start again"
        ) from error
    if not is_whole:
        raise UserError(
            f"{path.parent} lacks rows that its journal tells of; leave resume=true out to start again"
        )
    differing = [key for key in started_with if journal.started_with.get(key) != started_with[key]]
    if differing:
        raise UserError(
            f"{path.parent} was started with another {' and '.join(differing)} than now, in name or content; take "
            "those, or leave resume=true out to start again"
        )
    return journal


def _checksum(id_: str) -> int:
    return crc32(id_.encode())
