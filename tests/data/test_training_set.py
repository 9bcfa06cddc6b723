import numpy as np
import pytest
import torch

from csgcnn.data.store import GraphStore
from csgcnn.data.training_set import TrainingSet, is_plain, plain_fingerprints

TRAIN = torch.arange(0, 40)
EVERY = torch.arange(60)


@pytest.fixture(name="known")
def of_fingerprints(store: GraphStore) -> TrainingSet:
    return TrainingSet.from_plain(store.ids[:40], plain_fingerprints(store, TRAIN))


def test_training_crystals_are_found(store: GraphStore, known: TrainingSet) -> None:
    assert known.contains(store, EVERY) == [True] * 40 + [False] * 20


def test_the_crystal_counts_and_not_its_id(store: GraphStore, known: TrainingSet) -> None:
    renamed = GraphStore(store.graphs, [*store.ids[30:], *store.ids[:30]], {}, store.settings)
    assert known.contains(renamed, EVERY) == [True] * 40 + [False] * 20


def test_ids_count_where_crystals_are_unknown(store: GraphStore) -> None:
    old = TrainingSet.from_plain(store.ids[:40], None)
    assert old.contains(store, EVERY) == [True] * 40 + [False] * 20
    assert TrainingSet().contains(store, EVERY) == [None] * 60


def test_fingerprints_of_another_version_are_not_compared(store: GraphStore) -> None:
    plain = plain_fingerprints(store, TRAIN)
    assert plain is not None
    other = TrainingSet.from_plain(store.ids[:1], {**plain, "version": plain["version"] + 1})
    assert other.contains(store, EVERY) == [True] + [False] * 59


def test_an_ensemble_was_trained_on_the_rows_of_all_members(store: GraphStore) -> None:
    members = [
        TrainingSet.from_plain(store.ids[first:last], plain_fingerprints(store, rows))
        for first, last in ((0, 20), (10, 30))
        for rows in [torch.arange(first, last)]
    ]
    assert TrainingSet.union(members).contains(store, EVERY) == [True] * 30 + [False] * 30
    mixed = TrainingSet.union([members[0], TrainingSet.from_plain(["x"], None)])
    assert mixed.fingerprints is None
    assert mixed.contains(store, EVERY) == [True] * 20 + [False] * 40
    assert TrainingSet.union([members[0], TrainingSet()]).contains(store, EVERY[:1]) == [None]


def test_stores_of_format_6_have_no_fingerprints(store: GraphStore, known: TrainingSet) -> None:
    graphs = store.graphs
    repeated = np.repeat(graphs.fingerprint[:, :1], graphs.fingerprint.shape[1], 1)
    fields = {name: getattr(graphs, name) for name in type(graphs).__dataclass_fields__}
    old = GraphStore(
        type(graphs)(**{**fields, "fingerprint": repeated}), store.ids, {}, store.settings
    )
    assert plain_fingerprints(old, TRAIN) is None
    assert known.contains(old, EVERY) == [True] * 40 + [False] * 20, "ids are compared"


def test_malformed_fingerprints_of_a_checkpoint_are_refused(store: GraphStore) -> None:
    plain = plain_fingerprints(store, TRAIN)
    assert plain is not None
    assert is_plain(plain)
    assert is_plain(None)
    assert not is_plain([])
    assert not is_plain({"version": 1})
    assert not is_plain({**plain, "version": "1"})
    assert not is_plain({**plain, "hashes": plain["hashes"].float()})
    assert is_plain({**plain, "hashes": plain["hashes"][:, :1]})  # of a small checkpoint
    assert not is_plain({**plain, "hashes": plain["hashes"][:, :0]})
    assert not is_plain({**plain, "hashes": torch.cat([plain["hashes"]] * 2, dim=1)})
