import numpy as np
import pytest
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.elements import elemental
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.transforms import SAME_CRYSTAL
from csgcnn.data.composition_model import composition_features, fit_ridge
from csgcnn.data.store import GraphStore


def test_features_are_fractions_means_and_standard_deviations(store: GraphStore) -> None:
    features = composition_features(store)
    assert features.shape == (60, 301)
    assert torch.allclose(features[:, :101].sum(1), torch.ones(60, dtype=torch.float64))
    for row in range(0, 60, 6):
        first, last = (int(store.graphs.n_atoms[:end].sum()) for end in (row, row + 1))
        z = np.repeat(
            store.graphs.atomic_number[first:last],
            store.graphs.atom_multiplicity[first:last].astype(int),
        )
        properties = elemental()[z].astype(float)
        assert np.allclose(features[row, 101:109], properties.mean(0), atol=1e-6)
        assert np.allclose(features[row, 201:209], properties.std(0), atol=1e-6)


def test_every_description_of_a_crystal_has_the_same_features(
    ideal_crystals: dict[str, Crystal],
) -> None:
    crystals, rng = list(ideal_crystals.values()), np.random.default_rng(0)
    supercells = [SAME_CRYSTAL["2x1x1 supercell"](crystal, rng) for crystal in crystals]
    found = []
    for described, compress in ((crystals, True), (crystals, False), (supercells, True)):
        settings = GraphSettings(cutoff=4, compress=compress)
        graphs = connect([crystal for crystal in described if crystal], settings)
        store = GraphStore(graphs, [*map(str, range(len(crystals)))], {}, settings)
        found.append(composition_features(store))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_ridge_regression_finds_a_linear_property(store: GraphStore) -> None:
    features = composition_features(store)
    labels = 3 * features[:, 103] + 7
    fit = fit_ridge(features, labels)
    error = features @ fit.weight + fit.bias - labels
    assert error.abs().max() < 0.01 * labels.std()


def test_leave_one_out_equals_fits_without_each_row() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 6, generator=generator).double()
    y = x @ torch.randn(6, generator=generator).double() + 0.3
    y += 0.2 * torch.randn(40, generator=generator).double()
    fit = fit_ridge(x, y)
    for row in (0, 17):
        others = torch.arange(40) != row
        design = torch.cat([x[others], torch.ones(39, 1).double()], 1)
        weights = torch.linalg.lstsq(design, y[others, None]).solution.squeeze(1)
        expected = x[row] @ weights[:-1] + weights[-1]
        assert fit.left_out[row].item() == pytest.approx(expected.item(), abs=0.01)
    assert 0 < fit.leverage.min() < fit.leverage.max() < 1
