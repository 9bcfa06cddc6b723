"""Two processes take the same steps as one."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import ddp_worker
import pytest
import torch

from csgcnn import hardware as machine


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
    for statistics in ("own statistics", "shared statistics"):
        one, other = (results[statistics] for results in of_two)
        assert all(torch.equal(one[name], other[name]) for name in one)
    shared = of_two[0]["shared statistics"]
    assert any(not torch.equal(of_two[0]["own statistics"][name], shared[name]) for name in shared)


def test_a_training_is_that_of_one_process(of_two: list[dict[str, Any]]) -> None:
    expected = ddp_worker.fit(True)
    for name, weight in of_two[0]["shared statistics"].items():
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


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, (0, 1, 0, 1)),
        (
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
            (3, 4, 1, 2),
        ),
        (
            {
                "SLURM_PROCID": "5",
                "SLURM_STEP_NUM_TASKS": "8",
                "SLURM_LOCALID": "1",
                "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
            },
            (5, 8, 1, 4),
        ),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
            (0, 1, 0, 1),
        ),  # in the script itself, outside of a step
    ],
)
def test_the_place_among_processes(variables: dict[str, str], place: tuple[int, ...]) -> None:
    assert machine.launch(variables) == place


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, "127.0.0.1"),
        ({"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "n7"}, "127.0.0.1"),
        ({"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "n7,n9"}, "n7"),
        ({"SLURM_STEP_NUM_NODES": "4", "SLURM_STEP_NODELIST": "rack1n[03-05,9],other"}, "rack1n03"),
        ({"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "n[7-8]-ib"}, "n7-ib"),
        (
            {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "n[7-8]", "MASTER_ADDR": "given"},
            "given",
        ),
    ],
)
def test_where_they_meet(variables: dict[str, str], address: str) -> None:
    assert machine.meeting_point(variables)["MASTER_ADDR"] == address


def test_cores_are_physical_and_within_the_affinity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for cpu in range(8):  # four cores of two hardware threads
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(machine, "_CPUS", tmp_path)
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 5}, raising=False)
    assert machine.cores() == 3
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.cores() == 2, "a container of one and a half"
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cores() == 3
    monkeypatch.setattr(machine, "launch", lambda: machine.Rank(0, 2, 0, 2))
    assert machine.cores() == 1
