"""Structure files: the format by the file name, and the structure in the file."""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csgcnn.crystals.cif import read_cif
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.extxyz import first_frame
from csgcnn.crystals.limits import MAX_SITES
from csgcnn.crystals.poscar import parse_poscar
from csgcnn.crystals.text_files import ONE_STRUCTURE, TextLimits, text_pieces
from csgcnn.errors import StructureError, one_line

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
    ".xyz": "xyz",
    ".extxyz": "xyz",
}
_DATA_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".db")
# Start of a block of a CIF.
_BLOCK = re.compile(r"^\s*data_", re.IGNORECASE | re.MULTILINE)


def structure_format(file_name: str) -> str | None:
    """Return the structure format of a file name, which `.gz` may follow, or None."""
    # os.path is several times faster than Path, which counts in folders of many files.
    name = os.path.basename(file_name.removesuffix(".gz"))
    by_suffix = _FORMAT_OF_SUFFIX.get(os.path.splitext(name)[1].lower())
    is_vasp = name.upper().startswith(("POSCAR", "CONTCAR"))
    return by_suffix or ("poscar" if is_vasp else None)


def structure_name(file_name: str) -> str:
    """Return a file name without `.gz` and the suffix of a structure or data-set format."""
    name = file_name.removesuffix(".gz")
    suffix = os.path.splitext(name)[1]
    is_known = suffix.lower() in (*_FORMAT_OF_SUFFIX, *_DATA_SUFFIXES)
    return name.removesuffix(suffix) if is_known else name


def read_structure_file(
    path: Path, limits: TextLimits = ONE_STRUCTURE
) -> "dict[str, Any] | Structure | Crystal":
    """Read the structure of a file: the first of a CIF, the dict of a JSON file.

    Args:
        path: The file.
        limits: Bounds on its size.

    Raises:
        StructureError: The file does not have the format of its name, or is too large. The
            message is one line and does not name the file.
    """
    file_format = structure_format(path.name)
    if file_format is None:
        known = ", ".join(_FORMAT_OF_SUFFIX)
        raise StructureError(
            f"not a structure file by its name; expected {known}, POSCAR or CONTCAR "
            "(or these with .gz)"
        )
    return parse_structure("".join(text_pieces(path, limits)), file_format, path.parent)


def text_format(text: str) -> str:
    """Return the format of the text of a structure file: cif, json or poscar."""
    if text.lstrip()[:1] in ("{", "["):
        return "json"
    return "cif" if _BLOCK.search(text) else "poscar"


def parse_structure(
    text: str, file_format: str, folder: Path | None = None
) -> "dict[str, Any] | Structure | Crystal":
    """Read the first structure in the text of a file.

    Args:
        text: The text.
        file_format: cif, poscar, json, xyz, xsf or cssr.
        folder: Folder of the file, in which a POSCAR without symbols has its POTCAR.

    Raises:
        StructureError: The text does not have this format.
    """
    try:
        if file_format == "json":
            return _parse_json(text)
        if file_format == "poscar":
            return parse_poscar(text, folder)
        if file_format == "xyz":
            return first_frame(text)
        return read_cif(text) if file_format == "cif" else _parse_sites(text, file_format)
    except StructureError:
        raise
    except Exception as error:
        # The parsers raise errors of many types; each concerns this file only.
        reason = f"malformed, truncated or of another format ({one_line(error)})"
        raise StructureError(f"not a readable {file_format} file: {reason}") from error


def _parse_json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        hint = "; a Python dict needs json.dumps" if text.lstrip().startswith("{'") else ""
        raise StructureError(f"not a readable json file: {error}{hint}") from None
    if isinstance(value, list):
        raise StructureError(f"the file holds a list of {len(value)} entries, not one structure")
    if not isinstance(value, dict):
        raise StructureError(f"the file holds {one_line(value)!r}, not a structure")
    return value


def _parse_sites(text: str, file_format: str) -> "Structure":
    """Return the structure of a format with one line per site."""
    from pymatgen.core import Structure

    if file_format == "xsf":
        text = _without_grids(text)
    _check_declared_sites(text)
    return Structure.from_str(text, fmt=file_format)  # type: ignore[arg-type]


def _without_grids(text: str) -> str:
    """Return an XSF file without volumetric data.

    pymatgen allocates grids of the declared size before it reads their values.
    """
    kept, in_grid = list[str](), False
    for line in text.split("\n"):
        keyword = line.lstrip()[:9].upper()
        in_grid = in_grid or keyword.startswith("BEGIN_")
        if not in_grid:
            kept.append(line)
        in_grid = in_grid and not keyword.startswith(("END_BLOCK", "END_INFO"))
    return "\n".join(kept)


def _check_declared_sites(text: str) -> None:
    """Refuse a declared number of sites that pymatgen would allocate before reading them."""
    for line in text.split("\n"):
        try:
            declared = sum(abs(int(number)) for number in line.partition("#")[0].split())
        except ValueError:
            continue
        if declared > MAX_SITES:
            raise StructureError(
                f"it declares {declared:.3g} sites; up to {MAX_SITES} are supported"
            )
