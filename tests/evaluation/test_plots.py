from pathlib import Path

import matplotlib.image
import pytest
import torch

from csgcnn.data.targets import Target
from csgcnn.evaluation.plots import plot_learning_curve, plot_parity

NAN = float("nan")


def is_picture(path: Path) -> bool:
    pixels = matplotlib.image.imread(path)
    return pixels.shape[0] > 400 and len(set(map(tuple, pixels.reshape(-1, 4)[::7].tolist()))) > 5


@pytest.mark.parametrize("n", [1, 40, 2000], ids=["one point", "points", "density"])
def test_parity(n: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    target = torch.randn(n, 2)
    if n > 1:
        target[0, 0] = NAN
    labels = ["band gap [eV]", "log10_k_vrh [log10(GPa)]"]
    plot_parity(target + 0.1, target, labels, [0.1, 0.1], tmp_path / "parity.png")
    assert is_picture(tmp_path / "parity.png")


def test_parity_of_a_target_that_no_test_row_has(tmp_path: Path) -> None:
    target = torch.tensor([[1.0, NAN], [2.0, NAN]])
    plot_parity(torch.ones(2, 2), target, ["a", "b"], [0.5, NAN], tmp_path / "parity.png")
    assert is_picture(tmp_path / "parity.png")


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
    assert is_picture(tmp_path / "curve.png")
