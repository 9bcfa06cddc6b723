from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from csgcnn import load
from csgcnn.crystals.records import Record
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.data.targets import Target
from csgcnn.evaluation import invariance
from csgcnn.evaluation.invariance import Changes, largest_changes
from csgcnn.predictor import Predictor

TARGETS = [Target("gap", "eV"), Target("kind", task="classification", classes=("a", "b"))]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load(Path(__file__).parents[1] / "runs" / "format_1.ckpt")


def test_the_largest_change_of_each_target_and_where_it_is() -> None:
    changes = Changes()
    changes.add(np.array([[0.5, 0.0, 0.1], [0.2, 0.3, 0.0]]), ["x", "y"], TARGETS)
    changes.add(np.array([[0.1, 0.2, 0.2], [0.6, 0.0, 0.25]]), ["z", "u"], TARGETS)
    assert changes.largest == {"gap": (0.6, "u"), "kind": (0.3, "y")}


def test_the_crystal_that_changes_is_found_in_any_chunk(
    predictor: Predictor, dielectric_records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    culprit, n_left = dielectric_records[7], 2
    monkeypatch.setattr(invariance, "CHUNK", 3)
    without = {len(record.source["species"]) for record in dielectric_records[:n_left]}
    monkeypatch.setitem(
        SAME_CRYSTAL, "rotation", lambda c, _: None if len(c.atomic_number) in without else c
    )
    monkeypatch.setitem(
        SAME_CRYSTAL,
        "translation",
        lambda c, _: c._replace(lattice=c.lattice * (1 + 0.1 * is_it(c))),
    )

    def is_it(crystal: object) -> bool:
        return np.array_equal(crystal.frac_coords, culprit.source["frac_coords"])

    found = largest_changes(predictor, iter(dielectric_records[:10]))
    assert list(found) == list(SAME_CRYSTAL)
    assert found["rotation"].n_left_out >= n_left
    assert found["rotation"].largest["band_gap"][0] == 0
    assert found["translation"].largest["band_gap"][0] > 1e-3
    assert found["translation"].largest["band_gap"][1] == culprit.id
    assert found["translation"].n_left_out == 0


def test_what_is_not_a_number_is_an_infinite_change(
    predictor: Predictor, dielectric_records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "predict", lambda crystals: np.full((len(crystals), 1), np.nan))
    found = largest_changes(predictor, dielectric_records[:2])
    assert all(changes.largest["band_gap"][0] == np.inf for changes in found.values())


def test_records_are_read_as_they_are_needed(
    predictor: Predictor, dielectric_records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never more crystals than a chunk: when the third chunk is asked for, only two have been read."""
    monkeypatch.setattr(invariance, "CHUNK", 4)
    n_read, n_predicted = [], []
    stream = predictor.predict

    def records() -> Iterator[Record]:
        for record in islice(dielectric_records, 12):
            n_read.append(record.id)
            yield record

    def predict(crystals: list[object]) -> np.ndarray:
        n_predicted.append((len(crystals), len(n_read)))
        return stream(crystals)

    monkeypatch.setattr(predictor, "predict", predict)
    largest_changes(predictor, records())
    assert n_predicted == [(4, 4), (4, 8), (4, 12)]
