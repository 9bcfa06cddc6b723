"""Noise on batches: what it changes, by how much, and what it leaves alone."""

import math

import pytest
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import to_crystal
from csgcnn.crystals.datasets import Record
from csgcnn.crystals.graphs import connect
from csgcnn.data.augment import Augmentations, CoordinateNoise, DistanceNoise, Strain, fading
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore

SIGMA = 0.02


def batch_of(records: list[Record], **settings: bool) -> GraphBatch:
    crystals = [to_crystal(record.source) for record in records[:60]]
    graphs = connect(crystals, GraphSettings(**settings))
    return GraphStore(
        graphs, [record.id for record in records[:60]], {}, GraphSettings(**settings)
    ).batch(torch.arange(60))


@pytest.fixture
def batch(dielectric_records: list[Record]) -> GraphBatch:
    torch.manual_seed(0)
    return batch_of(dielectric_records)


@pytest.fixture
def full(dielectric_records: list[Record]) -> GraphBatch:
    torch.manual_seed(0)
    return batch_of(dielectric_records, compress=False, vectors=True)


def test_vectors_are_those_of_the_distances(full: GraphBatch) -> None:
    assert torch.allclose(full.edge_vector.norm(dim=1), full.distance, atol=1e-5)
    center_sum = torch.zeros(len(full.atomic_number), 3).index_add(
        0, full.edge_index[1], full.edge_vector
    )
    assert (center_sum.norm(dim=1) < 1e-4).any()  # inversion centers: the vectors of a site cancel


def test_distance_noise_has_its_deviation_and_leaves_the_rest(batch: GraphBatch) -> None:
    before = batch.distance.clone()
    noisy = DistanceNoise(SIGMA)(batch, progress=torch.tensor(0.5))
    change = (
        noisy.distance - before
    ) * batch.edge_count.sqrt()  # the mean of n draws deviates sqrt(n) times less
    assert change.std().item() == pytest.approx(SIGMA, rel=0.1)
    assert abs(change.mean().item()) < 5 * SIGMA / math.sqrt(len(change))
    assert torch.equal(batch.distance, before)
    assert noisy.edge_index is batch.edge_index


def test_strain_stretches_each_crystal_as_one(batch: GraphBatch) -> None:
    ratio = Strain(SIGMA)(batch, progress=torch.tensor(0.0)).distance / batch.distance
    graph = batch.graph_index[batch.edge_index[1]]
    of_graph = torch.stack([ratio[graph == i].mean() for i in range(60)])
    assert torch.allclose(ratio, of_graph[graph], atol=1e-5)
    assert of_graph.std().item() == pytest.approx(SIGMA, rel=0.4)


def test_coordinate_noise_moves_atoms_and_not_images_against_their_atom(full: GraphBatch) -> None:
    noisy = CoordinateNoise(SIGMA)(full, progress=torch.tensor(0.0))
    neighbor, center = full.edge_index
    image = neighbor == center
    assert image.any()
    assert torch.allclose(noisy.distance[image], full.distance[image], atol=1e-5)
    moved = noisy.edge_vector - full.edge_vector
    assert moved[~image].std().item() == pytest.approx(SIGMA * math.sqrt(2), rel=0.15)
    assert torch.allclose(noisy.edge_vector.norm(dim=1), noisy.distance)


def test_noise_fades(batch: GraphBatch) -> None:
    assert [fading(torch.tensor(progress), 0.5).item() for progress in (0, 0.25, 0.5, 1)] == [
        1,
        0.5,
        0,
        0,
    ]
    assert fading(torch.tensor(0.9), 0) == 1
    assert torch.equal(
        DistanceNoise(SIGMA, decay=0.5)(batch, progress=torch.tensor(0.6)).distance, batch.distance
    )


def test_several_act_one_after_the_other(batch: GraphBatch) -> None:
    both = Augmentations({"strain": Strain(SIGMA), "distance_noise": DistanceNoise(SIGMA)})
    torch.manual_seed(1)
    together = both(batch, torch.tensor(0.0)).distance
    torch.manual_seed(1)
    one_by_one = DistanceNoise(SIGMA)(
        Strain(SIGMA)(batch, torch.tensor(0.0)), torch.tensor(0.0)
    ).distance
    assert torch.equal(together, one_by_one)


def test_no_noise_brings_atoms_together(batch: GraphBatch) -> None:
    assert DistanceNoise(100.0)(batch, torch.tensor(0.0)).distance.min() > 0.05
