"""Records of a data set: an id, the source of a structure and scalar columns."""

from dataclasses import dataclass

from csgcnn.crystals.crystal import StructureSource

Scalar = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data set.

    Attributes:
        id: Id, unique within the data set.
        source: The structure, as `csgcnn.crystals.crystal.to_crystal` reads it.
        columns: The other scalar values by column; None where a value is missing.
    """

    id: str
    source: StructureSource
    columns: dict[str, Scalar]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Name the columns of a data set; part of the cache key.

    Attributes:
        id_column: Column of the ids. None: material_id, jid, mbid or id, else the index of the
            DataFrame or the row number from 0.
        structure_column: Column of the structures. None: the first of the usual names that exists.
    """

    id_column: str | None = None
    structure_column: str | None = None


DEFAULT_OPTIONS = ReadOptions()
