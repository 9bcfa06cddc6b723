"""A cache of site features, so that other graph settings do not compute them again."""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.site_features.potential import Array

# Seconds that a process waits while another one writes.
_PATIENCE = 60.0


def crystal_key(crystal: Crystal) -> bytes:
    """Return a hash of elements, lattice and coordinates, which differs between cells."""
    digest = hashlib.sha256(crystal.atomic_number.tobytes())
    for array in (crystal.lattice, crystal.frac_coords):
        digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    return digest.digest()[:16]


class SiteFeatureCache:
    """Site features of one potential, in an SQLite file that processes share.

    A file that cannot be used, on a disk that is full or has no locks, only costs time.

    Args:
        folder: Folder of the files.
        name: Pinned name of the potential: other versions and weights have other files.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name.replace(' ', '-')}.sqlite"

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        """Return what is known.

        Args:
            keys: Keys of crystals.

        Returns:
            Features [n_sites * n_layers * n_channels] float16, by key.
        """
        found: dict[bytes, Array] = {}
        with suppress(sqlite3.Error, OSError), self._open() as table:
            for key in keys:
                query = table.execute("SELECT features FROM sites WHERE crystal = ?", (key,))
                if row := query.fetchone():
                    found[key] = np.frombuffer(row[0], dtype=np.float16)
        return found

    def write(self, features: Mapping[bytes, Array]) -> None:
        """Add the features of crystals.

        Args:
            features: Features float16, by key.
        """
        rows = [(key, values.tobytes()) for key, values in features.items()]
        with suppress(sqlite3.Error, OSError), self._open() as table, table:
            table.executemany("INSERT OR REPLACE INTO sites VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as table:
            table.execute(
                "CREATE TABLE IF NOT EXISTS sites (crystal BLOB PRIMARY KEY, features BLOB)"
            )
            yield table
