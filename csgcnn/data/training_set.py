"""The training crystals of a model, so that predictions can say which crystals these are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.crystals.fingerprints import FINGERPRINT_VERSION, N_HASHES
from csgcnn.data.store import GraphStore

Array = NDArray[Any]
# Settings of graphs on which fingerprints depend.
FINGERPRINT_KEYS = ("cutoff", "max_neighbors")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """What is known of the training crystals of a model.

    Attributes:
        ids: Their ids; None for a checkpoint that does not hold them.
        fingerprints: Their fingerprints [n_rows, n_hashes] uint64, each column sorted; n_hashes is
            N_HASHES, or less in a checkpoint that is to be small; None for a checkpoint of an
            earlier version.
    """

    ids: frozenset[str] | None = None
    fingerprints: Array | None = None

    @classmethod
    def from_plain(
        cls, ids: Sequence[str] | None, plain: Mapping[str, Any] | None
    ) -> "TrainingSet":
        """Return the training set that a checkpoint describes.

        Args:
            ids: Ids of the training rows.
            plain: What `plain_fingerprints` returned; other versions of it are ignored.
        """
        fingerprints = None
        if plain is not None and plain["version"] == FINGERPRINT_VERSION:
            fingerprints = np.sort(plain["hashes"].numpy().view(np.uint64), axis=0)
        return cls(None if ids is None else frozenset(ids), fingerprints)

    @classmethod
    def union(cls, members: Sequence["TrainingSet"]) -> "TrainingSet":
        """Return the crystals that trained at least one member of an ensemble."""
        ids = [member.ids for member in members if member.ids is not None]
        known = [member.fingerprints for member in members if member.fingerprints is not None]
        n_hashes = min((hashes.shape[1] for hashes in known), default=N_HASHES)
        known = [hashes[:, :n_hashes] for hashes in known]
        return cls(
            frozenset().union(*ids) if len(ids) == len(members) else None,
            np.sort(np.concatenate(known), axis=0) if len(known) == len(members) else None,
        )

    def contains(self, store: GraphStore, rows: Tensor) -> list[bool | None]:
        """Return whether crystals are training crystals.

        A crystal is one if it equals a training crystal, whatever its id. Where fingerprints are
        unknown, ids are compared.

        Args:
            store: Graphs with the settings of the model.
            rows: Rows [n_rows] int64, on the host.

        Returns:
            None where nothing is known.
        """
        fingerprint = store.graphs.fingerprint[rows.numpy()]
        if self.fingerprints is not None and has_fingerprints(fingerprint):
            columns = zip(self.fingerprints.T, fingerprint.T, strict=False)
            return np.any([_is_in(sorted_, wanted) for sorted_, wanted in columns], 0).tolist()
        if self.ids is None:
            return [None] * len(rows)
        return [store.ids[row] in self.ids for row in rows.tolist()]


def plain_fingerprints(store: GraphStore, rows: Tensor) -> dict[str, Any] | None:
    """Return the fingerprints of training rows as a checkpoint holds them, if they are known.

    Args:
        store: Graphs.
        rows: Training rows [n_rows] int64, on the host.
    """
    hashes = np.ascontiguousarray(store.graphs.fingerprint[rows.numpy()])
    if not has_fingerprints(hashes):
        return None
    return {"version": FINGERPRINT_VERSION, "hashes": torch.from_numpy(hashes.view(np.int64))}


def is_plain(value: Any) -> bool:
    """Return whether a value of an untrusted checkpoint is one of `plain_fingerprints`."""
    if value is None:
        return True
    hashes = value.get("hashes") if isinstance(value, dict) else None
    return (
        isinstance(hashes, Tensor)
        and type(value.get("version")) is int
        and hashes.dtype == torch.int64
        and hashes.ndim == 2
        and (0 < hashes.shape[1] <= N_HASHES or value["version"] != FINGERPRINT_VERSION)
    )


def has_fingerprints(fingerprint: Array) -> bool:
    """Return whether fingerprints are of this version; stores of format 6 repeat one hash."""
    return bool((fingerprint != fingerprint[:, :1]).any())


def _is_in(sorted_: Array, wanted: Array) -> Array:
    if not len(sorted_):
        return np.zeros(len(wanted), bool)
    return sorted_[np.searchsorted(sorted_, wanted).clip(max=len(sorted_) - 1)] == wanted
