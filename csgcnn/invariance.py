"""How much a model's predictions change with the description of the crystal; they should not."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.datasets import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.data.targets import Target
from csgcnn.predictor import Predictor

CHUNK = 64  # crystals at a time: their largest other descriptions have eight times as many atoms


@dataclass(slots=True)
class Changes:
    """How much predictions change under one transformation, at most.

    `largest` per target: the change in its unit (of a class: of a probability) and the id of the crystal where it is;
    `n_left_out` crystals have no such other description, or one too large to predict.
    """

    largest: dict[str, tuple[float, str]] = field(default_factory=dict)
    n_left_out: int = 0

    def add(self, change: NDArray[Any], ids: Sequence[str], targets: Sequence[Target]) -> None:
        """Take in the changes of further crystals: [n_crystals, sum of n_outputs]."""
        starts = np.cumsum([0, *(target.n_outputs for target in targets[:-1])])
        for target, of_target in zip(targets, np.maximum.reduceat(change, starts, axis=1).T, strict=True):
            worst = int(of_target.argmax())
            found = float(of_target[worst]), ids[worst]
            self.largest[target.name] = max(self.largest.get(target.name, found), found)


def largest_changes(predictor: Predictor, records: Iterable[Record], seed: int = 0) -> dict[str, Changes]:
    """Largest change of the predictions under each transformation of `SAME_CRYSTAL`, chunk by chunk.

    A prediction that is not a number is an infinite change.
    """
    rng = np.random.default_rng(seed)
    changes = {name: Changes() for name in SAME_CRYSTAL}
    stream = iter(records)
    while chunk := list(islice(stream, CHUNK)):
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of a parser: told with the data set
            crystals = {record.id: to_crystal(record.source) for record in chunk}
        before = dict(zip(crystals, predictor.predict(list(crystals.values())), strict=True))
        for name, transform in SAME_CRYSTAL.items():
            others = ((id_, transform(crystal, rng)) for id_, crystal in crystals.items())
            described = [Record(id_, other, {}) for id_, other in others if other is not None]
            changes[name].n_left_out += len(chunk)
            for after in predictor.stream(described, workers=1):
                if after.ids:
                    change = np.abs(after.values - np.stack([before[id_] for id_ in after.ids]))
                    changes[name].add(np.nan_to_num(change, nan=np.inf), after.ids, predictor.targets)
                    changes[name].n_left_out -= len(after.ids)
    return changes
