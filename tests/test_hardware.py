from pathlib import Path

import pytest

from csgcnn.hardware import cores, read_rank, rendezvous


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
