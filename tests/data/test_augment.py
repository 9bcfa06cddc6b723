"""What an augmentation changes, by how much, and what it leaves unchanged."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.descriptors import descriptors
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
    # The mean of n draws deviates sqrt(n) times less. An edge between equivalent sites stands for
    # both directions of its distances.
    neighbor, center = batch.edge_index
    n_draws = (batch.edge_count / torch.where(neighbor == center, 2, 1)).clamp(min=1)
    change = (noisy.distance - batch.distance) * n_draws.sqrt()
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
    changed = {"distance", "global_features"} if isinstance(noise, Strain) else {"distance"}
    for field in fields(GraphBatch):
        if field.name not in changed:
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


def test_noise_is_the_same_in_both_directions_of_a_distance(
    dielectric_records: list[Record],
) -> None:
    settings = GraphSettings(compress=False)
    graphs = connect([to_crystal(record.source) for record in dielectric_records[:20]], settings)
    batch = GraphStore(graphs, [str(i) for i in range(20)], {}, settings).batch(torch.arange(20))
    torch.manual_seed(0)
    noisy = DistanceNoise(SIGMA)(batch, START).distance
    drawn: dict[tuple[int, int, float], list[float]] = {}
    for (j, i), before, after in zip(
        batch.edge_index.T.tolist(), batch.distance.tolist(), noisy.tolist(), strict=True
    ):
        drawn.setdefault((i, j, round(before, 2)), []).append(after - before)
    pairs = [(key, sorted(noise)) for key, noise in drawn.items() if key[0] < key[1]]
    both = [(noise, sorted(drawn[j, i, d])) for (i, j, d), noise in pairs if (j, i, d) in drawn]
    assert len(both) > 50
    whole = [(one, other) for one, other in both if len(one) == len(other)]
    assert len(whole) > 0.9 * len(both)
    for one, other in whole:
        assert one == pytest.approx(other, abs=1e-5)
    # Other distances have other draws.
    assert len({round(one[0], 5) for one, _ in both}) > 0.9 * len(both)
    # So have the images of an atom, which come in opposite pairs.
    images = [sorted(noise) for (i, j, _), noise in drawn.items() if i == j and len(noise) == 2]
    assert images
    assert all(one == pytest.approx(other, abs=1e-5) for one, other in images)


@pytest.mark.parametrize("features", ["density", "lattice", "symmetry", "composition"])
def test_strain_changes_the_descriptors_as_a_strained_crystal_has_them(
    features: str, dielectric_records: list[Record]
) -> None:
    settings = GraphSettings(global_features=(features,))
    crystals = [to_crystal(record.source) for record in dielectric_records[:8]]
    ids = [record.id for record in dielectric_records[:8]]
    batch = GraphStore(connect(crystals, settings), ids, {}, settings).batch(torch.arange(8))
    torch.manual_seed(0)
    strained = Strain(0.05)(batch, START)
    graph = batch.graph_index[batch.edge_index[1]]
    ratio = strained.distance / batch.distance
    stretch = torch.stack([ratio[graph == i].mean() for i in range(8)]).tolist()
    assert max(stretch) / min(stretch) > 1.03
    expected = [
        descriptors(
            Crystal(crystal.lattice * factor, crystal.atomic_number, crystal.frac_coords),
            (features,),
        )
        for crystal, factor in zip(crystals, stretch, strict=True)
    ]
    expected = torch.tensor(np.stack(expected))
    torch.testing.assert_close(strained.global_features, expected, rtol=1e-4, atol=1e-3)
