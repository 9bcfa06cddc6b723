"""Outliers, similar crystals and contradicting labels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import connect
from csgcnn.data.composition_model import composition_features
from csgcnn.data.dataset import Dataset
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.evaluation.data_findings import (
    conflicts,
    duplicate_groups,
    fit_compositions,
    outliers,
    similar_pairs,
)


def store_of(crystals: list[Crystal]) -> GraphStore:
    ids = [f"c{row}" for row in range(len(crystals))]
    return GraphStore(connect(crystals, GraphSettings()), ids, {}, GraphSettings())


def test_outliers_are_measured_in_robust_standard_deviations() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).double()
    values[[3, 7]] = torch.tensor([100.0, -8.0]).double()
    found = outliers(values, torch.zeros(1000).double(), [f"c{i}" for i in range(1000)])
    assert [outlier.id for outlier in found] == ["c3", "c7"]
    assert found[0].value == 100
    assert found[0].z == pytest.approx(100, rel=0.1)
    assert found[1].z == pytest.approx(-8, rel=0.1)


def test_outliers_of_values_that_are_mostly_zero() -> None:
    values = torch.zeros(100).double()
    values[5] = 1.0
    assert [outlier.id for outlier in outliers(values, 0 * values, list("x" * 100))] == ["x"]
    assert outliers(0 * values, 0 * values, list("x" * 100)) == []


def test_a_value_unlike_its_composition_is_found(real_crystals: dict[str, Crystal]) -> None:
    store = store_of(list(real_crystals.values())[:100])
    rows, features = torch.arange(100), composition_features(store)
    values = features[:, 101:104].sum(1)
    values[11] += 20 * values.std()
    fit = fit_compositions(store, rows, values, features)
    assert fit is not None
    assert fit.outliers[0].id == "c11"
    assert fit.n == 100
    assert fit_compositions(store, rows[:20], values[:20], features) is None
    assert fit_compositions(store, rows, 0 * values, features) is None


def test_similar_crystals_are_not_equal(ideal_crystals: dict[str, Crystal]) -> None:
    salt, perovskite = ideal_crystals["rock_salt"], ideal_crystals["perovskite"]
    crystals = [salt, perovskite, ideal_crystals["rock_salt_conventional"]]
    crystals += [c._replace(lattice=factor * c.lattice) for factor in (1.003, 1.1) for c in (salt,)]
    store = store_of(crystals)
    assert duplicate_groups(store) == [[0, 2]]
    assert similar_pairs(store) == [(0, 3), (2, 3)]


def test_labels_of_equal_and_similar_crystals_may_not_differ(
    ideal_crystals: dict[str, Crystal],
) -> None:
    salt = ideal_crystals["rock_salt"]
    near = salt._replace(lattice=1.003 * salt.lattice)
    crystals = [salt, salt, near, *list(ideal_crystals.values())[:3]]
    store = store_of(crystals)
    targets = [Target("gap"), Target("kind", task="classification", classes=("a", "b"))]
    values = torch.tensor([[1.0, 0], [5, 0], [1, 1], [2, 1], [3, 1], [np.nan, 1]])
    dataset = Dataset(store, targets, values, torch.arange(6), [])
    groups, similar = duplicate_groups(store), similar_pairs(store)
    found = conflicts(dataset, groups, similar, 0.25)
    assert [(c.target, c.kind, c.ids, c.values) for c in found] == [
        ("gap", "equal", ("c0", "c1"), (1.0, 5.0)),
        ("gap", "similar", ("c2", "c1"), (1.0, 5.0)),
        ("kind", "similar", ("c0", "c2"), ("a", "b")),
        ("kind", "similar", ("c1", "c2"), ("a", "b")),
    ]
    assert {c.target for c in conflicts(dataset, groups, similar, 10.0)} == {"kind"}


def test_a_single_crystal_is_similar_to_none(store_with: Callable[..., GraphStore]) -> None:
    assert similar_pairs(store_with({"gap": [0.0]})) == []
