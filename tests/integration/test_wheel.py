"""The wheel works elsewhere, with the configuration that it holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
TRAIN = [
    "train",
    "trainer.max_epochs=1",
    "model.hidden=8",
    "trainer.threads=1",
    "hydra.run.dir=run",
]


def succeed(*command: str, cwd: Path, **environment: str) -> str:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HYDRA_FULL_ERROR", "PYTHONPATH")
    }
    done = subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = (
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(CHECKOUT),
    )
    succeed(*build, cwd=folder)
    (wheel,) = folder.glob("csgcnn-*.whl")
    pip = (
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--quiet",
    )
    succeed(*pip, "--target", str(folder / "site"), str(wheel), cwd=folder)
    return folder / "site"


@pytest.mark.slow
def test_the_wheel_trains_in_another_directory(installed: Path, tmp_path: Path) -> None:
    def csgcnn(*words: str) -> str:
        paths = {
            "PYTHONPATH": str(installed),
            "CSGCNN_DATA": str(CHECKOUT / "data"),
            "CSGCNN_CACHE": str(tmp_path),
        }
        return succeed(sys.executable, "-m", "csgcnn", *words, cwd=tmp_path, **paths)

    assert "csgcnn train" in csgcnn("--help")
    inside = {
        path.relative_to(installed / "csgcnn" / "conf")
        for path in installed.glob("csgcnn/conf/**/*.yaml")
    }
    assert inside == {
        path.relative_to(CHECKOUT / "conf") for path in CHECKOUT.glob("conf/**/*.yaml")
    }
    assert (installed / "hydra_plugins" / "csgcnn_search.py").exists()
    assert not (installed / "tests").exists()

    head = installed / "csgcnn" / "conf" / "model" / "csgann.yaml"
    head.write_text(head.read_text().replace("head_hidden: 128", "head_hidden: 9"))
    csgcnn(*TRAIN)
    assert "head_hidden: 9" in (tmp_path / "run" / "config.yaml").read_text(), (
        "the checkout's conf was used"
    )
    assert (tmp_path / "run" / "parity.png").stat().st_size > 0
    ckpt = tmp_path / "run" / "checkpoints" / "best.ckpt"
    csgcnn("predict", f"ckpt={ckpt}", f"structures={CHECKOUT / 'data' / 'dielectric.json.gz'}")
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1057
