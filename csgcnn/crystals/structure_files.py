"""Structure files: which format a name promises, and what the file really holds, read within bounds."""

import codecs
import gzip
import json
import stat
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csgcnn.errors import StructureError, one_line

if TYPE_CHECKING:
    from pymatgen.core import Structure

MAX_SITES = 100_000  # of one crystal: beyond, reading and connecting it would take minutes
FARTHEST_CELL = 1e6  # fractional coordinates beyond have lost their digits
LARGEST_FILE = 2**27  # bytes of one structure, as text
_LARGEST_RATIO, _ALWAYS_FINE = (
    200,
    2**26,
)  # gzip: text does not unpack to 200 times its size and 64 MiB
_PIECE = 2**20  # bytes read at once
_LATIN = "csgcnn.latin-1"  # name of an error handler

_FORMAT_OF_SUFFIX = {
    ".cif": "cif",
    ".mcif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".json": "json",
    ".xsf": "xsf",
    ".cssr": "cssr",
}


def structure_format(file_name: str) -> str | None:
    """The structure format that a file name promises, or None if it promises none; ``.gz`` may follow."""
    name = Path(file_name.removesuffix(".gz"))
    by_suffix = _FORMAT_OF_SUFFIX.get(name.suffix.lower())
    is_vasp = name.name.upper().startswith(("POSCAR", "CONTCAR"))
    return by_suffix or ("poscar" if is_vasp else None)


def structure_name(file_name: str) -> str:
    """The file name without ``.gz`` and without the suffix of a structure or data-set format."""
    name = file_name.removesuffix(".gz")
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in (*_FORMAT_OF_SUFFIX, ".csv") else name


def read_structure_file(path: Path) -> "dict[str, Any] | Structure":
    """The one structure that a file holds: the first of a CIF, the dict of a json file.

    Raises: StructureError with the reason, in one line, if the file is not what its name says, or too large.
    """
    kind = structure_format(path.name)
    if kind is None:
        known = ", ".join(_FORMAT_OF_SUFFIX)
        raise StructureError(
            f"not a structure file by its name; expected {known}, POSCAR or CONTCAR (or these with .gz)"
        )
    text = "".join(text_pieces(path, LARGEST_FILE))
    try:
        if kind == "json":
            return _parse_json(text)
        if kind == "cif":
            from csgcnn.crystals.cif import parse_cif

            return parse_cif(text)
        return _parse_table(text, kind)
    except StructureError:
        raise
    except Exception as error:  # whatever a parser trips over is a fault of this one file
        reason = f"malformed, truncated or of another format ({one_line(error)})"
        raise StructureError(f"not a readable {kind} file: {reason}") from error


def text_pieces(path: Path, largest: float = float("inf")) -> Iterator[str]:
    """The text of a file piece by piece, unpacked if its content is gzip, so that memory does not grow with the file.

    Raises: StructureError with the reason, in one line, as soon as the file turns out to be missing, no regular file,
    empty, damaged, binary, an HTML page, a decompression bomb or of more than `largest` bytes.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")(_LATIN)
    is_first = is_blank = True
    try:
        for piece in _pieces(path, largest):
            if b"\0" in piece:
                raise StructureError(
                    "the file holds binary data, not the text that its name promises"
                )
            if is_first and piece[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
                raise StructureError(
                    "the file holds an HTML page (a failed download?), not what its name promises"
                )
            is_first, is_blank = False, is_blank and piece.isspace()
            yield decoder.decode(piece)
        yield decoder.decode(b"", final=True)
    except FileNotFoundError:
        raise StructureError("no such file; check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise StructureError("the gzip file is truncated or damaged; fetch it again") from None
    except OSError as error:
        raise StructureError(f"cannot be read ({error.strerror})") from None
    except MemoryError:
        raise StructureError("cannot be read: it is larger than the memory") from None
    except ValueError as error:  # a name with a null character
        raise StructureError(f"cannot be read ({one_line(error)})") from None
    if is_blank:
        raise StructureError("the file is empty")


def _as_latin(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are no UTF-8 as Latin-1, in which every byte is a character."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(_LATIN, _as_latin)


def _pieces(path: Path, largest: float) -> Iterator[bytes]:
    """The bytes of a regular file, unpacked if they are gzip; nothing that blocks or never ends is opened."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
        raise StructureError(f"cannot be read: it is {kind}, expected a regular file")
    if status.st_size > largest:
        raise StructureError(
            f"the file has {status.st_size:.3g} bytes; a structure file may have up to {largest:.3g}"
        )
    with open(path, "rb") as file:
        if not file.peek(2).startswith(b"\x1f\x8b"):
            yield from iter(lambda: file.read(_PIECE), b"")
            return
        most = min(largest, _LARGEST_RATIO * status.st_size + _ALWAYS_FINE)
        n_read = 0
        with gzip.GzipFile(fileobj=file) as unpacked:
            while piece := unpacked.read(_PIECE):
                n_read += len(piece)
                if n_read > most:
                    raise StructureError(
                        f"the gzip file of {status.st_size} bytes unpacks to more than {most:.3g} bytes"
                    )
                yield piece


def _parse_json(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if isinstance(value, list):
        raise StructureError(f"the file holds a list of {len(value)} entries, not one structure")
    if not isinstance(value, dict):
        raise StructureError(f"the file holds {one_line(value)!r}, not a structure")
    return value


def _parse_table(text: str, kind: str) -> "Structure":
    """A structure in one of the formats with a line per site."""
    from pymatgen.core import Structure

    if kind == "xsf":
        text = _without_grids(text)
    _check_declared(text)
    with warnings.catch_warnings():
        # pymatgen invents elements for a POSCAR without symbols, with no more than this warning
        warnings.filterwarnings("error", message="Elements in POSCAR cannot be determined")
        return Structure.from_str(text, fmt=kind)  # type: ignore[arg-type]


def _without_grids(text: str) -> str:
    """An XSF file without its volumetric data, whose declared sizes would be allocated before they are read."""
    kept, in_grid = list[str](), False
    for line in text.split("\n"):
        word = line.lstrip()[:9].upper()
        in_grid = in_grid or word.startswith("BEGIN_")
        if not in_grid:
            kept.append(line)
        in_grid = in_grid and not word.startswith(("END_BLOCK", "END_INFO"))
    return "\n".join(kept)


def _check_declared(text: str) -> None:
    """Refuse a number of sites that no file of this kind means, before a list of that length is made."""
    for line in text.split("\n"):
        try:
            declared = sum(abs(int(word)) for word in line.partition("#")[0].split())
        except ValueError:  # no line of integers
            continue
        if declared > MAX_SITES:
            raise StructureError(
                f"it declares {declared:.3g} sites; up to {MAX_SITES} are supported"
            )
