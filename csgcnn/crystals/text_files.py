"""Text files that may be gzip-compressed, read piece by piece within bounds."""

import codecs
import gzip
import math
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from csgcnn.errors import StructureError, one_line

_DECODE_ERRORS = "csgcnn.latin-1"


@dataclass(frozen=True, slots=True)
class TextLimits:
    """Bound what is read of a text file.

    A gzip file may unpack to `max_gzip_ratio` times its size and `free_gzip_bytes`, which text
    does not exceed but a decompression bomb does.

    Attributes:
        max_bytes: Largest size of the file and of its text.
        max_gzip_ratio: Allowed ratio of the unpacked and the compressed size.
        free_gzip_bytes: Unpacked bytes that are allowed in any case.
        piece_bytes: Bytes read at once.
        max_blank_bytes: Length of a run of pieces without any character, which only decompression
            bombs have; reading its lines would take a minute.
    """

    max_bytes: float = math.inf
    max_gzip_ratio: float = 200
    free_gzip_bytes: int = 2**26
    piece_bytes: int = 2**20
    max_blank_bytes: int = 2**23


UNBOUNDED = TextLimits()
ONE_STRUCTURE = TextLimits(max_bytes=2**27)


def text_pieces(path: Path, limits: TextLimits = UNBOUNDED) -> Iterator[str]:
    """Yield the text of a file in pieces, unpacked if its content is gzip.

    The encoding is UTF-8 or, with a byte order mark, UTF-16; bytes that are not UTF-8 are read as
    Latin-1.

    Args:
        path: The file.
        limits: Bounds on its size.

    Raises:
        StructureError: The file is missing, not a regular file, empty, damaged, binary, an HTML
            page, a decompression bomb or too large. The message does not name it.
    """
    is_blank, n_blank = True, 0
    try:
        for text in _decoded(_pieces(path, limits)):
            _check_is_text(text, is_blank)
            n_blank = n_blank + len(text) if text.isspace() else 0
            if n_blank > limits.max_blank_bytes:
                size = f"{n_blank / 2**20:.0f} MiB"
                raise StructureError(f"the file holds {size} of blanks; is it damaged?")
            is_blank = is_blank and (text.isspace() or not text)
            yield text
    except FileNotFoundError:
        raise StructureError("no such file; check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise StructureError("the gzip file is truncated or damaged; fetch it again") from None
    except OSError as error:
        raise StructureError(f"cannot be read ({error.strerror})") from None
    except MemoryError:
        raise StructureError("cannot be read: it is larger than the memory") from None
    except ValueError as error:
        # A name with a null character.
        raise StructureError(f"cannot be read ({one_line(error)})") from None
    if is_blank:
        raise StructureError("the file is empty")


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file with their ends.

    Raises:
        StructureError: As `text_pieces`, or a line is too long.
    """
    unfinished: list[str] = []
    n_unfinished, max_length = 0, ONE_STRUCTURE.max_bytes
    for piece in text_pieces(path):
        unfinished.append(piece)
        n_unfinished += len(piece)
        if n_unfinished > max_length + UNBOUNDED.piece_bytes:
            raise StructureError(f"the file has a line of more than {max_length:.3g} characters")
        if "\n" in piece or "\r" in piece:
            *lines, rest = "".join(unfinished).splitlines(keepends=True)
            yield from lines
            unfinished, n_unfinished = [rest], len(rest)
    yield from "".join(unfinished).splitlines(keepends=True)


def _decoded(pieces: Iterator[bytes]) -> Iterator[str]:
    first = next(pieces, b"")
    decoder = _decoder(first)
    yield decoder.decode(first)
    yield from map(decoder.decode, pieces)
    yield decoder.decode(b"", final=True)


def _decoder(start: bytes) -> codecs.IncrementalDecoder:
    is_utf_16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return codecs.getincrementaldecoder("utf-16" if is_utf_16 else "utf-8-sig")(_DECODE_ERRORS)


def _check_is_text(text: str, is_start: bool) -> None:
    if "\0" in text:
        raise StructureError("the file holds binary data, expected text")
    if is_start and text[:200].lstrip().lower().startswith(("<!doctype html", "<html")):
        raise StructureError(
            "the file holds an HTML page, possibly of a failed download; fetch it again"
        )


def _decode_latin(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(_DECODE_ERRORS, _decode_latin)


def _pieces(path: Path, limits: TextLimits) -> Iterator[bytes]:
    """Yield the bytes of a regular file; others, which may block or never end, are not opened."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        raise StructureError(f"cannot be read: it is {kind}, expected a regular file")
    if status.st_size > limits.max_bytes:
        raise StructureError(
            f"the file has {status.st_size:.3g} bytes; "
            f"a structure file may have up to {limits.max_bytes:.3g}"
        )
    with open(path, "rb") as file:
        if file.peek(2).startswith(b"\x1f\x8b"):
            yield from _unpacked(file, status.st_size, limits)
        else:
            yield from iter(lambda: file.read(limits.piece_bytes), b"")


def _unpacked(file: BinaryIO, size: int, limits: TextLimits) -> Iterator[bytes]:
    largest = min(limits.max_bytes, limits.max_gzip_ratio * size + limits.free_gzip_bytes)
    n_read = 0
    with gzip.GzipFile(fileobj=file) as unpacked:
        while piece := unpacked.read(limits.piece_bytes):
            n_read += len(piece)
            if n_read > largest:
                raise StructureError(
                    f"the gzip file of {size} bytes unpacks to more than {largest:.3g} bytes"
                )
            yield piece
