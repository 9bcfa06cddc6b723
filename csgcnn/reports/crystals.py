"""What a report shows of the predicted crystals: composition, crystal system, structure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.descriptors import CRYSTAL_SYSTEMS, descriptors
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS, properties
from csgcnn.crystals.graphs import MAX_SYMMETRY_SITES
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.store import GraphStore
from csgcnn.errors import StructureError

N_ELEMENTS = MAX_ATOMIC_NUMBER + 1

Array = NDArray[Any]


@dataclass(frozen=True)
class CrystalFacts:
    """What is known of the crystals of a table of predictions.

    Attributes:
        atoms: Number of atoms of each element [n_rows, 101]; 0 where the crystal is unknown.
        distance: Fraction of the atoms that would have to be replaced to get the composition of
            the nearest training crystal [n_rows], NaN where unknown.
        structures: Structures by id.
        systems: Crystal systems by id.
        note: Where the structures are from, or why there are none.
    """

    atoms: Array
    distance: Array
    structures: Mapping[str, Crystal] = field(default_factory=dict)
    systems: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @classmethod
    def unknown(cls, n_rows: int, note: str) -> "CrystalFacts":
        """Return that nothing is known.

        Args:
            n_rows: Number of rows.
            note: The reason.
        """
        return cls(np.zeros((n_rows, N_ELEMENTS)), np.full(n_rows, np.nan), note=note)


def atoms_of_store(store: GraphStore) -> Array:
    """Return the number of atoms of each element of each crystal [n_graphs, 101]."""
    parts = []
    for block in store.blocks():
        graph = np.repeat(np.arange(len(block)), block.n_atoms)
        place = graph * N_ELEMENTS + block.atomic_number
        parts.append(
            np.bincount(place, block.atom_multiplicity, len(block) * N_ELEMENTS)
            .reshape(-1, N_ELEMENTS)
            .astype(np.float32)
        )
    return np.concatenate(parts)


def composition_distance(atoms: Array, train: Array) -> Array:
    """Return the fraction of atoms that differ from those of the nearest training composition.

    It is Σ |x - y| / 2 of the fractions x and y of the elements: 0 for equal compositions, 1
    without a common element.

    Args:
        atoms: Number of atoms of each element [n_rows, 101].
        train: Those of the training crystals [n_train, 101], at least one.
    """
    own, known = (torch.from_numpy(of / of.sum(1, keepdims=True)).float() for of in (atoms, train))
    known = known.unique(dim=0)
    nearest = [torch.cdist(part, known, p=1).amin(1) for part in own.split(256)]
    return (torch.cat(nearest) / 2).numpy()


def formula(atoms: Array) -> str:
    """Return the reduced formula of a number of atoms by element, least electronegative first."""
    present = np.flatnonzero(atoms)
    if not len(present):
        return ""
    electronegativity = properties()["electronegativity [Pauling]"]
    count = np.rint(atoms[present]).astype(int)
    count //= max(1, np.gcd.reduce(count))
    order = np.lexsort((present, electronegativity[present]))
    return "".join(f"{SYMBOLS[present[i]]}{count[i] if count[i] > 1 else ''}" for i in order)


def read_structures(records: Iterable[Record], wanted: Sequence[str]) -> dict[str, Crystal]:
    """Return the structures of records by id; those that cannot be read are left out.

    Args:
        records: The records of a data set.
        wanted: Ids of the structures to read; the records are read until all are found.
    """
    missing, found = set(wanted), dict[str, Crystal]()
    for record in records if missing else ():
        if record.id in missing:
            missing.remove(record.id)
            try:
                found[record.id] = to_crystal(record.source, "warn")
            except StructureError:
                continue
            if not missing:
                break
    return found


def crystal_system(crystal: Crystal) -> str:
    """Return the crystal system to 0.01 Å; "" for a crystal with too many sites."""
    if len(crystal.atomic_number) > MAX_SYMMETRY_SITES:
        return ""
    is_system = descriptors(crystal, ["symmetry"])[: len(CRYSTAL_SYSTEMS)]
    return CRYSTAL_SYSTEMS[int(is_system.argmax())]
