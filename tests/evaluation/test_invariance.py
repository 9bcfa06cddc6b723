from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.datasets import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.data.targets import Target
from csgcnn.evaluation.invariance import Changes, largest_changes

GAP = Target("gap", "eV")
TARGETS = [GAP, Target("kind", task="classification", classes=("a", "b"))]
Crystals = Sequence[tuple[str, Crystal]]
Predicted = tuple[list[str], NDArray[Any]]


def volume_per_atom(crystals: Crystals) -> Predicted:
    """A prediction that does not depend on the description."""
    volumes = [abs(np.linalg.det(crystal.lattice)) for _, crystal in crystals]
    atoms = [len(crystal.atomic_number) for _, crystal in crystals]
    return [id_ for id_, _ in crystals], np.array(volumes)[:, None] / np.array(atoms)[:, None]


def test_the_largest_change_of_each_target_and_where_it_is() -> None:
    changes = Changes()
    changes.add(np.array([[0.5, 0.0, 0.1], [0.2, 0.3, 0.0]]), ["x", "y"], TARGETS)
    changes.add(np.array([[0.1, 0.2, 0.2], [0.6, 0.0, 0.25]]), ["z", "u"], TARGETS)
    assert changes.largest == {"gap": (0.6, "u"), "kind": (0.3, "y")}


def test_an_invariant_prediction_does_not_change(dielectric_records: list[Record]) -> None:
    found = largest_changes(volume_per_atom, [GAP], dielectric_records[:5])
    assert list(found) == list(SAME_CRYSTAL)
    assert all(changes.largest["gap"][0] < 1e-3 for changes in found.values())


def test_the_crystal_that_changes_is_found_in_any_chunk(dielectric_records: list[Record]) -> None:
    culprit = dielectric_records[7]

    def stretch(crystal: Crystal, _: np.random.Generator) -> Crystal:
        is_culprit = np.array_equal(crystal.frac_coords, culprit.source["frac_coords"])
        return crystal._replace(lattice=crystal.lattice * (1 + 0.1 * is_culprit))

    def keep_large(crystal: Crystal, _: np.random.Generator) -> Crystal | None:
        return crystal if len(crystal.atomic_number) > 4 else None

    records = dielectric_records[:10]
    n_small = sum(len(record.source["species"]) <= 4 for record in records)
    found = largest_changes(
        volume_per_atom,
        [GAP],
        iter(records),
        chunk_size=3,
        transforms={"keep": keep_large, "stretch": stretch},
    )
    assert 0 < n_small == found["keep"].n_left_out
    assert found["keep"].largest["gap"][0] == 0
    _, before = volume_per_atom([("", to_crystal(culprit.source))])
    change, id_ = found["stretch"].largest["gap"]
    assert id_ == culprit.id
    np.testing.assert_allclose(change, before[0, 0] * (1.1**3 - 1))
    assert found["stretch"].n_left_out == 0


def test_crystals_that_cannot_be_predicted_are_counted(dielectric_records: list[Record]) -> None:
    def predict_two(crystals: Crystals) -> Predicted:
        return volume_per_atom(crystals[:2])

    found = largest_changes(predict_two, [GAP], dielectric_records[:5])
    assert all(changes.n_left_out >= 3 for changes in found.values())


def test_a_prediction_that_is_not_finite_is_an_infinite_change(
    dielectric_records: list[Record],
) -> None:
    def predict_nan(crystals: Crystals) -> Predicted:
        ids, values = volume_per_atom(crystals)
        return ids, np.full_like(values, np.nan)

    found = largest_changes(predict_nan, [GAP], dielectric_records[:2])
    assert all(changes.largest["gap"][0] == np.inf for changes in found.values())


def test_records_are_read_chunk_by_chunk(dielectric_records: list[Record]) -> None:
    n_read, n_predicted = [], []

    def records() -> Iterator[Record]:
        for record in islice(dielectric_records, 12):
            n_read.append(record.id)
            yield record

    def predict(crystals: Crystals) -> Predicted:
        n_predicted.append((len(crystals), len(n_read)))
        return volume_per_atom(crystals)

    largest_changes(predict, [GAP], records(), chunk_size=4, transforms={})
    assert n_predicted == [(4, 4), (4, 8), (4, 12)]
