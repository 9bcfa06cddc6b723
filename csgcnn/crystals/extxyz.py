"""Extended xyz files: frames with a lattice, read one by one.

ASE reads the line of properties. The lines of atoms are read here, so that a declared number of
atoms or columns allocates nothing.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from csgcnn.crystals.crystal import Unusable
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.limits import MAX_SITES
from csgcnn.errors import StructureError, one_line

_COUNT = re.compile(r"\d{1,15}")
_PROPERTIES = "species:S:1:pos:R:3"
# Characters; ASE reads them one by one.
_MAX_COMMENT = 10**6
# Entries that describe the structure.
_USED = ("Lattice", "Properties", "pbc", "occupancy")


class Frame(NamedTuple):
    """A frame of an extended xyz file.

    Attributes:
        structure: Species, positions, cell and pbc, as `to_crystal` reads them, or what is wrong.
        info: The other entries of the line of properties: numbers, texts and dicts.
    """

    structure: dict[str, Any] | Unusable
    info: dict[str, Any]


def frames(lines: Iterable[str]) -> Iterator[Frame]:
    """Yield the frames of an extended xyz file.

    Args:
        lines: Its lines.

    Raises:
        StructureError: A frame does not begin with its number of atoms, or is incomplete; the
            message names the line.
    """
    numbered = enumerate(lines, 1)
    for number, line in numbered:
        if not line.strip():
            continue
        if not _COUNT.fullmatch(line.strip()):
            raise StructureError(
                f"not a readable xyz file: line {number} is {one_line(line, 60)!r}; "
                "expected the number of atoms of a frame"
            )
        n_atoms = int(line)
        if n_atoms > MAX_SITES:
            raise StructureError(
                f"line {number} declares {n_atoms} atoms; up to {MAX_SITES} are supported"
            )
        content = [text.strip() for _, text in islice(numbered, n_atoms + 1)]
        if len(content) <= n_atoms:
            raise StructureError(
                f"the frame in line {number} declares {n_atoms} atoms but has "
                f"{max(0, len(content) - 1)} lines of atoms"
            )
        yield _frame(number + 1, content[0], content[1:])


def first_frame(text: str) -> dict[str, Any]:
    """Return the only structure of an extended xyz file.

    Raises:
        StructureError: The file holds several frames, or is malformed.
    """
    found = list(islice(frames(text.splitlines()), 2))
    if len(found) != 1:
        raise StructureError(
            "the file holds several frames, not one structure; name the file itself, whose frames "
            "are then read as a data set"
            if found
            else "the file holds no frame"
        )
    structure = found[0].structure
    if isinstance(structure, Unusable):
        raise StructureError(structure.reason)
    return structure


def _frame(number: int, comment: str, rows: Sequence[str]) -> Frame:
    """Return a frame; a malformed one is unusable, which concerns this frame only."""
    try:
        info = _info(comment)
    except Exception as error:
        # ASE raises errors of many types.
        reason = f"line {number} does not hold properties of a frame ({one_line(error)})"
        return Frame(Unusable(reason), {})
    others = {
        # Scalars and arrays of numpy become those of Python.
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in info.items()
        if name not in _USED
    }
    try:
        species, positions = _atoms(number, str(info.get("Properties", _PROPERTIES)), rows)
    except StructureError as error:
        return Frame(Unusable(str(error)), others)
    lattice, pbc = info.get("Lattice"), info.get("pbc")
    structure = {
        "species": species,
        "positions": positions,
        # The file lists the vectors one after the other; ASE transposes them.
        "cell": None if lattice is None else np.transpose(lattice).tolist(),
        "pbc": lattice is not None if pbc is None else np.ravel(pbc).tolist(),
        "occupancy": info.get("occupancy"),
    }
    return Frame(structure, others)


def _info(comment: str) -> dict[str, Any]:
    """Return the entries of the line of properties; other comments have none."""
    if "Lattice" not in comment and "Properties" not in comment:
        return {}
    if len(comment) > _MAX_COMMENT:
        raise ValueError(f"{len(comment)} characters")
    from ase.io.extxyz import key_val_str_to_dict

    return key_val_str_to_dict(comment)


def _atoms(number: int, properties: str, rows: Sequence[str]) -> tuple[list[str], list[Any]]:
    """Return species and positions of the atoms, in the columns that the properties name."""
    element, position, needed = _columns(properties)
    species, positions = [], []
    for site, row in enumerate(rows, 1):
        words = row.split()
        try:
            if len(words) < needed:
                raise ValueError
            positions.append([float(word) for word in words[position : position + 3]])
        except ValueError:
            raise StructureError(
                f"line {number + site} is {one_line(row or ' ', 60)!r}; expected element and "
                f"position of atom {site} ({properties[:60]})"
            ) from None
        word = words[element]
        is_number = word.isdecimal() and int(word[:4]) < len(SYMBOLS)
        species.append((SYMBOLS[int(word)] or "X") if is_number else word)
    return species, positions


def _columns(properties: str) -> tuple[int, int, int]:
    """Return the columns of element and position, and the number of columns up to their end."""
    fields = properties.split(":")
    start, first = 0, dict[str, int]()
    for name, _, width in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        first.setdefault(name, start)
        start += int(width) if _COUNT.fullmatch(width) else 1
    element = first.get("species", first.get("Z"))
    if element is None or "pos" not in first:
        raise StructureError(
            f"Properties={one_line(properties, 60)} names no species and pos, expected "
            f"Properties={_PROPERTIES}"
        )
    return element, first["pos"], max(element + 1, first["pos"] + 3)
