import csv
import gzip
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from answers import Answer, run_command
from benchmark_helpers import QUICK, write_tasks
from multitask_helpers import write_mixed_file
from rank_helpers import TrainOnRanks, train_on_ranks
from screening_helpers import write_checkpoints, write_some_bad, write_store

DATA = Path(__file__).parents[2] / "data"
Record = dict[str, Any]


@pytest.fixture(scope="session")
def csgcnn(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Answer]:
    """`csgcnn WORDS`, in this process, in the directory `cwd`."""
    environment = {"CSGCNN_CACHE": str(tmp_path_factory.mktemp("graphs"))}

    def command(*words: str, cwd: Path) -> Answer:
        quick = (
            ["trainer.threads=1", "trainer.workers=1", "trainer.device=cpu"]
            if words[0] == "train"
            else []
        )
        # Hydra wants its overrides in one row
        flags = next((i for i, word in enumerate(words) if "=" in word), len(words))
        return run_command(*words[:flags], *quick, *words[flags:], cwd=cwd, environment=environment)

    return command


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """Sixty small real crystals."""
    with gzip.open(DATA / "dielectric.json.gz", "rt") as file:
        return [r for r in json.load(file) if len(r["crystal_structure"]["species"]) <= 8][:60]


@pytest.fixture(scope="session")
def data_file(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data set") / "crystals (60).json.gz"
    path.write_bytes(gzip.compress(json.dumps(records).encode()))
    return path


@pytest.fixture(scope="session")
def small(data_file: Path) -> list[str]:
    """The words of a short training, without figures, which take longer than it."""
    return [
        f"dataset.path={data_file}",
        "trainer.max_epochs=3",
        "trainer.batch_size=16",
        "model.hidden=16",
        "trainer.figures=false",
    ]


@pytest.fixture(scope="session")
def run(
    csgcnn: Callable[..., Answer], small: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The directory of a finished run."""
    folder = tmp_path_factory.mktemp("runs")
    answer = csgcnn("train", *small, "trainer.figures=true", "hydra.run.dir=first", cwd=folder)
    assert answer.code == 0, answer.said
    (folder / "said.txt").write_text(answer.said)
    return folder / "first"


@pytest.fixture(scope="session")
def cifs(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four CIF files of the data set."""
    from pymatgen.core import Structure

    folder = tmp_path_factory.mktemp("cifs")
    for record in records[:4]:
        crystal = record["crystal_structure"]
        structure = Structure(crystal["lattice"], crystal["species"], crystal["frac_coords"])
        structure.to(str(folder / f"{record['material_id']}.cif"), fmt="cif")
    return folder


@pytest.fixture(scope="session")
def table() -> Callable[[Path], list[dict[str, str]]]:
    def read(path: Path) -> list[dict[str, str]]:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture(scope="module")
def without_figures() -> Iterator[None]:
    """Trainings of a module draw no figures, which take longer than they do."""
    with pytest.MonkeyPatch.context() as patch:
        for plot in ("plot_parity", "plot_element_errors", "plot_learning_curve"):
            patch.setattr(f"csgcnn.evaluation.plots.{plot}", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def benchmark_folder(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tasks toy and frame and their data."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_tasks(folder, records)
    return folder


@pytest.fixture(scope="module")
def benchmark(csgcnn: Callable[..., Answer], benchmark_folder: Path) -> Callable[..., Answer]:
    """Run `csgcnn benchmark task=TASK OVERRIDES` in the folder of the tasks."""

    def command(task: str, *overrides: str) -> Answer:
        words = ("benchmark", "--config-dir", "mine", f"task={task}", *QUICK, *overrides)
        return csgcnn(*words, cwd=benchmark_folder)

    return command


@pytest.fixture(scope="session")
def mixed_file(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty crystals with a number and one of three classes, which some of them lack."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.json.gz"
    write_mixed_file(path, records)
    return path


@pytest.fixture(name="train_on_ranks")
def train_on_ranks_of_small(small: list[str], tmp_path: Path) -> TrainOnRanks:
    """Train in `tmp_path` with one rank for each set of variables."""
    return partial(train_on_ranks, tmp_path, small)


@pytest.fixture(scope="session")
def ckpts(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models of the same target that differ a little."""
    best = run / "checkpoints" / "best.ckpt"
    return write_checkpoints(best, tmp_path_factory.mktemp("ensemble"))


@pytest.fixture(scope="session")
def graph_store(data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the data set's graphs."""
    return write_store(data_file, tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="session")
def some_bad(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose records 5, 25 and 45 are unusable."""
    return write_some_bad(records, tmp_path_factory.mktemp("bad"))
