import pytest
import torch

from csgcnn.data.batch import split_batches


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
def test_a_few_rows_make_no_batch(n_rows: int, size: int, expected: list[int]) -> None:
    rows = torch.randperm(n_rows)
    batches = split_batches(rows, size)
    assert [len(batch) for batch in batches] == expected
    assert torch.equal(torch.cat(batches), rows)
