import math

import numpy as np
import pytest
import torch

from csgcnn.data.targets import Target
from csgcnn.runs.tables import (
    compared_columns,
    compared_rows,
    predicted_columns,
    predicted_rows,
)

GAP = Target("gap", "eV")
METAL = Target("metal", task="classification", classes=("no", "yes"))
TARGETS = [GAP, METAL]
ROW, STD = np.array([[1.5, 0.25, 0.75]]), np.array([[0.1, 0.01, 0.02]])


def test_columns_of_predictions() -> None:
    assert predicted_columns(TARGETS) == [
        ("gap", "eV"),
        ("metal", ""),
        ("metal_probability_no", ""),
        ("metal_probability_yes", ""),
    ]
    assert [name for name, _ in predicted_columns(TARGETS, with_std=True)] == [
        "gap",
        "gap_std",
        "metal",
        "metal_probability_no",
        "metal_probability_no_std",
        "metal_probability_yes",
        "metal_probability_yes_std",
    ]


def test_cells_of_predictions() -> None:
    assert [*predicted_rows(ROW, TARGETS)] == [[1.5, "yes", 0.25, 0.75]]
    assert [*predicted_rows(ROW, TARGETS, STD)] == [[1.5, 0.1, "yes", 0.25, 0.01, 0.75, 0.02]]


def test_bounds_follow_the_deviation_of_a_number() -> None:
    names = [name for name, _ in predicted_columns(TARGETS, with_std=True, with_bounds=True)]
    assert names[:5] == ["gap", "gap_std", "gap_lower", "gap_upper", "metal"]
    assert not [name for name in names[4:] if name.endswith(("lower", "upper"))]
    bounds = ROW - 2 * STD, ROW + 2 * STD
    (cells,) = predicted_rows(ROW, TARGETS, STD, bounds, with_bounds=True)
    assert cells[:4] == pytest.approx([1.5, 0.1, 1.3, 1.7])
    assert len(cells) == len(names)
    (cells,) = predicted_rows(ROW, TARGETS, None, bounds, with_bounds=True)
    assert cells == pytest.approx([1.5, 1.3, 1.7, "yes", 0.25, 0.75])


@pytest.mark.parametrize("with_std", [False, True])
def test_predictions_beside_known_values(with_std: bool) -> None:
    columns = compared_columns(TARGETS, with_std)
    values = torch.tensor([[1.0, 0.0], [math.nan, math.nan]])
    prediction, std = (torch.from_numpy(part).repeat(2, 1) for part in (ROW, STD))
    known, unknown = (
        dict(zip(columns, row, strict=True))
        for row in compared_rows(prediction, values, TARGETS, std if with_std else None)
    )
    assert known["gap [eV]"] == 1.0
    assert (known["gap_prediction [eV]"], known["gap_error [eV]"]) == (1.5, 0.5)
    assert (known["metal"], known["metal_prediction"]) == ("no", "yes")
    assert known["metal_probability_yes"] == 0.75
    assert ("gap_std [eV]" in known) == with_std
    assert math.isnan(unknown["gap [eV]"])
    assert math.isnan(unknown["gap_error [eV]"])
    assert unknown["metal"] == ""
