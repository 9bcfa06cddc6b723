"""Two ranks compute what one process computes."""

import os
import socket
import subprocess
import sys
from typing import Any

import ddp_worker
import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of each of two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | common | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, ddp_worker.__file__, str(folder / "{}.pt")]
    started = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank)}) for rank in range(2)
    ]
    assert [process.wait(120) for process in started] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("n_rows", ddp_worker.N_ROWS)
@pytest.mark.parametrize("norm", ddp_worker.NORMS)
@pytest.mark.parametrize("convolution", ddp_worker.CONVOLUTIONS)
def test_a_step_equals_that_of_one_process(
    convolution: str, norm: str, n_rows: int, ranks: list[dict[str, Any]]
) -> None:
    expected = ddp_worker.one_step(convolution, norm, n_rows)
    for found in (results["steps"][f"{convolution}, {norm}, {n_rows}"] for results in ranks):
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-6)


def test_the_ranks_keep_identical_weights(ranks: list[dict[str, Any]]) -> None:
    first, second = (results["weights"] for results in ranks)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_equals_that_of_one_process(ranks: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(ranks[0]["weights"], ddp_worker.train(), rtol=1e-3, atol=1e-5)


def test_collective_functions(ranks: list[dict[str, Any]]) -> None:
    first, second = (results["collectives"] for results in ranks)
    assert first == second
    assert first["result"] == "found"
    assert first["failure"] == ("process 1: no data here", 2)
    assert first["difference"] == (
        "process 1: it has rank 1, but process 0 has rank 0; mount the same disk"
    )
    assert first["text"] == "Å and more"
    assert first["maximum"] == 5
    assert first["gathered"] == [0], "one rank has no row"
    assert first["n_random_states"] == 2
    assert first["random numbers"][0] != first["random numbers"][1]
