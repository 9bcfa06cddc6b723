"""Which passes are replayed, and at what size; that replaying changes nothing is `tests/integration/test_cuda.py`'s."""

import pytest
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import to_crystal
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.data.store import GraphStore
from csgcnn.training.cuda_graphs import WARM_UP, RecordedStep


@pytest.fixture(scope="module")
def store(dielectric_records: list[Record]) -> GraphStore:
    graphs = connect(
        [to_crystal(record.source) for record in dielectric_records[:200]], GraphSettings()
    )
    return GraphStore(
        graphs, [record.id for record in dielectric_records[:200]], {}, GraphSettings()
    )


def replay(store: GraphStore, batch_size: int) -> RecordedStep:
    made = RecordedStep(store, batch_size, lambda rows, batch: torch.zeros(()), [])
    first = [made.takes(torch.arange(batch_size)) for _ in range(WARM_UP)]
    assert first == [False] * WARM_UP
    return made


def test_batches_of_another_length_are_not_replayed(store: GraphStore) -> None:
    made = replay(store, 32)
    assert made.takes(torch.arange(32))
    assert not made.takes(torch.arange(31))
    assert not made.takes(torch.arange(33))


def test_a_batch_of_nearly_the_whole_store_is_not_replayed(store: GraphStore) -> None:
    assert not replay(store, 200).takes(torch.arange(200))


def test_few_sizes_hold_every_batch_with_room_for_an_atom(store: GraphStore) -> None:
    made, steps = replay(store, 32), set()
    torch.manual_seed(0)
    for _ in range(200):
        rows = torch.randperm(200)[:32]
        sizes = made._sizes(made._step(rows))
        assert all(padded > n for padded, n in zip(sizes, store.size(rows), strict=True))
        steps.add(made._step(rows))
    assert len(steps) < 25
