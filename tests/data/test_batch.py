import pytest
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import connect
from csgcnn.data.batch import split_batches
from csgcnn.data.store import GraphStore


@pytest.mark.parametrize(
    ("n_rows", "size", "expected"),
    [
        (128, 64, [64, 64]),
        (141, 64, [64, 64, 13]),
        (133, 64, [64, 64, 5]),
        (132, 64, [64, 68]),
        (129, 64, [64, 65]),
        (65, 64, [65]),
        (63, 64, [63]),
        (1, 64, [1]),
        (9, 8, [9]),
        (10, 8, [8, 2]),
        (5, 2, [2, 3]),
        (3, 2, [3]),
        (3, 1, [1, 1, 1]),
        (1, 1, [1]),
        (7, 100_000, [7]),
    ],
)
def test_a_small_remainder_joins_the_last_batch(
    n_rows: int, size: int, expected: list[int]
) -> None:
    rows = torch.randperm(n_rows)
    batches = split_batches(rows, size)
    assert [len(batch) for batch in batches] == expected
    assert torch.equal(torch.cat(batches), rows)


def test_edge_counts_are_those_of_the_full_graph(ideal_crystals: dict[str, Crystal]) -> None:
    crystals = list(ideal_crystals.values())
    counts = []
    for compress in (True, False):
        settings = GraphSettings(compress=compress)
        store = GraphStore(connect(crystals, settings), list(ideal_crystals), {}, settings)
        batch = store.batch(torch.arange(len(crystals)))
        of_edge = batch.graph_index[batch.edge_index[1]]
        counts.append(torch.zeros(len(crystals)).index_add(0, of_edge, batch.edge_count).tolist())
    assert counts[0] == counts[1]
