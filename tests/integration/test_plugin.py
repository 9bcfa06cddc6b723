"""The example plugin, installed and used like that of any user."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Structure

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugin"
CONFIG_DIR = ["--config-dir", str(PLUGIN / "conf")]
OPT_IN = "plugins=[csgcnn_example_plugin]"
OPTIONS = ["model=mean_convolution", "edge_calculator=inverse_powers", "pooling=mean_max"]
QUICK = [
    *("model.hidden=8", "model.n_convolutions=1", "model.head_hidden=8", "recipe=fast"),
    *("trainer.max_epochs=1", "trainer.figures=false", "trainer.workers=1", "trainer.device=cpu"),
]
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the plugin into a folder."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder, PLUGIN], check=True)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of all commands."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def run(installed: Path, folder: Path) -> Run:
    """Run Python with the plugin."""

    def in_folder(*arguments: str, path: Path = installed) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, installed, path))),
            "CSGCNN_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return in_folder


@pytest.fixture(scope="module")
def calculations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write twenty crystals in the data format of the plugin."""
    folder = tmp_path_factory.mktemp("calculations")
    with gzip.open(ROOT / "data" / "dielectric.json.gz", "rt") as file:
        records: list[dict[str, Any]] = json.load(file)[:400:20]
    for number, record in enumerate(records):
        source = record["crystal_structure"]
        own = folder / f"run-{number:02}"
        own.mkdir()
        structure = Structure(source["lattice"], source["species"], source["frac_coords"])
        structure.to(str(own / "CONTCAR"), fmt="poscar")
        (own / "energy.txt").write_text(f"{record['band_gap']}\n")
    return folder


@pytest.fixture(scope="module")
def trained(run: Run, folder: Path, calculations: Path) -> Path:
    """Train with the convolution, edge calculator, pooling and data format of the plugin."""
    data = ["dataset=vasp_runs", f"dataset.path={calculations}", "hydra.run.dir=trained"]
    done = run("-m", "csgcnn", "train", *CONFIG_DIR, OPT_IN, *OPTIONS, *QUICK, *data)
    assert done.returncode == 0, done.stderr
    return folder / "trained"


def test_a_run_uses_every_part_of_the_plugin(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["n_rows"] == {"train": 16, "val": 2, "test": 2}
    assert metrics["test"]["energy"]["median_absolute_error"] > 0
    config = (trained / "config.yaml").read_text()
    for name in ("MeanConvolution", "InversePowers", "MeanMaxPooling"):
        assert name in config


def test_predicting_needs_the_opt_in(
    run: Run, folder: Path, trained: Path, calculations: Path
) -> None:
    command = [
        *("-m", "csgcnn", "predict", f"ckpt={trained / 'checkpoints' / 'best.ckpt'}"),
        *(f"structures={calculations / 'run-00' / 'CONTCAR'}", "output=out.csv"),
    ]
    refused = run(*command)
    assert refused.returncode != 0
    assert OPT_IN in refused.stderr
    done = run(*command, OPT_IN)
    assert done.returncode == 0, done.stderr
    assert (folder / "out.csv").read_text().startswith("id,energy")


def test_loading_in_python_needs_the_opt_in(run: Run, trained: Path) -> None:
    ckpt = str(trained / "checkpoints" / "best.ckpt")
    code = f"import csgcnn; print(csgcnn.load({ckpt!r}%s).columns)"
    done = run("-c", code % ", plugins=['csgcnn_example_plugin']")
    assert done.stdout.strip() == "['energy']", done.stderr
    refused = run("-c", code % "")
    assert refused.returncode != 0
    assert OPT_IN in refused.stderr


def test_an_entry_point_replaces_the_opt_in(run: Run, trained: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "other-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    entry_point = "[csgcnn.plugins]\nexample = csgcnn_example_plugin\n"
    (metadata / "entry_points.txt").write_text(entry_point)
    ckpt = str(trained / "checkpoints" / "best.ckpt")
    done = run("-c", f"import csgcnn; print(csgcnn.load({ckpt!r}).columns)", path=tmp_path)
    assert done.stdout.strip() == "['energy']", done.stderr


def test_training_without_the_opt_in_is_refused(run: Run) -> None:
    refused = run("-m", "csgcnn", "train", *CONFIG_DIR, "model=mean_convolution", *QUICK)
    assert refused.returncode == 2
    assert OPT_IN in refused.stderr


def test_the_range_of_a_key_of_the_plugin_is_checked(run: Run) -> None:
    overrides = ["model=mean_convolution", "model.convolution.scale=0"]
    refused = run("-m", "csgcnn", "train", *CONFIG_DIR, OPT_IN, *overrides, *QUICK)
    assert refused.returncode == 2
    assert "model.convolution.scale=0: expected a number from 0.001 to 1000" in refused.stderr


def test_help_lists_the_keys_of_the_plugin(run: Run) -> None:
    command = ["-m", "csgcnn", "train", *CONFIG_DIR, OPT_IN, "model=mean_convolution", "--help"]
    assert "model.convolution.scale=1.0   Factor of the update." in run(*command).stdout
