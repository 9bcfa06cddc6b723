"""The job files of scripts/slurm and sweeps through submitit, on a local SLURM."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SCRIPTS = Path(__file__).parents[2] / "scripts"
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
N_JOBS = 3
N_EPOCHS = 50
Job = dict[str, str]
Numbers = dict[str, str]
Table = Callable[[Path], list[dict[str, str]]]


class Cluster:
    """Run commands in a folder, with `csgcnn` and SLURM on the PATH."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def __call__(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert not check or answer.returncode == 0, answer.stdout + answer.stderr
        return answer

    def submit(self, name: str, *overrides: str, flags: tuple[str, ...] = ()) -> str:
        """Submit a job file of scripts/slurm and return the number of the job."""
        script = str(SCRIPTS / "slurm" / name)
        return self("sbatch", "--parsable", "--time=5", *flags, script, *overrides).stdout.strip()

    def jobs(self, number: str) -> list[Job]:
        """Return the properties of a job, or of each job of an array."""
        lines = self("scontrol", "show", "job", "--oneliner", number).stdout.splitlines()
        pairs = [[word.partition("=") for word in line.split()] for line in lines if line]
        return [{key: value for key, _, value in job} for job in pairs]

    def ended(self, number: str) -> list[Job]:
        """Wait for the jobs to end and return them."""
        return wait_for(
            lambda: all(job["JobState"] in ENDED for job in self.jobs(number)) and self.jobs(number)
        )

    def output(self, number: str) -> str:
        return (self.folder / f"slurm-{number}.out").read_text()

    def run(self, number: str) -> Path:
        return self.folder / "runs" / f"slurm-{number}"


def wait_for(find: Callable[[], Any], seconds: float = 200) -> Any:
    end = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    programs = Path(sys.executable).parent
    if not shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
        pytest.skip("slurmctld is not installed (Debian: apt-get install slurm-wlm munge)")
    if not (programs / "csgcnn").exists():
        pytest.skip("csgcnn is not installed, only its source is here")
    folder = tmp_path_factory.mktemp("cluster")
    # names of sockets have at most 107 characters
    with tempfile.TemporaryDirectory(prefix="csgcnn") as short:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM", "SBATCH"))
        }
        environment |= {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "CSGCNN_SLURM": f"{short}/slurm",
            "CSGCNN_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        script = str(SCRIPTS / "start_slurm.sh")
        # a pipe would stay open as long as the services run
        with open(folder / "start.txt", "w+") as output:
            streams = {"stdout": output, "stderr": output}
            code = subprocess.run([script], env=environment, timeout=60, **streams).returncode
        started = (folder / "start.txt").read_text()
        try:
            if code:
                pytest.skip(f"SLURM cannot be started: {started}")
            environment["SLURM_CONF"] = f"{short}/slurm/slurm.conf"
            yield Cluster(folder, environment)
        finally:
            subprocess.run([script, "stop"], env=environment, check=True, timeout=60)


@pytest.fixture(scope="module")
def short(data_file: Path) -> list[str]:
    """Overrides of a training of one epoch."""
    quick = [
        "trainer.threads=1",
        "trainer.workers=1",
        "trainer.device=cpu",
        "trainer.batch_size=16",
        "model.hidden=8",
    ]
    return [f"dataset.path={data_file}", *quick, "trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def long(short: list[str]) -> list[str]:
    """Overrides of a training of several seconds, which writes a checkpoint after each step."""
    return [
        *short,
        f"trainer.max_epochs={N_EPOCHS}",
        "trainer.patience=null",
        "trainer.checkpoint_every=0",
    ]


def wait_for_rows(cluster: Cluster, number: str) -> None:
    """Wait until a job has completed some epochs."""
    rows = cluster.run(number) / "metrics.csv"
    wait_for(lambda: rows.exists() and len(rows.read_text().splitlines()) > 3)


def uninterrupted(cluster: Cluster, overrides: list[str]) -> str:
    return cluster.submit("train.sbatch", *overrides)


def stopped_before_its_limit(cluster: Cluster, overrides: list[str]) -> str:
    """Submit a job of 60 s, which SLURM warns 10 to 40 s before its limit."""
    number = cluster.submit("requeue.sbatch", *overrides, flags=("--time=1", "--signal=USR1@10"))
    wait_for_rows(cluster, number)
    # paused until the warning, so that it does not finish before
    cluster("scancel", "--signal=STOP", number)
    return number


def preempted(cluster: Cluster, overrides: list[str]) -> str:
    """Submit a job and requeue it while it runs."""
    number = cluster.submit("requeue.sbatch", *overrides)
    wait_for_rows(cluster, number)
    cluster("scontrol", "requeue", number)
    return number


def stopped_on_two_nodes(cluster: Cluster, overrides: list[str]) -> str:
    flags = ("--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1")
    number = cluster.submit("train_multi_node.sbatch", *overrides, flags=flags)
    wait_for_rows(cluster, number)
    cluster("scancel", "--signal=USR1", number)  # sent before the limit
    return number


def array_of_seeds(cluster: Cluster, overrides: list[str]) -> str:
    """Submit an array whose jobs run at once, without cached graphs."""
    flags = (f"--array=0-{N_JOBS - 1}", "--gpus=0", "--cpus-per-task=1")
    return cluster.submit(
        "array.sbatch", *overrides, "trainer.max_epochs=1", "dataset.cache_dir=cold", flags=flags
    )


@pytest.fixture(scope="module", autouse=True)
def numbers(cluster: Cluster, long: list[str]) -> Iterator[Numbers]:
    """Submit all jobs, which run at the same time, and return their numbers."""
    # first and alone, or its minute ends before it starts
    number = stopped_before_its_limit(cluster, long)
    jobs = (array_of_seeds, preempted, stopped_on_two_nodes, uninterrupted)
    with ThreadPoolExecutor() as threads:
        waiting = {job.__name__: threads.submit(job, cluster, long) for job in jobs}
        yield {name: job.result() for name, job in waiting.items()} | {
            "stopped_before_its_limit": number
        }


@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local"])
def test_a_sweep_through_submitit(launcher: str, cluster: Cluster, short: list[str]) -> None:
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="pip install 'csgcnn[slurm]'"
    )
    overrides = [
        f"hydra/launcher={launcher}",
        "hydra.launcher.timeout_min=5",
        f"hydra.sweep.dir={launcher}",
        *short,
    ]
    answer = cluster("csgcnn", "train", "--multirun", *overrides, "seed=0,-1", check=False)
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    assert "seed=-1: seed=-1: expected an integer" in answer.stderr
    assert (cluster.folder / launcher / "0" / "metrics.json").exists()
    assert not (cluster.folder / launcher / "1" / "metrics.json").exists()


def test_a_job_that_slurm_refuses(cluster: Cluster, short: list[str]) -> None:
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="pip install 'csgcnn[slurm]'"
    )
    overrides = [
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=none",
        "hydra.sweep.dir=refused",
        *short,
    ]
    answer = cluster("csgcnn", "train", "--multirun", *overrides, "seed=0,1", check=False)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "csgcnn train: the launcher reports: sbatch: error: invalid partition" in answer.stderr


def test_an_array_of_jobs_shares_a_new_cache(cluster: Cluster, numbers: Numbers) -> None:
    array = numbers["array_of_seeds"]
    jobs = cluster.ended(array)
    assert [(job["JobState"], job["ExitCode"]) for job in jobs] == [("COMPLETED", "0:0")] * N_JOBS
    starts = {job["ArrayTaskId"]: job["StartTime"] for job in jobs}
    assert len(starts) == N_JOBS
    assert max(starts.values()) <= min(job["EndTime"] for job in jobs), "all ran at once"
    for task in map(str, range(N_JOBS)):
        assert (cluster.run(array) / task / "metrics.json").exists()
    table = cluster("csgcnn", "table", f"runs/slurm-{array}").stdout
    assert f"({N_JOBS})" in table, table


def test_a_job_trains(cluster: Cluster, numbers: Numbers, table: Table) -> None:
    number = numbers["uninterrupted"]
    (job,) = cluster.ended(number)
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), cluster.output(number)
    assert len(table(cluster.run(number) / "metrics.csv")) == N_EPOCHS
    assert "test MAE of band_gap" in cluster.output(number)
    assert f'"SLURM_JOB_ID": "{number}"' in (cluster.run(number) / "environment.json").read_text()


@pytest.mark.parametrize("way", ["preempted", "stopped_before_its_limit"])
def test_an_interrupted_job_resumes_when_requeued(
    way: str, cluster: Cluster, numbers: Numbers, table: Table
) -> None:
    number, whole = numbers[way], numbers["uninterrupted"]
    wait_for(lambda: cluster.jobs(number)[0]["Restarts"] != "0")
    for job in (*cluster.ended(number), *cluster.ended(whole)):
        assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), cluster.output(number)
    said = cluster.output(number)
    assert "resuming in epoch" in said  # more than once if a minute is not enough on a busy machine
    assert ("stopped by SIGUSR1 in epoch" in said) == (way == "stopped_before_its_limit"), said
    rows, others = (table(cluster.run(job) / "metrics.csv") for job in (number, whole))
    for name in rows[0].keys() - {"seconds", "graphs_per_second"}:
        assert [row[name] for row in rows] == [row[name] for row in others]
    predictions = (cluster.run(job) / "predictions.csv" for job in (number, whole))
    assert next(predictions).read_bytes() == next(predictions).read_bytes()


def test_ranks_on_two_nodes_resume(cluster: Cluster, numbers: Numbers, table: Table) -> None:
    number = numbers["stopped_on_two_nodes"]
    wait_for(lambda: cluster.jobs(number)[0]["Restarts"] != "0")
    (job,) = cluster.ended(number)
    said = cluster.output(number)
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), said
    assert (said.count("resuming in epoch"), said.count("test MAE of band_gap")) == (1, 1), said
    epochs = [row["epoch"] for row in table(cluster.run(number) / "metrics.csv")]
    assert epochs == [str(epoch) for epoch in range(1, N_EPOCHS + 1)]
    assert '"processes": 2' in (cluster.run(number) / "environment.json").read_text()
