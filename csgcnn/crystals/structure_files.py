"""Structure files: which format a name promises, and what the file really holds."""

import gzip
import json
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csgcnn.errors import StructureError, UserError

if TYPE_CHECKING:
    from pymatgen.core import Structure

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

    Raises: StructureError with the reason, in one line, if the file is not what its name says.
    """
    kind = structure_format(path.name)
    text = _text(path)
    try:
        if kind == "json":
            return _parse_json(text)
        return _parse_cif(text) if kind == "cif" else _parse_other(path, text, kind)
    except StructureError:
        raise
    except Exception as error:  # whatever a parser trips over is a fault of this one file
        reason = f"malformed, truncated or of another format ({one_line(error)})"
        raise StructureError(f"not a readable {kind or 'structure'} file: {reason}") from error


def read_text(path: Path) -> str:
    """The text of a file, unpacked if its content is gzip.

    Raises: UserError naming the file if it is missing, empty, damaged, binary or an HTML page.
    """
    try:
        return _text(path)
    except StructureError as error:
        raise UserError(f"{path}: {error}") from None


def one_line(reason: object) -> str:
    """A message, or the name of an error without one, as a single line of at most 200 characters."""
    line = " ".join(str(reason).split()) or type(reason).__name__
    return line if len(line) <= 200 else line[:197] + "..."


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise StructureError("no such file; check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise StructureError("the gzip file is truncated or damaged; fetch it again") from None
    except OSError as error:
        raise StructureError(f"cannot be read ({error.strerror})") from None
    if not content.strip():
        raise StructureError("the file is empty")
    if b"\0" in content[:4096]:
        raise StructureError("the file holds binary data, not the text that its name promises")
    if content[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise StructureError("the file holds an HTML page (a failed download?), not what its name promises")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _parse_json(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if isinstance(value, list):
        raise StructureError(f"the file holds a list of {len(value)} entries, not one structure")
    if not isinstance(value, dict):
        raise StructureError(f"the file holds {one_line(value)!r}, not a structure")
    return value


def _parse_cif(text: str) -> "Structure":
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = CifParser.from_str(text)
        try:
            return parser.parse_structures(primitive=False, on_error="ignore")[0]
        except ValueError as error:
            # pymatgen keeps the reason proper among its warnings
            reasons = [text for text in getattr(parser, "warnings", []) if text.startswith("No structure")]
            raise ValueError(" ".join(reasons) or error) from error


def _parse_other(path: Path, text: str, kind: str | None) -> "Structure":
    from pymatgen.core import Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # pymatgen invents elements for a POSCAR without symbols, with no more than this warning
        warnings.filterwarnings("error", message="Elements in POSCAR cannot be determined")
        return Structure.from_str(text, fmt=kind) if kind else Structure.from_file(path)  # type: ignore[arg-type]
