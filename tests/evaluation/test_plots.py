import csv
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
import torch

from csgcnn.config.settings.plot import PlotSettings
from csgcnn.data.targets import Target
from csgcnn.evaluation.class_plots import CLASS_FIGURES
from csgcnn.evaluation.element_plots import plot_element_errors
from csgcnn.evaluation.figure_files import axis_label, panels
from csgcnn.evaluation.plots import Predicted, plot_learning_curve, plot_parity, plot_test

NAN = float("nan")


def is_figure(path: Path) -> bool:
    pixels = matplotlib.image.imread(path)
    return pixels.shape[0] > 400 and len(set(map(tuple, pixels.reshape(-1, 4)[::7].tolist()))) > 5


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def words(path: Path) -> list[str]:
    """Return the texts of a figure, which stand in the comments of an svg file."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))


def numbers(*targets: Target, n: int = 40, std: bool = False) -> Predicted:
    torch.manual_seed(0)
    labels = torch.rand(n, len(targets)) + 1
    return Predicted(labels + 0.125, torch.full_like(labels, 0.1) if std else None, labels)


@pytest.mark.parametrize("n", [1, 40, 2000], ids=["one point", "points", "density"])
def test_parity(n: int, tmp_path: Path) -> None:
    targets = [Target("gap", "eV"), Target("log10_k_vrh", "log10(GPa)")]
    predicted = numbers(*targets, n=n)
    if n > 1:
        predicted.labels[0, 0] = NAN
    plot_parity(predicted, targets, tmp_path / "parity", PlotSettings())
    assert is_figure(tmp_path / "parity.png")


def test_parity_of_a_target_without_known_values(tmp_path: Path) -> None:
    predicted = Predicted(torch.ones(2, 2), None, torch.tensor([[1.0, NAN], [2.0, NAN]]))
    plot_parity(predicted, [Target("a"), Target("b")], tmp_path / "parity", PlotSettings())
    assert is_figure(tmp_path / "parity.png")


def test_parity_names_the_target_its_unit_the_reference_and_the_errors(tmp_path: Path) -> None:
    targets = [Target("gap", "eV", label="PBE gap")]
    plot = PlotSettings(format=["svg"], reference_label="DFT")
    plot_parity(numbers(*targets, std=True), targets, tmp_path / "parity", plot)
    found = words(tmp_path / "parity.svg")
    assert {"DFT PBE gap [eV]", "predicted PBE gap [eV]"} <= set(found)
    said = " ".join(found)
    assert "MAE 0.125 eV, RMSE 0.125 eV" in said
    assert "n = 40, bars: one standard deviation" in said


@pytest.mark.parametrize(
    ("name", "unit", "label"),
    [
        ("band gap", "eV", "band gap [eV]"),
        ("log10 K", "log10(GPa)", "log10(K / GPa)"),
        ("log10_k_vrh", "log10(GPa)", "log10(k_vrh / GPa)"),
        ("log10(modulus)", "log10(GPa)", "log10(modulus / GPa)"),
        ("K", "log10(GPa)", "K [log10(GPa)]"),
        ("is_metal", "", "is_metal"),
    ],
)
def test_a_label_has_each_function_and_unit_once(name: str, unit: str, label: str) -> None:
    assert axis_label(name, unit) == label


@pytest.mark.parametrize("width", [85, 170])
def test_a_figure_has_the_given_width_in_every_format(width: float, tmp_path: Path) -> None:
    targets = [Target("gap", "eV"), Target("k")]
    plot = PlotSettings(format=["png", "pdf", "svg"], width=width)
    plot_parity(numbers(*targets), targets, tmp_path / "parity", plot)
    assert {path.name for path in tmp_path.iterdir()} == {"parity.png", "parity.pdf", "parity.svg"}
    height, pixels, _ = matplotlib.image.imread(tmp_path / "parity.png").shape
    assert pixels / 300 * 25.4 == pytest.approx(width, abs=0.1)
    # two panels stand side by side if they are wide enough
    assert (height < pixels) == (width == 170)
    assert f'width="{int(width / 25.4 * 72)}.' in (tmp_path / "parity.svg").read_text()


def test_learning_curve(tmp_path: Path) -> None:
    rows = [
        "epoch,lr,train_loss,val_loss,val_mae_gap,val_mae_k",
        "1,0.1,1,2,0.5,",
        "2,0.1,0.5,1.5,0.4,3",
    ]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    targets, plot = [Target("gap", "eV"), Target("k")], PlotSettings(format=["png", "svg"])
    constant = {"gap": 0.7, "k": NAN}
    plot_learning_curve(tmp_path / "metrics.csv", targets, tmp_path / "curve", plot, 2, constant)
    assert is_figure(tmp_path / "curve.png")
    assert {"best epoch 2", "gap [eV]", "gap [eV], constant", "k"} <= set(
        words(tmp_path / "curve.svg")
    )


@pytest.mark.parametrize(
    "values",
    [[-1e30], [1e36, -3e36, 7e36], [1e-30, -3e-30, 7e-30] * 200],
    ids=["one", "huge", "tiny"],
)
def test_parity_of_extreme_values(
    values: list[float], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    column = torch.tensor([values]).T
    predicted = Predicted(column, None, column)
    plot_parity(predicted, [Target("gap", "eV")], tmp_path / "parity", PlotSettings())
    assert (tmp_path / "parity.png").stat().st_size > 1000
    assert not [warning for warning in recwarn if "limits" in str(warning.message)]


def test_a_learning_curve_without_metrics(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,lr,train_loss,val_loss,val_mae_gap\n1,0.1,0,0,\n2,0.1,0,1e30,\n"
    )
    plot_learning_curve(
        tmp_path / "metrics.csv", [Target("gap", "eV")], tmp_path / "curve", PlotSettings()
    )
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_the_errors_of_the_elements(tmp_path: Path) -> None:
    has_element = torch.zeros(3, 101, dtype=torch.bool)
    has_element[[0, 1, 2, 2], [8, 8, 8, 26]] = True
    labels = torch.tensor([[1.0, 0.0], [2.0, 1.0], [NAN, 1.0]])
    prediction = torch.tensor([[1.5, 0.9, 0.1], [1.0, 0.9, 0.1], [1.0, 0.1, 0.9]])
    classes = Target("metal", task="classification", classes=("no", "yes"))
    plot_element_errors(
        *(prediction, labels, has_element, [Target("gap", "eV"), classes]),
        *(tmp_path / "element_errors", PlotSettings()),
    )
    assert is_figure(tmp_path / "element_errors.png")
    oxygen, iron = table(tmp_path / "element_errors.csv")
    assert oxygen == {
        "element": "O",
        "gap_mae [eV]": "0.75",
        "gap_n": "2",
        "metal_error_rate": "0.3333333",
        "metal_n": "3",
    }
    assert (iron["element"], iron["gap_mae [eV]"], iron["metal_error_rate"]) == ("Fe", "", "0")


def test_the_numbers_of_the_curves_of_a_class(tmp_path: Path) -> None:
    score = torch.tensor([0.9, 0.8, 0.7, 0.1])
    label = torch.tensor([1, 0, 1, 0])
    target = Target("metal", task="classification", classes=("no", "yes"))
    for stem, figure in CLASS_FIGURES.items():
        figure(torch.stack([1 - score, score], 1), label, target, tmp_path / stem, PlotSettings())
    curve = table(tmp_path / "precision_recall.csv")
    assert [(row["class"], row["recall"], row["precision"]) for row in curve] == [
        ("yes", "0.5", "1"),
        ("yes", "0.5", "0.5"),
        ("yes", "1", "0.6666667"),
        ("yes", "1", "0.5"),
    ]
    rates = [
        (r["false_positive_rate"], r["true_positive_rate"]) for r in table(tmp_path / "roc.csv")
    ]
    assert rates == [("0", "0"), ("0", "0.5"), ("0.5", "0.5"), ("0.5", "1"), ("1", "1")]
    counts = table(tmp_path / "confusion.csv")
    assert [row["predicted_yes"] for row in counts] == ["1", "2"]
    assert [row["true_class"] for row in counts] == ["no", "yes"]


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
    predicted = Predicted(prediction, torch.full_like(prediction, 0.1), values)
    has_element = torch.eye(101, dtype=torch.bool)[1:51]
    plot_test(predicted, has_element, targets, tmp_path, PlotSettings())
    stems = [
        *("parity", "calibration", "element_errors"),
        *(
            f"{kind}_{name}"
            for kind in ("confusion", "roc", "precision_recall")
            for name in ("is_metal", "system", "space_group_no.")
        ),
    ]
    # the numbers of the parity plot are in predictions.csv
    names = [f"{stem}{suffix}" for stem in stems for suffix in (".png", ".csv")]
    names.remove("parity.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    images = tmp_path.glob("*.png")
    assert all(matplotlib.image.imread(path).std() > 0.01 for path in images)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["nonsense", "module://not_installed.backend"])
def test_the_backend_of_a_notebook_is_not_needed(backend: str, tmp_path: Path) -> None:
    code = (
        "import os, sys, torch; from csgcnn.evaluation.plots import Predicted, plot_parity; "
        "from csgcnn.config.settings.plot import PlotSettings; "
        "from csgcnn.data.targets import Target; "
        "from pathlib import Path; one = torch.ones(2, 1); "
        "plot_parity(Predicted(one, None, one), [Target('gap')], Path('parity'), PlotSettings()); "
        f"assert os.environ['MPLBACKEND'] == {backend!r}; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {**os.environ, "MPLBACKEND": backend, "MPLCONFIGDIR": "/proc/none"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert is_figure(tmp_path / "parity.png")


def test_a_target_with_a_grid_shows_its_best_median_and_worst_crystal(tmp_path: Path) -> None:
    dos, truth = Target("dos", "states/eV", grid=(0.0, 0.5, 2.0), grid_unit="eV"), torch.ones(5, 3)
    truth[0, 0] = truth[4] = NAN
    error = torch.tensor([[0.5], [0.2], [0.1], [0.4], [9.0]])
    predicted = Predicted(torch.ones(5, 3) + error, None, truth, ["a", "b", "c", "d", "e"])
    plot = PlotSettings(format=["svg", "png"], reference_label="DFT")
    plot_test(predicted, torch.eye(101)[torch.arange(1, 6)], [dos], tmp_path, plot)
    said = words(tmp_path / "spectra.svg")
    titles = ["best of 4: c", "median of 4: d", "worst of 4: a"]
    assert {*titles, *(f"MAE {error} states/eV" for error in (0.1, 0.4, 0.5))} <= set(said)
    assert {"grid [eV]", "dos [states/eV]", "DFT"} <= set(said)
    assert is_figure(tmp_path / "spectra.png")
    rows = table(tmp_path / "spectra.csv")
    assert [float(row["grid"]) for row in rows] == [0, 0.5, 2]
    assert [float(row["best_predicted"]) for row in rows] == pytest.approx([1.1] * 3)
    assert not (tmp_path / "parity.png").exists()
    assert (tmp_path / "element_errors.png").exists()


def test_a_vector_figure_logs_nothing_about_its_fonts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with panels(tmp_path / "empty", PlotSettings(format="pdf")) as (_, (axes,)):
        axes.set_title("Å")
    assert not caplog.records
