"""Reports of tables: what is on the page."""

import re
from pathlib import Path

import numpy as np
import pytest
from report_pages import embedded, some_predictions, text_of, write_table

import csgcnn

N = 200
IDS = [f"crystal-{i}" for i in range(N)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "predictions.csv", IDS, *some_predictions(N, 0.2))


def test_the_answer_stands_first_with_unit_and_baseline(table: Path) -> None:
    truth, prediction = some_predictions(N, 0.2)
    page = csgcnn.report(table)
    assert page == table.with_name("report.html")
    text = text_of(page)
    mae, constant = np.abs(prediction - truth).mean(), np.abs(truth - truth.mean()).mean()
    assert f"MAE {mae:.3g} eV" in text
    assert f"predicting the mean of these crystals {constant:.3g} eV" in text
    assert "All crystals are in the domain" in text
    assert "structures=PATH adds them" in text


def test_the_page_is_one_file_that_loads_nothing(table: Path) -> None:
    page = csgcnn.report(table)
    content = page.read_text(encoding="utf-8")
    assert len(content) < 8e6
    assert "default-src 'none'" in content
    assert not re.search(r"<(script|img|iframe)[^>]+src=|<link", content)


def test_ids_cannot_change_the_page(tmp_path: Path) -> None:
    ids = ["</script><script>alert(1)</script>", "<b>bold</b>", *IDS[2:]]
    table = write_table(tmp_path / "a.csv", ids, *some_predictions(N, 0.2))
    page = csgcnn.report(table, output=tmp_path / "a.html")
    assert "<script>alert" not in page.read_text(encoding="utf-8")
    points = next(item for item in embedded(page) if isinstance(item, dict) and "id" in item)
    assert set(points["id"]) == set(ids)


def test_the_largest_errors_come_first(table: Path) -> None:
    points = next(item for item in embedded(csgcnn.report(table)) if "loss" in item)
    truth, prediction = some_predictions(N, 0.2)
    assert points["id"][0] == IDS[np.abs(prediction - truth).argmax()]
    assert points["loss"] == sorted(points["loss"], reverse=True)


def test_many_rows_are_thinned_and_drawn_by_webgl(tmp_path: Path) -> None:
    n = 30_000
    table = write_table(tmp_path / "a.csv", [str(i) for i in range(n)], *some_predictions(n, 0.2))
    page = csgcnn.report(table)
    assert "20,000 of 30,000 crystals: the largest errors, and others at random" in text_of(page)
    parity = next(item for item in embedded(page) if "dragmode" in item.get("layout", {}))
    assert parity["data"][1]["type"] == "scattergl"
    assert len(parity["data"][1]["x"]) == 20_000


def test_classes(tmp_path: Path) -> None:
    rows = ["id,is_metal,is_metal_prediction,is_metal_probability_0,is_metal_probability_1"]
    rows += [f"a{i},{i % 2},{int(i % 5 > 1)},{0.2 + 0.6 * (i % 5 < 2)},{0.8 - 0.6 * (i % 5 < 2)}"
             for i in range(20)]  # fmt: skip
    table = tmp_path / "predictions.csv"
    table.write_text("\n".join(rows))
    text = text_of(csgcnn.report(table))
    for part in ("accuracy 0.5", "always the most frequent class", "Confusion matrix", "ROC",
                 "Precision and recall", "Calibration", "By class"):  # fmt: skip
        assert part in text


def test_standard_deviations_are_compared_with_the_errors(tmp_path: Path) -> None:
    truth, prediction = some_predictions(N, 0.2)
    rows = ["id,gap [eV],gap_prediction [eV],gap_error [eV],gap_std [eV]"]
    rows += [
        f"a{i},{t},{p},{p - t},0.02" for i, (t, p) in enumerate(zip(truth, prediction, strict=True))
    ]
    table = tmp_path / "predictions.csv"
    table.write_text("\n".join(rows))
    text = text_of(csgcnn.report(table))
    within = (np.abs(prediction - truth) <= 0.02).mean()
    assert f"{within:.0%} of the errors of gap are within one standard deviation (68 %)" in text
    assert "Calibration" in text


def test_the_curves_of_the_members_of_an_ensemble_are_not_joined(table: Path) -> None:
    lines = ["member,epoch,train_loss", "0,1,3.0", "0,2,2.0", "1,1,4.0"]
    (table.parent / "metrics.csv").write_text("\n".join(lines))
    charts = [item for item in embedded(csgcnn.report(table.parent)) if "data" in item]
    (curve,) = next(c["data"] for c in charts if c["data"][0].get("name") == "training")
    assert (curve["x"], curve["y"]) == ([1, 2, None, 1], [3, 2, None, 4])


def test_models_without_errors_are_compared(tmp_path: Path) -> None:
    exact = [
        write_table(tmp_path / name, IDS, *some_predictions(N, 0)) for name in ("a.csv", "b.csv")
    ]
    assert "no difference" in text_of(csgcnn.report(*exact))


def test_models_are_compared_on_the_same_crystals(tmp_path: Path) -> None:
    good = write_table(tmp_path / "good.csv", IDS, *some_predictions(N, 0.1, seed=1))
    poor = write_table(tmp_path / "poor.csv", IDS[50:], *(
        column[50:] for column in some_predictions(N, 0.4, seed=2)
    ))  # fmt: skip
    page = csgcnn.report(poor, good, output=tmp_path / "both.html")
    text = text_of(page)
    truth, prediction = some_predictions(N, 0.1, seed=1)
    other = some_predictions(N, 0.4, seed=2)[1]
    difference = (np.abs(other - truth) - np.abs(prediction - truth))[50:].mean()
    assert "2 models compared" in text
    assert text.index("1 good.csv") < text.index("2 poor.csv")
    assert re.search(rf"poor\.csv \{difference:+.3g} \+0\.\d+ to \+0\.\d+ \d+% 150 larger", text)
    assert "First of the table: good.csv" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,band_gap [eV]\na,1.0\n", "no known values beside predictions"),
        ("", "cannot be read as a table"),
        ("id,gap_prediction\na,1\n", "the column gap is missing"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(csgcnn.UserError, match=message):
        csgcnn.report(tmp_path / "a.csv")
    assert not (tmp_path / "report.html").exists()


def test_other_places_are_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(csgcnn.ConfigError, match=r"ends in \.html"):
        csgcnn.report(table, output=tmp_path / "a.pdf")
    with pytest.raises(csgcnn.UserError, match="there is no folder"):
        csgcnn.report(table, output=tmp_path / "no" / "a.html")
    with pytest.raises(csgcnn.UserError, match="no finished run"):
        csgcnn.report(_made(tmp_path / "empty"))
    with pytest.raises(csgcnn.UserError, match="there is no folder"):
        csgcnn.report(tmp_path / "absent")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
