"""Files that are complete or absent, file digests and locks between processes."""

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from csgcnn.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise the errors of the operating system as UserError, in a block that writes to a path.

    Raises:
        UserError: The block raised OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block succeeds.

    The content is flushed to the disk before the rename. If the block fails, the temporary file is
    removed and an earlier file remains unchanged.

    Raises:
        UserError: The file cannot be written: full disk, read-only or missing folder.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
        )
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        move_into_place(Path(temporary), path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        raise


@contextmanager
def whole_folder(path: Path, flush: bool = True) -> Iterator[Path]:
    """Make a temporary folder that is renamed to `path` when the block succeeds.

    If the block fails, or if another process has made `path` meanwhile, the temporary folder is
    removed.

    Args:
        path: The folder to make.
        flush: Whether its files are flushed to the disk before the rename.

    Yields:
        The temporary folder.

    Raises:
        OSError: The folder cannot be written.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if flush:
            flush_files(temporary)
        temporary.rename(path)
        _flush_folder(path.parent)
    except OSError:
        if not path.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_into_place(finished: Path, path: Path) -> None:
    """Rename a finished file and flush the rename to the disk.

    Args:
        finished: The file, on the same file system.
        path: The new name; a file of that name is replaced.
    """
    os.replace(finished, path)
    _flush_folder(path.parent)


def flush_files(folder: Path) -> None:
    """Flush the files of a folder to the disk."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically, see `replacing`.

    Args:
        path: The file.
        content: Its bytes.
    """
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically, see `replacing`.

    Args:
        path: The file.
        text: Its text, with its line breaks.
    """
    write_bytes(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, see `replacing`; numbers that are not finite become null.

    Args:
        path: The file.
        content: A mapping that `json.dumps` accepts.
    """
    strict = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_text(path, json.dumps(strict, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def csv_writer(file: Any, header: Sequence[str]) -> Iterator[Any]:
    """Open a csv writer of an open file.

    Args:
        file: A binary file, which the caller closes.
        header: Names of the columns, which are written first.

    Yields:
        A writer as `csv.writer` returns it.
    """
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    yield writer
    # Flush the text, but leave the file open.
    text.detach()


def write_csv(
    path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]], exact: bool = False
) -> None:
    """Write a csv file atomically, see `replacing`.

    Args:
        path: The file.
        header: Names of the columns.
        rows: Cells of each row.
        exact: Whether numbers have all their digits; default: those of `format_cell`.
    """
    with replacing(path) as file, csv_writer(file, header) as writer:
        writer.writerows(rows if exact else (map(format_cell, row) for row in rows))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a csv file, each by the names of the columns."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def format_cell(value: Any) -> Any:
    """Return the cell for a value: numbers with seven digits, nothing for NaN."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.7g}"
    return value


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive(path: Path, busy_message: str) -> Iterator[None]:
    """Hold a lock for the block, or fail at once if another process holds it.

    The operating system releases the lock when the process dies.

    Args:
        path: The lock file, in an existing folder.
        busy_message: Message of the error if another process holds the lock.

    Raises:
        UserError: Another process holds the lock, or the file cannot be written or locked.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(busy_message) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to {path.parent}: {reason}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def exclusive_when_free(
    path: Path, on_wait: Callable[[], None] = lambda: None, patience: float = 1.0
) -> Iterator[None]:
    """Wait for a lock and hold it for the block.

    The operating system releases the lock when the process dies.

    Args:
        path: The lock file, in an existing folder.
        on_wait: Called once if the lock is not free after `patience`.
        patience: Time before `on_wait` is called, in seconds.

    Raises:
        OSError: The file cannot be written.
        NotImplementedError: The file system does not support locks.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    # Some operating systems and file systems cannot flush a folder.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
