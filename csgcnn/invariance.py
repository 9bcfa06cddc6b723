"""How much a model's predictions change with the description of the crystal; they should not."""

from collections.abc import Sequence

import numpy as np

from csgcnn.crystals.datasets import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.predictor import Predictor


def largest_changes(predictor: Predictor, records: Sequence[Record], seed: int = 0) -> dict[str, tuple[float, str]]:
    """Largest change of any prediction under each transformation, and the id of the crystal where it is."""
    rng = np.random.default_rng(seed)
    crystals = [to_crystal(record.source) for record in records]
    before = predictor.predict(crystals)
    result = {}
    for name, transform in SAME_CRYSTAL.items():
        after = predictor.predict([transform(crystal, rng) for crystal in crystals])
        change = np.abs(after - before).max(axis=1)
        result[name] = (float(change.max()), records[int(change.argmax())].id)
    return result
