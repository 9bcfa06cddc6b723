"""The weights that come with the package: what they know, and what they have not seen."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

import csgcnn
from csgcnn.config.locations import PRETRAINED
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.site_features.potential import potential_of
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.store import GraphStore
from csgcnn.data.training_set import TrainingSet
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.runs.models import load_model


@pytest.fixture(name="known", scope="module")
def training_set() -> TrainingSet:
    return TrainingSet.from_plain(None, load_checkpoint(PRETRAINED)["fingerprints"])


def n_known(known: TrainingSet, records: Sequence[Record]) -> int:
    settings = GraphSettings()
    graphs = connect([to_crystal(record.source) for record in records], settings)
    store = GraphStore(graphs, [record.id for record in records], {}, settings)
    return sum(map(bool, known.contains(store, torch.arange(len(store)))))


def test_the_file_is_smaller_than_two_megabytes() -> None:
    assert PRETRAINED.stat().st_size < 2e6


def test_no_crystal_of_the_sets_with_reported_gains_was_trained_on(
    known: TrainingSet, dielectric_records: list[Record], elastic_records: list[Record]
) -> None:
    assert n_known(known, dielectric_records) == 0
    assert n_known(known, elastic_records) == 0


def test_crystals_of_the_formation_energies_were_trained_on(
    known: TrainingSet, formation_energy_records: list[Record]
) -> None:
    assert 40 < n_known(known, formation_energy_records[:100]) < 100


def test_the_band_gaps_of_unseen_crystals_are_predicted(dielectric_records: list[Record]) -> None:
    some = dielectric_records[::20]
    gaps = np.array([record.columns["band_gap"] for record in some])
    predicted = csgcnn.load(PRETRAINED).predict([record.source for record in some])
    assert np.corrcoef(predicted[:, 0], gaps)[0, 1] > 0.85


def test_its_site_features_are_the_atom_features_of_the_network(
    dielectric_records: list[Record],
) -> None:
    crystals = [to_crystal(record.source) for record in dielectric_records[:3]]
    potential = potential_of("pretrained")
    features = potential.compute(crystals, "cpu")
    assert features.shape == (sum(len(one.atomic_number) for one in crystals), 3, 64)
    model = load_model([PRETRAINED])
    store = GraphStore(connect(crystals, model.graph), ["a", "b", "c"], {}, model.graph)
    with torch.no_grad():
        nodes = [model.network.atom_features(store.batch(torch.tensor([i])))[-1] for i in range(3)]
    sites = np.concatenate([store.site_values(one, i).numpy() for i, one in enumerate(nodes)])
    np.testing.assert_allclose(features[:, -1], sites, atol=1e-5)


def test_it_knows_the_elements_of_its_training_rows() -> None:
    assert potential_of("pretrained").elements == {*load_checkpoint(PRETRAINED)["elements"]}
