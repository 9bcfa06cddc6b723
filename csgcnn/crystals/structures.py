"""Structures of every kind, read into a `Crystal`."""

import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.atoms import crystal_of_ase, crystal_of_dict, is_ase_atoms, is_atoms_dict
from csgcnn.crystals.checks import FormulaMismatch, check_crystal
from csgcnn.crystals.crystal import (
    Crystal,
    Unusable,
    checked_lattice,
    lattice_from_parameters,
    make_crystal,
    occupant,
    refuse_not_periodic,
)
from csgcnn.crystals.optimade import crystal_of_optimade, is_optimade
from csgcnn.crystals.structure_files import parse_structure, read_structure_file, text_format
from csgcnn.errors import StructureError, one_line

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure


class StructureText(NamedTuple):
    """A structure as the text of a file: CIF, POSCAR or JSON."""

    text: str


# None: the record has no structure, which is reported when it is read.
StructureSource: TypeAlias = (
    "dict[str, Any] | Path | StructureText | Unusable | Structure | Atoms | Crystal | None"
)

_STRUCTURE_KEYS = ("sites", "lattice", "lattice_parameters", "lattice_mat", "lattice_vectors")


def to_crystal(source: StructureSource, formula_mismatch: FormulaMismatch = "refuse") -> Crystal:
    """Return the crystal of a dict, a file, the text of a file, a pymatgen Structure or ASE Atoms.

    Lengths are in Å, angles in degrees. A dict has one of these sets of keys:

    - those of pymatgen's `Structure.as_dict()`;
    - `structure`, a dict, as in pymatgen's `ComputedStructureEntry.as_dict()`;
    - `lattice` or `lattice_parameters` (a, b, c, alpha, beta, gamma), `species`, `frac_coords`;
    - those of JARVIS: `lattice_mat`, `elements`, `coords`, `cartesian`;
    - those of OPTIMADE: `lattice_vectors`, `cartesian_site_positions`, `species_at_sites`,
      `species`;
    - those of ASE: `numbers` or `species`, `positions`, `cell`, `pbc`.

    Args:
        source: The structure.
        formula_mismatch: What happens to a crystal that differs from the formula in its file.

    Raises:
        StructureError: It is not an ordered crystal of elements 1 to 100, or not what its file
            declares. The message names the file, if one is read, and sites by their labels or
            their numbers from 1.
    """
    crystal = _read(source)
    check_crystal(crystal, formula_mismatch)
    # The formula has been compared; a change of the crystal must not be compared with it.
    return crystal._replace(declared_formula="")


def _read(source: StructureSource) -> Crystal:
    if isinstance(source, Crystal):
        return source
    if isinstance(source, dict):
        return _from_dict(source)
    if isinstance(source, Path):
        return _from_file(source)
    if isinstance(source, StructureText):
        return _from_content(parse_structure(source.text, text_format(source.text)))
    if isinstance(source, Unusable):
        raise StructureError(source.reason)
    if is_ase_atoms(source):
        return crystal_of_ase(source)
    # the class, as pymatgen computes the coordinates anew at each access
    if not (hasattr(source, "lattice") and hasattr(type(source), "frac_coords")):
        raise StructureError(
            "expected a structure (a dict, a file, a pymatgen Structure or ASE Atoms), "
            f"found {type(source).__name__} {reprlib.repr(source):.60}"
        )
    return _from_pymatgen(cast("Structure", source))


def text_or_file(text: str) -> StructureText | Path:
    """Return what a text stands for: a structure if it has several lines or is JSON, or a file."""
    is_structure = "\n" in text.strip() or text.lstrip().startswith("{")
    return StructureText(text) if is_structure else Path(text)


def is_structure_dict(value: object) -> bool:
    """Return whether a JSON value has the keys of a structure."""
    if not isinstance(value, dict):
        return False
    return any(key in value for key in _STRUCTURE_KEYS) or is_atoms_dict(value)


def is_structure_object(value: object) -> bool:
    """Return whether a value is a pymatgen Structure, ASE Atoms or a `Crystal`."""
    return hasattr(value, "lattice") or is_ase_atoms(value)


def _from_dict(source: dict[str, Any]) -> Crystal:
    try:
        for has_keys, read in _FORMS_OF_DICTS:
            if has_keys(source):
                return read(source)
        return _from_compact_dict(source)
    except StructureError:
        raise
    except KeyError as error:
        raise StructureError(
            f"the structure has no {one_line(error)}; "
            f"it has {one_line(', '.join(map(str, source)))}. "
            "Expected a pymatgen dict, or species and frac_coords with lattice or "
            "lattice_parameters, or JARVIS atoms"
        ) from None
    except Exception as error:
        # A value of an unexpected type can raise any error.
        raise StructureError(f"the structure is malformed: {one_line(error)}") from None


def _from_compact_dict(source: dict[str, Any]) -> Crystal:
    refuse_not_periodic(source.get("pbc", ()))
    if "lattice_parameters" in source:
        lattice = lattice_from_parameters(source["lattice_parameters"])
    else:
        lattice = checked_lattice(source["lattice"])
    return make_crystal(lattice, source["species"], _floats(source["frac_coords"], "frac_coords"))


def _from_pymatgen_dict(source: dict[str, Any]) -> Crystal:
    sites = source["sites"]
    species = [
        occupant(number, [(str(o["element"]), o["occu"]) for o in site["species"]])
        for number, site in enumerate(sites, 1)
    ]
    refuse_not_periodic(source["lattice"].get("pbc", ()))
    frac_coords = _floats([site["abc"] for site in sites], "abc")
    return make_crystal(checked_lattice(source["lattice"]["matrix"]), species, frac_coords)


def _from_entry(source: dict[str, Any]) -> Crystal:
    """Return the crystal of a `ComputedStructureEntry`."""
    return _from_dict(source["structure"])


def _from_jarvis_dict(source: dict[str, Any]) -> Crystal:
    lattice = checked_lattice(source["lattice_mat"])
    coords = _floats(source["coords"], "coords")
    if source["cartesian"] and coords.shape[1:] == (3,):
        coords = coords @ np.linalg.inv(lattice)
    return make_crystal(lattice, source["elements"], coords)


def _from_pymatgen(structure: "Structure") -> Crystal:
    refuse_not_periodic(structure.lattice.pbc)
    occupancies = [[*site.species.items()] for site in structure]
    species = [
        str(own[0][0])
        if len(own) == 1 and own[0][1] == 1
        else occupant(number, [(str(one), occupancy) for one, occupancy in own])
        for number, own in enumerate(occupancies, 1)
    ]
    # pymatgen computes a new array at each access.
    frac_coords = np.asarray(structure.frac_coords, dtype=float)
    return make_crystal(checked_lattice(structure.lattice.matrix), species, frac_coords)


def _only_entry(source: dict[str, Any]) -> Any:
    """Return the only structure of a response of OPTIMADE or of a database of ASE, or None."""
    if isinstance(entries := source.get("data"), list):
        return entries[0] if len(entries) == 1 and is_optimade(entries[0]) else None
    ids = source.get("ids")
    return source.get(str(ids[0])) if isinstance(ids, list) and len(ids) == 1 else None


_FORMS_OF_DICTS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Crystal]], ...] = (
    (lambda source: "sites" in source, _from_pymatgen_dict),
    (lambda source: "lattice_mat" in source, _from_jarvis_dict),
    (lambda source: isinstance(source.get("structure"), dict), _from_entry),
    (is_optimade, crystal_of_optimade),
    (lambda source: is_optimade(source.get("data")), lambda source: _from_dict(source["data"])),
    (is_atoms_dict, crystal_of_dict),
    (
        lambda source: isinstance(_only_entry(source), dict),
        lambda source: _from_dict(_only_entry(source)),
    ),
)


def _from_file(path: Path) -> Crystal:
    try:
        return _from_content(read_structure_file(path))
    except StructureError as error:
        raise StructureError(f"{path}: {error}") from error


def _from_content(content: "dict[str, Any] | Structure | Crystal") -> Crystal:
    if isinstance(content, Crystal):
        return content
    return _from_dict(content) if isinstance(content, dict) else _from_pymatgen(content)


def _floats(values: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        for number, row in enumerate(values if isinstance(values, list) else [], 1):
            if not isinstance(row, Sequence) or len(row) != 3:
                found = f"{name} is {row!r:.60}"
                raise StructureError(f"site {number}: {found}, expected 3 numbers") from None
        raise StructureError(f"{name} does not hold numbers only ({one_line(error)})") from None
