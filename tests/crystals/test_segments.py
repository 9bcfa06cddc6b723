import numpy as np
import pytest

from csgcnn.crystals.segments import dense_rank, expand, order_of


def test_rows_are_repeated_and_numbered() -> None:
    row, number = expand(np.array([2, 0, 3]))
    assert row.tolist() == [0, 0, 2, 2, 2]
    assert number.tolist() == [0, 1, 0, 1, 2]


def test_equal_values_have_one_rank() -> None:
    assert dense_rank(np.array([0.5, 0.1, 0.5, 0.2])).tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize("factor", [1, 2**40])
def test_the_order_is_that_of_lexsort_however_large_the_numbers(factor: int) -> None:
    columns = [np.random.default_rng(i).integers(0, 9, 500) * factor for i in range(3)]
    order = order_of(*columns)
    expected = np.lexsort(columns[::-1])
    for column in columns:
        np.testing.assert_array_equal(column[order], column[expected])
