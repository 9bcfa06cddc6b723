"""Largest change of the predictions between equivalent descriptions of a crystal."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.datasets import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL, Transform
from csgcnn.data.targets import Target

Predict = Callable[[Sequence[tuple[str, Crystal]]], tuple[list[str], NDArray[Any]]]

# Crystals that are in memory at once; some descriptions have eight times as many atoms.
CHUNK_SIZE = 64


@dataclass(slots=True)
class Changes:
    """Collect the largest changes of the predictions under one transformation.

    Attributes:
        largest: For each target the largest change, in its unit or of a probability, and the id
            of the crystal.
        n_left_out: Crystals without such a description, or with one that cannot be predicted.
    """

    largest: dict[str, tuple[float, str]] = field(default_factory=dict)
    n_left_out: int = 0

    def add(self, change: NDArray[Any], ids: Sequence[str], targets: Sequence[Target]) -> None:
        """Add the changes of further crystals.

        Args:
            change: Absolute changes [n_crystals, sum of n_outputs].
            ids: Their ids.
            targets: Targets of the model.
        """
        starts = np.cumsum([0, *(target.n_outputs for target in targets[:-1])])
        by_target = np.maximum.reduceat(change, starts, axis=1).T
        for target, of_target in zip(targets, by_target, strict=True):
            worst = int(of_target.argmax())
            found = float(of_target[worst]), ids[worst]
            self.largest[target.name] = max(self.largest.get(target.name, found), found)


def largest_changes(
    predict: Predict,
    targets: Sequence[Target],
    records: Iterable[Record],
    chunk_size: int = CHUNK_SIZE,
    transforms: Mapping[str, Transform] = SAME_CRYSTAL,
) -> dict[str, Changes]:
    """Find the largest change of the predictions under each transformation, chunk by chunk.

    A prediction that is not finite counts as an infinite change.

    Args:
        predict: Maps crystals with their ids to the ids that could be predicted and their
            predictions [n_predicted, sum of n_outputs].
        targets: Targets of the model.
        records: Crystals to describe in other ways.
        chunk_size: Crystals that are in memory at once.
        transforms: Other descriptions of the same crystal, by name.

    Returns:
        The largest change of each target under each transformation.
    """
    rng = np.random.default_rng(0)
    changes = {name: Changes() for name in transforms}
    stream = iter(records)
    while chunk := list(islice(stream, chunk_size)):
        # the build of the graphs has reported their warnings already
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            crystals = {record.id: to_crystal(record.source, "warn") for record in chunk}
        before = dict(zip(*predict(list(crystals.items())), strict=True))
        crystals = {id_: crystal for id_, crystal in crystals.items() if id_ in before}
        for name, transform in transforms.items():
            others = ((id_, transform(crystal, rng)) for id_, crystal in crystals.items())
            described = [(id_, other) for id_, other in others if other is not None]
            ids, after = predict(described) if described else ([], np.empty((0, 0)))
            changes[name].n_left_out += len(chunk) - len(ids)
            if ids:
                change = np.abs(after - np.stack([before[id_] for id_ in ids]))
                changes[name].add(np.nan_to_num(change, nan=np.inf), ids, targets)
    return changes
