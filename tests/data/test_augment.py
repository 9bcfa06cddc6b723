"""What an augmentation changes, by how much, and what it leaves unchanged."""

import math
from dataclasses import fields

import pytest
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.augment import Augmentation, Augmentations, DistanceNoise, Strain, fading
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore

SIGMA = 0.02
START = torch.tensor(0.0)


@pytest.fixture(scope="module")
def noise_store(dielectric_records: list[Record]) -> GraphStore:
    records, settings = dielectric_records[:60], GraphSettings()
    graphs = connect([to_crystal(record.source) for record in records], settings)
    return GraphStore(graphs, [record.id for record in records], {}, settings)


@pytest.fixture
def batch(noise_store: GraphStore) -> GraphBatch:
    torch.manual_seed(0)
    return noise_store.batch(torch.arange(60))


def test_distance_noise_has_the_given_deviation(batch: GraphBatch) -> None:
    noisy = DistanceNoise(SIGMA)(batch, torch.tensor(0.5))
    # The mean of n draws deviates sqrt(n) times less.
    change = (noisy.distance - batch.distance) * batch.edge_count.sqrt()
    assert change.std().item() == pytest.approx(SIGMA, rel=0.1)
    assert abs(change.mean().item()) < 5 * SIGMA / math.sqrt(len(change))


def test_strain_scales_each_crystal_by_one_factor(batch: GraphBatch) -> None:
    ratio = Strain(SIGMA)(batch, START).distance / batch.distance
    graph = batch.graph_index[batch.edge_index[1]]
    of_graph = torch.stack([ratio[graph == i].mean() for i in range(60)])
    assert torch.allclose(ratio, of_graph[graph], atol=1e-5)
    assert of_graph.std().item() == pytest.approx(SIGMA, rel=0.4)


@pytest.mark.parametrize("noise", [DistanceNoise(SIGMA), Strain(SIGMA)])
def test_only_the_distances_of_the_returned_batch_change(
    batch: GraphBatch, noise: Augmentation
) -> None:
    before = batch.distance.clone()
    noisy = noise(batch, START)
    assert torch.equal(batch.distance, before)
    assert not torch.equal(noisy.distance, before)
    for field in fields(GraphBatch):
        if field.name != "distance":
            assert getattr(noisy, field.name) is getattr(batch, field.name)


def test_noise_fades(batch: GraphBatch) -> None:
    factors = [fading(torch.tensor(progress), 0.5).item() for progress in (0, 0.25, 0.5, 1)]
    assert factors == [1, 0.5, 0, 0]
    assert fading(torch.tensor(0.9), 0) == 1
    for noise in (DistanceNoise(SIGMA, decay=0.5), Strain(SIGMA, decay=0.5)):
        assert torch.equal(noise(batch, torch.tensor(0.6)).distance, batch.distance)


def test_several_act_one_after_the_other(batch: GraphBatch) -> None:
    both = Augmentations({"strain": Strain(SIGMA), "distance_noise": DistanceNoise(SIGMA)})
    torch.manual_seed(1)
    together = both(batch, START).distance
    torch.manual_seed(1)
    one_by_one = DistanceNoise(SIGMA)(Strain(SIGMA)(batch, START), START).distance
    assert torch.equal(together, one_by_one)


def test_noise_does_not_bring_atoms_together(batch: GraphBatch) -> None:
    assert DistanceNoise(100.0)(batch, START).distance.min() > 0.05


@pytest.mark.parametrize("noise", [DistanceNoise(), Strain()])
def test_padding_stays_finite(noise_store: GraphStore, noise: Augmentation) -> None:
    rows = torch.tensor([5, 3, 30])
    n_atoms, n_edges = noise_store.size(rows)
    padded = noise_store.padded(rows, n_atoms + 20, n_edges + 300)
    assert noise(padded, START).distance.isfinite().all()
