import pytest
import torch
from torch import Tensor

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.composition_model import composition_features
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.evaluation.baselines import (
    composition_metrics,
    predict_by_composition,
)


@pytest.fixture(scope="module")
def store(dielectric_records: list[Record]) -> GraphStore:
    """Two hundred small real crystals as compressed graphs."""
    crystals = [to_crystal(record.source) for record in dielectric_records]
    small = [crystal for crystal in crystals if len(crystal.atomic_number) <= 6][:200]
    graphs = connect(small, GraphSettings(cutoff=4))
    return GraphStore(graphs, [str(i) for i in range(200)], {}, GraphSettings(cutoff=4))


@pytest.fixture(scope="module")
def split() -> Split:
    parts = torch.randperm(200, generator=torch.Generator().manual_seed(0)).split([140, 20, 40])
    return dict(zip(("train", "val", "test"), parts, strict=True))


def mean_radius(features: Tensor) -> Tensor:
    return features[:, 103]


def test_ridge_regression_fits_a_linear_property_without_test_labels(
    store: GraphStore, split: Split
) -> None:
    features = composition_features(store)
    labels = 3 * mean_radius(features) + 7
    hidden = labels.clone()
    hidden[split["test"]] = 1e6
    hidden[split["train"][:5]] = torch.nan
    prediction = predict_by_composition(features, hidden.float(), split)
    error = (prediction[:, 0] - labels[split["test"]]).abs().mean()
    assert prediction.shape == (40, 1)
    assert error < 0.05 * labels.std()


def test_logistic_regression_predicts_probabilities(store: GraphStore, split: Split) -> None:
    features = composition_features(store)
    labels = (mean_radius(features) > mean_radius(features).median()).float()
    prediction = predict_by_composition(features, labels, split, n_classes=2)
    assert torch.allclose(prediction.sum(1), torch.ones(40))
    assert (prediction.argmax(1) == labels[split["test"]]).float().mean() >= 0.85


def test_metrics_of_the_composition_need_no_validation_rows(
    store: GraphStore, split: Split
) -> None:
    features = composition_features(store)
    values = mean_radius(features).float().unsqueeze(1)
    final = {**split, "val": split["val"][:0]}
    target = Target("radius", "pm")
    width = values.std().item()
    for parts in (split, final):
        found = composition_metrics(features, values, parts, [target])["radius"]
        assert found["n"] == 40
        assert found["mae"] < 0.05 * width
