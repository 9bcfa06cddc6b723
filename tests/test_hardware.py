from pathlib import Path

import pytest
import torch

from csgcnn.errors import ConfigError
from csgcnn.hardware import cores, find_device, read_rank, rendezvous


@pytest.mark.parametrize(
    ("variables", "expected"),
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
        # in the job script itself, outside of a step
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1, 0, 1)),
    ],
    ids=["single process", "torchrun", "srun", "sbatch"],
)
def test_rank_from_the_environment(variables: dict[str, str], expected: tuple[int, ...]) -> None:
    assert read_rank(variables) == expected


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
def test_rendezvous_address(variables: dict[str, str], address: str) -> None:
    assert rendezvous(variables)["MASTER_ADDR"] == address


def test_cores_are_physical_and_within_affinity_and_quota(tmp_path: Path) -> None:
    for cpu in range(8):  # four cores of two hardware threads
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    quota = tmp_path / "cpu.max"

    def usable(n_processes: int = 1) -> int:
        return cores(n_processes, {0, 1, 2, 4, 5}, tmp_path, quota)

    assert usable() == 3, "no quota"
    quota.write_text("150000 100000\n")
    assert usable() == 2, "a container with 1.5 cores"
    quota.write_text("max 100000\n")
    assert usable() == 3
    assert usable(n_processes=2) == 1
    assert usable(n_processes=9) == 1


def with_gpus(monkeypatch: pytest.MonkeyPatch, n_gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_a_gpu_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with_gpus(monkeypatch, 0)
    with pytest.raises(ConfigError, match=f"^device={name}: no GPU was found here; use cpu$"):
        find_device(name)
    assert find_device("auto") == torch.device("cpu")


def test_the_gpus_of_a_machine_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 1)
    with pytest.raises(ConfigError, match="no such GPU here; use cuda:0 or cpu"):
        find_device("cuda:1")
    with_gpus(monkeypatch, 4)
    with pytest.raises(ConfigError, match="no such GPU here; use cuda:0 to cuda:3 or cpu"):
        find_device("cuda:4")


@pytest.mark.parametrize("name", ["mps", "meta", "gpu", "cuda:x", "cuda:-1", "auto:1", ""])
def test_other_devices_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or cuda:N"):
        find_device(name)


def test_a_device_may_be_one_of_torch() -> None:
    assert find_device(torch.device("cpu")) == find_device("cpu") == torch.device("cpu")
