"""The wheel and the source distribution work alone, in an environment of their own."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
HIDDEN = ("HYDRA_FULL_ERROR", "PYTHONPATH", "CSGCNN_DATA")
TRAIN = ["train", "trainer.max_epochs=1", "model.hidden=8", "trainer.threads=1"]

Install = Callable[[Path], Path]

pytestmark = pytest.mark.slow


def succeed(*command: str, cwd: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    done = subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution of the checkout and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder))
    succeed(*build, str(CHECKOUT), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Install a distribution into a new environment that sees the dependencies of this one."""

    def to_new_environment(distribution: Path) -> Path:
        home = tmp_path_factory.mktemp("environment")
        succeed(sys.executable, "-m", "venv", "--without-pip", str(home), cwd=home)
        scripts = home / Path(sysconfig.get_path("scripts")).name
        python = str(scripts / Path(sys.executable).name)
        own = succeed(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home
        )
        # As a plain path: the files that make csgcnn editable are not read from there.
        dependencies = sysconfig.get_path("purelib")
        Path(own.strip(), "dependencies.pth").write_text(dependencies, encoding="utf-8")
        options = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet")
        pip = (sys.executable, "-m", "pip", "--python", python, "install", *options)
        succeed(*pip, str(distribution), cwd=home)
        return scripts / "csgcnn"

    return to_new_environment


def test_the_wheel_contains_the_package_its_configurations_and_its_data(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = {str(p.relative_to(CHECKOUT)) for p in CHECKOUT.glob("csgcnn/**/*.py")}
    conf = {f"csgcnn/{p.relative_to(CHECKOUT)}" for p in CHECKOUT.glob("conf/**/*.yaml")}
    data = {f"csgcnn/included/{p.name}" for p in CHECKOUT.glob("data/*")}
    assert source | conf | data | {"csgcnn/py.typed", "hydra_plugins/csgcnn_search.py"} <= names
    assert {name.partition("/")[0] for name in names} == {"csgcnn", "hydra_plugins"}


def test_the_wheel_of_the_source_distribution_is_that_of_the_checkout(
    built: Path, tmp_path: Path
) -> None:
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path))
    succeed(*build, str(CHECKOUT), cwd=tmp_path)

    def checksums(folder: Path) -> dict[str, int]:
        (wheel,) = folder.glob("*.whl")
        return {entry.filename: entry.CRC for entry in zipfile.ZipFile(wheel).infolist()}

    assert checksums(tmp_path) == checksums(built)


@pytest.mark.parametrize("suffix", [".whl", ".tar.gz"])
def test_an_installed_distribution_trains_and_predicts_in_an_empty_folder(
    suffix: str, built: Path, install: Install, tmp_path: Path
) -> None:
    (distribution,) = built.glob(f"*{suffix}")
    program = install(distribution)
    work, cache = tmp_path / "empty", str(tmp_path / "cache")
    work.mkdir()

    def csgcnn(*arguments: str) -> str:
        return succeed(str(program), *arguments, cwd=work, CSGCNN_CACHE=cache)

    assert str(CHECKOUT) not in succeed(
        str(program.with_name("python")), "-c", "import csgcnn; print(csgcnn.__file__)", cwd=work
    )
    csgcnn(*TRAIN, "hydra.run.dir=run")
    assert (work / "run" / "parity.png").stat().st_size > 0
    csgcnn(
        "predict", "ckpt=run/checkpoints/best.ckpt", f"structures={CHECKOUT}/data/elastic.json.gz"
    )
    assert len((work / "predictions.csv").read_text().splitlines()) == 1182
