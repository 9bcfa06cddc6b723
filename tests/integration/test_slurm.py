"""The job files of scripts/slurm, as they are, and sweeps through submitit, on a SLURM of this machine's own."""

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

pytestmark = pytest.mark.slurm

SCRIPTS = Path(__file__).parents[2] / "scripts"
TIMING = ("seconds", "graphs_per_second")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
N_JOBS = 8
Job = dict[str, str]
Table = Callable[[Path], list[dict[str, str]]]


class Cluster:
    """Commands in a folder, in an environment in which `csgcnn` and a SLURM are found."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=200
        )
        assert not check or answer.returncode == 0, answer.stdout + answer.stderr
        return answer

    def submit(self, name: str, *words: str, flags: tuple[str, ...] = ()) -> str:
        """Submit a job file of scripts/slurm; returns the number of the job."""
        told = self("sbatch", "--parsable", "--time=5", *flags, str(SCRIPTS / "slurm" / name), *words)
        return told.stdout.strip()

    def jobs(self, number: str) -> list[Job]:
        """What SLURM knows of a job, or of each job of an array."""
        lines = self("scontrol", "show", "job", "--oneliner", number).stdout.splitlines()
        pairs = [[word.partition("=") for word in line.split()] for line in lines if line]
        return [{key: value for key, _, value in words} for words in pairs]

    def ended(self, number: str) -> list[Job]:
        """The jobs, once they have ended."""
        return wait_for(lambda: all(job["JobState"] in ENDED for job in self.jobs(number)) and self.jobs(number))

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
        pytest.skip("there is no SLURM here: slurmctld is not installed (Debian: apt-get install slurm-wlm munge)")
    if not (programs / "csgcnn").exists():
        pytest.skip("csgcnn is not installed, only its source is here")
    folder = tmp_path_factory.mktemp("cluster")
    with tempfile.TemporaryDirectory(prefix="csgcnn") as short:  # names of sockets have at most 107 characters
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        environment |= {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "CSGCNN_SLURM": f"{short}/slurm",
            "CSGCNN_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        script = str(SCRIPTS / "start_slurm.sh")
        with open(folder / "start.txt", "w+") as told:  # a pipe would stay open as long as the services run
            code = subprocess.run([script], env=environment, stdout=told, stderr=told, timeout=60).returncode
        said = (folder / "start.txt").read_text()
        try:
            if code:
                pytest.skip(f"SLURM is installed, but cannot be started here: {said}")
            environment["SLURM_CONF"] = f"{short}/slurm/slurm.conf"
            yield Cluster(folder, environment)
        finally:
            subprocess.run([script, "stop"], env=environment, check=True, timeout=60)


@pytest.fixture(scope="module")
def short(data_file: Path) -> list[str]:
    """The words of a training of an epoch."""
    quick = ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu", "trainer.batch_size=16", "model.hidden=8"]
    return [f"dataset.path={data_file}", *quick, "trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def long(short: list[str]) -> list[str]:
    """The words of a training that takes several seconds, for it writes a checkpoint after each batch."""
    return [*short, "trainer.max_epochs=50", "trainer.patience=null", "trainer.checkpoint_every=0"]


@pytest.fixture(scope="module")
def uninterrupted(cluster: Cluster, long: list[str]) -> Path:
    number = cluster.submit("train.sbatch", *long)
    (job,) = cluster.ended(number)
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), cluster.output(number)
    return cluster.run(number)


@pytest.fixture(scope="module", autouse=True)
def array(cluster: Cluster, short: list[str]) -> str:
    """The number of an array, submitted before the other jobs: they fill the time in which it starts."""
    assert not Path(cluster.environment["CSGCNN_CACHE"]).exists()
    flags = (f"--array=0-{N_JOBS - 1}", "--gpus=0", "--cpus-per-task=1")  # so that all run at once
    return cluster.submit("array.sbatch", *short, flags=flags)


def test_a_run(cluster: Cluster, uninterrupted: Path, table: Table) -> None:
    assert len(table(uninterrupted / "metrics.csv")) == 50
    assert "test MAE of band_gap" in cluster.output(uninterrupted.name.removeprefix("slurm-"))
    environment = (uninterrupted / "environment.json").read_text()
    assert f'"SLURM_JOB_ID": "{uninterrupted.name.removeprefix("slurm-")}"' in environment


def same_run(found: Path, expected: Path, table: Table) -> None:
    """Everything but the times is the same, to the bit."""
    rows, others = ([{k: v for k, v in row.items() if k not in TIMING} for row in table(run / "metrics.csv")]
                    for run in (found, expected))  # fmt: skip
    assert rows == others
    assert (found / "predictions.csv").read_bytes() == (expected / "predictions.csv").read_bytes()


def interrupted(cluster: Cluster, long: list[str], way: str) -> str:
    """The number of a job that was interrupted when it had come some way, and is queued again."""
    number = cluster.submit("requeue.sbatch", *long)
    rows = cluster.run(number) / "metrics.csv"
    wait_for(lambda: rows.exists() and len(rows.read_text().splitlines()) > 3)
    if way == "USR1":  # what SLURM sends before the time limit, to the same processes: the job queues itself again
        cluster("scancel", "--signal=USR1", number)
    elif way == "TERM":  # the job ends, and goes on when somebody queues it again
        cluster("scancel", "--signal=TERM", number)
        (job,) = cluster.ended(number)
        assert (job["JobState"], job["ExitCode"]) == ("FAILED", "143:0")
        cluster("scontrol", "requeue", number)
    else:  # SLURM takes the node for a job with precedence
        cluster("scontrol", "requeue", number)
    return number


def test_interrupted_and_requeued(cluster: Cluster, long: list[str], uninterrupted: Path, table: Table) -> None:
    ways = ("USR1", "TERM", "preempted")
    with ThreadPoolExecutor() as threads:  # at the same time, which saves time
        numbers = list(threads.map(lambda way: interrupted(cluster, long, way), ways))
    for way, number in zip(ways, numbers, strict=True):
        wait_for(lambda number=number: cluster.jobs(number)[0]["Restarts"] == "1")
        (job,) = cluster.ended(number)
        said = cluster.output(number)
        assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "1"), said
        assert said.count("going on in epoch") == 1
        assert way == "preempted" or said.count(f"stopped by SIG{way} in epoch") == 1
        same_run(cluster.run(number), uninterrupted, table)


def test_processes_on_two_nodes(cluster: Cluster, long: list[str], table: Table) -> None:
    flags = ("--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1")
    number = cluster.submit("train_multi_node.sbatch", *long, "trainer.max_epochs=20", flags=flags)
    rows = cluster.run(number) / "metrics.csv"
    wait_for(lambda: rows.exists() and len(rows.read_text().splitlines()) > 3)
    cluster("scancel", "--signal=USR1", number)
    wait_for(lambda: cluster.jobs(number)[0]["Restarts"] == "1")
    (job,) = cluster.ended(number)
    said = cluster.output(number)
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), said
    assert (said.count("going on in epoch"), said.count("test MAE of band_gap")) == (1, 1), said
    assert [row["epoch"] for row in table(rows)] == [str(epoch) for epoch in range(1, 21)]


@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local"])
def test_a_sweep_through_submitit(launcher: str, cluster: Cluster, short: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'csgcnn[slurm]'")
    words = [f"hydra/launcher={launcher}", "hydra.launcher.timeout_min=5", f"hydra.sweep.dir={launcher}", *short]
    answer = cluster("csgcnn", "train", "--multirun", *words, "seed=0,-1", check=False)
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    assert "seed=-1: seed=-1: expected an integer" in answer.stderr
    assert (cluster.folder / launcher / "0" / "metrics.json").exists()
    assert not (cluster.folder / launcher / "1" / "metrics.json").exists()


def test_a_job_that_slurm_refuses(cluster: Cluster, short: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'csgcnn[slurm]'")
    words = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=none", "hydra.sweep.dir=refused", *short]
    answer = cluster("csgcnn", "train", "--multirun", *words, "seed=0,1", check=False)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "csgcnn train: the launcher says: sbatch: error: invalid partition" in answer.stderr


def test_an_array_on_a_cold_cache(cluster: Cluster, array: str) -> None:
    jobs = cluster.ended(array)
    assert [(job["JobState"], job["ExitCode"]) for job in jobs] == [("COMPLETED", "0:0")] * N_JOBS
    starts = {job["ArrayTaskId"]: job["StartTime"] for job in jobs}
    assert len(starts) == N_JOBS
    assert max(starts.values()) <= min(job["EndTime"] for job in jobs), "all ran at once"
    for task in map(str, range(N_JOBS)):
        assert (cluster.run(array) / task / "metrics.json").exists()
    table = cluster("csgcnn", "table", f"runs/slurm-{array}").stdout
    assert f"({N_JOBS})" in table, table
