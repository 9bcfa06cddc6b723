"""Structures of OPTIMADE, the common JSON of databases of materials."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from csgcnn.crystals.crystal import (
    Crystal,
    checked_lattice,
    make_crystal,
    occupant,
    refuse_not_periodic,
)
from csgcnn.errors import StructureError, one_line

_KEYS = ("lattice_vectors", "cartesian_site_positions")


def is_optimade(value: object) -> bool:
    """Return whether a JSON value is a structure of OPTIMADE, or an entry of a response."""
    if not isinstance(value, Mapping):
        return False
    attributes = value.get("attributes", value)
    return isinstance(attributes, Mapping) and all(key in attributes for key in _KEYS)


def crystal_of_optimade(source: Mapping[str, Any]) -> Crystal:
    """Return the crystal of a structure of OPTIMADE.

    Args:
        source: The attributes of an entry, or the entry.

    Raises:
        StructureError: It is not a periodic, ordered crystal.
    """
    attributes = source.get("attributes", source)
    features = {"assemblies", "implicit_atoms"} & set(attributes.get("structure_features") or ())
    if features:
        raise StructureError(
            f"structure_features holds {' and '.join(sorted(features))}: not all atoms of an "
            "ordered structure have positions; give a structure with all atoms"
        )
    if missing := [key for key in _KEYS if attributes[key] is None]:
        raise StructureError(f"{missing[0]} is null; expected numbers in Å")
    if attributes.get("nperiodic_dimensions", 3) != 3:
        refuse_not_periodic(attributes.get("dimension_types") or False)
    refuse_not_periodic(attributes.get("dimension_types") or ())
    species = {one["name"]: one for one in attributes.get("species") or ()}
    symbols = [
        _symbol(number, name, species.get(name))
        for number, name in enumerate(attributes["species_at_sites"], 1)
    ]
    lattice = checked_lattice(attributes["lattice_vectors"])
    positions = np.array(attributes["cartesian_site_positions"], dtype=np.float64)
    coords = positions.reshape(-1, 3) @ np.linalg.inv(lattice)
    formula = attributes.get("chemical_formula_reduced")
    return make_crystal(lattice, symbols, coords)._replace(
        declared_formula=formula if isinstance(formula, str) else ""
    )


def optimade_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of a response as a record: `id`, `structure` and its other attributes."""
    attributes = entry["attributes"]
    used = {*_KEYS, "species_at_sites", "species"}
    others = {name: value for name, value in attributes.items() if name not in used}
    return {"id": entry.get("id"), **others, "structure": dict(attributes)}


def _symbol(site: int, name: str, species: Mapping[str, Any] | None) -> str:
    """Return the element of a site; without a list of species, its name is the element."""
    if species is None:
        return name
    if species.get("attached") or species.get("nattached"):
        attached = one_line(", ".join(map(str, species.get("attached") or ())), 60)
        raise StructureError(
            f"site {site} ({one_line(name, 20)}) has attached atoms without coordinates "
            f"({attached}); give a structure with all atoms"
        )
    symbols, amounts = species["chemical_symbols"], species["concentration"]
    return occupant(site, list(zip(symbols, amounts, strict=True)))
