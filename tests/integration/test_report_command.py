"""`csgcnn report` of runs, and the page of `csgcnn describe`."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answers import Answer
from report_pages import embedded, text_of

Command = Callable[..., Answer]
Record = dict[str, Any]


@pytest.fixture(scope="module")
def home(csgcnn: Command, records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "data.json").write_text(json.dumps(records))
    for seed in (0, 1):
        answer = csgcnn(
            *("train", "dataset.path=data.json", "dataset.targets=[band_gap]", f"seed={seed}"),
            *("trainer.max_epochs=1", "dataset.units.band_gap=eV", "trainer.figures=false"),
            f"hydra.run.dir=runs/seed-{seed}",
            cwd=folder,
        )
        assert answer.code == 0, answer.said
    return folder


def test_a_run(csgcnn: Command, home: Path) -> None:
    answer = csgcnn("report", "runs/seed-0", cwd=home)
    assert answer.code == 0, answer.said
    page = home / "runs/seed-0/report.html"
    assert Path(answer.out.strip()) == Path("runs/seed-0/report.html")
    mae = json.loads((home / "runs/seed-0/metrics.json").read_text())["test"]["band_gap"]["mae"]
    text = text_of(page)
    for part in (f"MAE {mae:.3g} eV", "composition alone", "predicting the mean", "Leakage.",
                 "By element", "By crystal system", "By distance to the training set",
                 "Validation MAE", "dataset.path",
                 "holds the crystals of the training (checked)"):  # fmt: skip
        assert part in text
    structures = [
        item for item in embedded(page) if any("scatter3d" in str(v) for v in item.values())
    ]
    assert structures
    points = next(item for item in embedded(page) if "formula" in item)
    assert all(points["formula"])


def test_contributions_color_the_atoms(csgcnn: Command, home: Path) -> None:
    words = ("explain", "ckpt=runs/seed-1", "structures=data.json", "device=cpu")
    answer = csgcnn(*words, "output=runs/seed-1/explanation", cwd=home)
    assert answer.code == 0, answer.said
    answer = csgcnn("report", "runs/seed-1", cwd=home)
    assert answer.code == 0, answer.said
    page = home / "runs/seed-1/report.html"
    assert "Colors of atoms are their contributions" in text_of(page)
    structures = next(item for item in embedded(page) if "scatter3d" in str([*item.values()][:1]))
    for traces in structures.values():
        assert any("coloraxis" in trace.get("marker", {}) for trace in traces)


def test_runs_are_compared(csgcnn: Command, home: Path) -> None:
    answer = csgcnn("report", "runs", "output=both.html", cwd=home)
    assert answer.code == 0, answer.said
    text = text_of(home / "both.html")
    for part in ("2 models compared", "seed=0", "seed=1", "Paired differences",
                 "Errors against each other", "First of the table: seed-"):  # fmt: skip
        assert part in text


def test_structures_must_be_those_of_the_training(csgcnn: Command, home: Path) -> None:
    data = home / "data.json"
    content = data.read_text()
    try:
        data.write_text(re.sub(r'"band_gap": [\d.]+', '"band_gap": 9.0', content, count=1))
        assert csgcnn("report", "runs/seed-1", "output=a.html", cwd=home).code == 0
        text = text_of(home / "a.html")
        assert "no longer holds the data of the training. Give structures=PATH" in text
        data.rename(home / "moved.json")
        assert csgcnn("report", "runs/seed-1", "output=a.html", cwd=home).code == 0
        assert "No structures: no data at" in text_of(home / "a.html")
        (home / "moved.json").write_text(content)
        words = ("report", "runs/seed-1", "structures=moved.json", "output=a.html")
        assert csgcnn(*words, cwd=home).code == 0
        assert "moved.json, which holds the crystals of the training" in text_of(home / "a.html")
        table = "runs/seed-1/predictions.csv"
        words = ("report", table, "structures=moved.json", "output=a.html")
        assert csgcnn(*words, cwd=home).code == 0
        assert "They were not compared with the predicted ones" in text_of(home / "a.html")
    finally:
        data.write_text(content)


def test_an_evaluation(csgcnn: Command, home: Path) -> None:
    words = ("evaluate", "ckpt=runs/seed-0", "dataset.path=data.json", "output=evaluation")
    assert csgcnn(*words, "split=test", "device=cpu", cwd=home).code == 0
    answer = csgcnn("report", "evaluation", cwd=home)
    assert answer.code == 0, answer.said
    assert "evaluation:" in text_of(home / "evaluation/report.html")


def test_an_unfinished_run_is_refused(csgcnn: Command, home: Path) -> None:
    (home / "started").mkdir(exist_ok=True)
    (home / "started/config.yaml").write_text("seed: 0\n")
    answer = csgcnn("report", "started", cwd=home)
    assert answer.code == 1
    assert "started has no predictions.csv: the run is not finished" in answer.err


def test_the_page_of_a_data_set(csgcnn: Command, home: Path) -> None:
    words = ("describe", "dataset.path=data.json", "dataset.targets=[band_gap]")
    answer = csgcnn(*words, "output=data.html", "workers=1", cwd=home)
    assert answer.code == 0, answer.said
    text = text_of(home / "data.html")
    for part in ("Data report data.json", "usable crystals 60", "Labels.", "Elements", "density"):
        assert part in text
