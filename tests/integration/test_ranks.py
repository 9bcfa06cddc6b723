"""Two processes take the same steps as one."""

import os
import socket
import subprocess
import sys
from typing import Any

import ddp_worker
import pytest
import torch


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, ddp_worker.__file__, str(folder / "{}.pt")]
    both = [
        subprocess.Popen(command, env={**os.environ, **place, "RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(120) for process in both] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("n_rows", ddp_worker.N_ROWS)
@pytest.mark.parametrize("norm", ddp_worker.NORMS)
@pytest.mark.parametrize("operator", ddp_worker.OPERATORS)
def test_a_step_is_that_of_one_process(
    operator: str, norm: str, n_rows: int, of_two: list[dict[str, Any]]
) -> None:
    expected = ddp_worker.one_step(operator, norm, n_rows)
    for found in (results["steps"][f"{operator}, {norm}, {n_rows}"] for results in of_two):
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-6)


def test_the_processes_stay_equal_to_the_bit(of_two: list[dict[str, Any]]) -> None:
    one, other = (results["weights"] for results in of_two)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_is_that_of_one_process(of_two: list[dict[str, Any]]) -> None:
    expected = ddp_worker.fit()
    for name, weight in of_two[0]["weights"].items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-5)


def test_what_they_tell_each_other(of_two: list[dict[str, Any]]) -> None:
    first, second = (results["exchanges"] for results in of_two)
    assert first == second
    assert first["failure"] == "process 1: no data here"
    assert first["text"] == "Å and more"
    assert first["highest"] == 5
    assert first["gathered"] == [0], "a process without a row"
    assert first["states"] == 2
    assert first["draws"][0] != first["draws"][1], "dropout and noise of their own"
