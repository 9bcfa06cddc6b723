import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
import torch

from csgcnn.data.targets import Target
from csgcnn.evaluation.plots import plot_learning_curve, plot_parity, plot_test

NAN = float("nan")


def is_figure(path: Path) -> bool:
    pixels = matplotlib.image.imread(path)
    return pixels.shape[0] > 400 and len(set(map(tuple, pixels.reshape(-1, 4)[::7].tolist()))) > 5


@pytest.mark.parametrize("n", [1, 40, 2000], ids=["one point", "points", "density"])
def test_parity(n: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    target = torch.randn(n, 2)
    if n > 1:
        target[0, 0] = NAN
    labels = ["band gap [eV]", "log10_k_vrh [log10(GPa)]"]
    plot_parity(target + 0.1, target, labels, tmp_path / "parity.png")
    assert is_figure(tmp_path / "parity.png")


def test_parity_of_a_target_without_known_values(tmp_path: Path) -> None:
    target = torch.tensor([[1.0, NAN], [2.0, NAN]])
    plot_parity(torch.ones(2, 2), target, ["a", "b"], tmp_path / "parity.png")
    assert is_figure(tmp_path / "parity.png")


def test_learning_curve(tmp_path: Path) -> None:
    rows = [
        "epoch,lr,train_loss,val_loss,val_mae_gap,val_mae_k",
        "1,0.1,1,2,0.5,",
        "2,0.1,0.5,1.5,0.4,3",
    ]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    plot_learning_curve(
        tmp_path / "metrics.csv", [Target("gap", "eV"), Target("k")], tmp_path / "curve.png"
    )
    assert is_figure(tmp_path / "curve.png")


@pytest.mark.parametrize(
    "values",
    [[-1e30], [1e36, -3e36, 7e36], [1e-30, -3e-30, 7e-30] * 200],
    ids=["one", "huge", "tiny"],
)
def test_parity_of_extreme_values(
    values: list[float], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    column = torch.tensor([values]).T
    plot_parity(column, column, ["gap [eV]"], tmp_path / "parity.png")
    assert (tmp_path / "parity.png").stat().st_size > 1000
    assert not [warning for warning in recwarn if "limits" in str(warning.message)]


def test_a_learning_curve_without_metrics(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,lr,train_loss,val_loss,val_mae_gap\n1,0.1,0,0,\n2,0.1,0,1e30,\n"
    )
    plot_learning_curve(tmp_path / "metrics.csv", [Target("gap", "eV")], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_figures_of_numbers_and_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    many = Target("space group/no.", task="classification", classes=tuple(map(str, range(40))))
    targets = [
        Target("is_metal", task="classification", classes=("0", "1")),
        Target("gap", "eV"),
        Target("system", task="classification", classes=("a", "b", "c")),
        many,
    ]
    prediction = torch.cat(
        [torch.rand(50, n).softmax(1) if n > 1 else torch.rand(50, 1) for n in (2, 1, 3, 40)], 1
    )
    values = torch.stack([torch.randint(0, n, (50,)).float() for n in (2, 9, 3, 40)], 1)
    values[:5], values[:, 2] = NAN, 1.0
    plot_test(prediction, values, targets, tmp_path)
    names = ["is_metal", "system", "space_group_no."]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["parity.png", *(f"{kind}_{name}.png" for kind in ("confusion", "roc") for name in names)]
    )
    assert all(matplotlib.image.imread(path).std() > 0.01 for path in tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["nonsense", "module://not_installed.backend"])
def test_the_backend_of_a_notebook_is_not_needed(backend: str, tmp_path: Path) -> None:
    code = (
        "import os, sys, torch; from csgcnn.evaluation.plots import plot_parity; "
        "from pathlib import Path; one = torch.ones(2, 1); "
        "plot_parity(one, one, ['gap'], Path('parity.png')); "
        f"assert os.environ['MPLBACKEND'] == {backend!r}; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {**os.environ, "MPLBACKEND": backend, "MPLCONFIGDIR": "/proc/none"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert is_figure(tmp_path / "parity.png")
