"""Tables of predictions, and what a report shows of them."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_table(path: Path, ids: list[str], truth: NDArray[Any], prediction: NDArray[Any]) -> Path:
    """Write a table as predictions.csv of an evaluation: the band gap, in eV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        names = ("band_gap", "band_gap_prediction", "band_gap_error")
        rows.writerow(["id", *(f"{name} [eV]" for name in names), "out_of_domain"])
        for id_, known, found in zip(ids, truth, prediction, strict=True):
            rows.writerow([id_, known, found, found - known, ""])
    return path


def some_predictions(n: int, spread: float, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return known values, which are the same for all seeds, and predictions."""
    truth = np.random.default_rng(0).uniform(0, 5, n)
    return truth, truth + spread * np.random.default_rng(1 + seed).normal(size=n)


def text_of(page: Path) -> str:
    """Return the text of a page as a reader sees it, without charts."""
    content = re.sub(
        r"<(script|style)\b.*?</\1>", " ", page.read_text(encoding="utf-8"), flags=re.S
    )
    return " ".join(re.sub(r"<[^>]+>", " ", content).split())


def embedded(page: Path) -> list[Any]:
    """Return charts, points and structures of a page."""
    content = page.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', content, re.S)
    return [json.loads(text) for text in found]
