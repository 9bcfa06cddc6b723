"""Files that are whole or not there: temporary name, flush to the disk, rename."""

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from csgcnn.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place when the block ends well, and vanishes otherwise.

    Raises:
        UserError: it cannot be written (a full disk, a read-only or vanished folder); an earlier file stays as it was.
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
        take_place(Path(temporary), path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        raise


@contextmanager
def whole_folder(path: Path, on_disk: bool = True) -> Iterator[Path]:
    """Make a temporary folder beside `path` that takes its name when the block ends well, and vanishes otherwise.

    `on_disk`: its files are flushed to the disk before. Where `path` exists by then, as another process was first, the
    temporary folder vanishes as well.

    Raises:
        OSError: it cannot be written.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if on_disk:
            flush_files(temporary)
        temporary.rename(path)
        _flush_folder(path.parent)
    except OSError:
        if not path.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def take_place(finished: Path, path: Path) -> None:
    """Rename a finished file, on the disk when this returns."""
    os.replace(finished, path)
    _flush_folder(path.parent)


def flush_files(folder: Path) -> None:
    """Have the files of a folder lie on the disk."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file as `replacing` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as `replacing` does; numbers that are not finite become null, as JSON knows none."""
    strict = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_text(path, json.dumps(strict, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def replacing_csv(path: Path, header: Sequence[str]) -> Iterator[Any]:
    """A csv writer, its header written, of a file that `replacing` makes."""
    with replacing(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(header)
        yield writer
        text.detach()  # flushed; `replacing` closes the file


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a csv file as `replacing` does."""
    with replacing_csv(path, header) as writer:
        writer.writerows(rows)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    with suppress(OSError):  # some systems and file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
