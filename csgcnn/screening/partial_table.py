"""Keep predictions on disk while a table is made, so that an interrupted command can resume."""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from csgcnn.crystals.structure_warnings import StructureNote, WarningSummary
from csgcnn.errors import UserError
from csgcnn.io import exclusive, move_into_place, read_json, write_text, writing

log = logging.getLogger(__name__)

# records that are held in memory at most before a part is written
LARGEST_PART = 50_000


@dataclass(frozen=True, slots=True)
class Part:
    """Predictions for consecutive records.

    Attributes:
        rows: Id and cells of each predicted row.
        rejected: Id and reason of each rejected record.
        warnings: Warnings about the structures.
    """

    rows: Sequence[Sequence[str]] = ()
    rejected: Sequence[Sequence[str]] = ()
    warnings: Sequence[StructureNote] = ()

    def __len__(self) -> int:
        return len(self.rows) + len(self.rejected)


class PartialTable:
    """The folder `predictions.csv.partial`, which holds parts of a table until it is complete.

    Each part is one file, written atomically every few seconds; `manifest.json` identifies the
    inputs. One process at a time can enter the folder. It is removed when the block succeeds, by
    when the table must have been published. Otherwise it stays, and `resume` continues it.

    Args:
        output: The table.
        inputs: Digests of all that the predictions depend on.
        resume: Whether to continue an earlier table; without it, earlier parts are removed.
        seconds: Time between two parts.
        rows_per_record: Predicted rows of each record, which follow each other.

    Raises:
        UserError: The folder cannot be written, another process uses it, it is damaged, or it was
            started with other inputs.
    """

    def __init__(
        self,
        output: Path,
        inputs: Mapping[str, Any],
        resume: bool,
        seconds: float = 5.0,
        rows_per_record: int = 1,
    ) -> None:
        self.folder = partial_folder(output)
        self.n_records = 0
        self.n_rejected = 0
        self.summary = WarningSummary()
        self._inputs = dict(inputs)
        self._resume = resume
        self._seconds = seconds
        self._rows_per_record = rows_per_record
        self._n_parts = 0
        self._pending: list[Part] = []
        self._written_at = time.monotonic()
        self._stack = ExitStack()

    @property
    def n_predicted(self) -> int:
        """Number of predicted records."""
        return self.n_records - self.n_rejected

    def __enter__(self) -> "PartialTable":
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
        with ExitStack() as stack:
            message = f"{self.folder}: another process is writing there; wait for it or stop it"
            stack.enter_context(exclusive(self.folder / ".lock", message))
            if self._resume and (self.folder / "manifest.json").exists():
                self._check_inputs()
                self._n_parts = len(self._part_files())
                for part in self._parts():
                    self._count(part)
            else:
                self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_kept = kind is not None and self.n_records > 0
        if is_kept:
            with suppress(UserError):
                self.flush()
                log.warning(
                    "%d records are done and kept; resume=true continues with the others",
                    self.n_records,
                )
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._stack.close()

    def add(self, part: Part) -> None:
        """Add the next records; they are on disk within a few seconds."""
        self._pending.append(part)
        self._count(part)
        n_pending = sum(map(len, self._pending))
        if n_pending > LARGEST_PART or time.monotonic() - self._written_at > self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write the records that are not on disk yet."""
        if self._pending:
            content = {
                name: [row for part in self._pending for row in getattr(part, name)]
                for name in Part.__slots__
            }
            write_text(self.folder / _name(self._n_parts), json.dumps(content))
            self._n_parts += 1
            self._pending = []
        self._written_at = time.monotonic()

    def skip(self, ids: Iterator[str]) -> None:
        """Pass over the ids of the records that are done.

        Raises:
            UserError: They are the ids of other records.
        """
        for part in self._parts():
            rows = part.rows[:: self._rows_per_record]
            expected = [row[0] for row in (*rows, *part.rejected)]
            if sorted(islice(ids, len(expected))) != sorted(expected):
                raise UserError(
                    f"resume=true: the first {self.n_records} structures are no longer those that "
                    "were predicted; omit resume=true to start again"
                )

    def rows(self) -> Iterator[Sequence[str]]:
        """Yield the predicted rows, part by part."""
        self.flush()
        return (row for part in self._parts() for row in part.rows)

    def rejected(self) -> Iterator[Sequence[str]]:
        """Yield the rejected records, part by part."""
        self.flush()
        return (row for part in self._parts() for row in part.rejected)

    def warnings(self) -> Iterator[StructureNote]:
        """Yield the warnings about structures, part by part."""
        self.flush()
        return (note for part in self._parts() for note in part.warnings)

    def publish(self, name: str, path: Path) -> None:
        """Move a finished file of the folder to its place.

        Args:
            name: Name of the file in the folder.
            path: Its place.
        """
        with writing(path):
            move_into_place(self.folder / name, path)

    def _start(self) -> None:
        # The manifest is removed first and written last: no part belongs to other inputs.
        (self.folder / "manifest.json").unlink(missing_ok=True)
        for path in self._part_files():
            path.unlink()
        write_text(self.folder / "manifest.json", json.dumps(self._inputs))

    def _check_inputs(self) -> None:
        path = self.folder / "manifest.json"
        try:
            before = dict(read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise _damaged(path, error) from error
        if differing := [key for key in self._inputs if before.get(key) != self._inputs[key]]:
            raise UserError(
                f"{self.folder} was started with another {' and '.join(differing)}, in name or "
                "content; use the same, or omit resume=true to start again"
            )

    def _count(self, part: Part) -> None:
        self.n_records += len(part.rows) // self._rows_per_record + len(part.rejected)
        self.n_rejected += len(part.rejected)
        self.summary.add(part.warnings)

    def _part_files(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.json"))

    def _parts(self) -> Iterator[Part]:
        for number in range(self._n_parts):
            yield _read(self.folder / _name(number))


def partial_folder(output: Path) -> Path:
    """Return the folder of the parts of a table."""
    return output.with_name(f"{output.name}.partial")


def _name(number: int) -> str:
    return f"part-{number:06d}.json"


def _read(path: Path) -> Part:
    try:
        content = read_json(path)
        notes = [StructureNote(*note) for note in content["warnings"]]
        return Part(**{**content, "warnings": notes})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged ({error}); omit resume=true to start again")
