import pytest
import torch

from csgcnn.data.embeddings import MAX_BYTES, Embeddings, is_plain, spread_rows


def random_vectors(n_rows: int, n_features: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_rows, n_features, generator=torch.Generator().manual_seed(seed))


def names(n_rows: int) -> list[str]:
    return [f"c{i}" for i in range(n_rows)]


def test_the_nearest_crystal_does_not_depend_on_the_widths_of_features() -> None:
    train, val, new = (random_vectors(n, seed=n) for n in (50, 40, 30))
    width = torch.tensor([1e-3, 1.0, 10.0, 1e3])
    one = Embeddings.of(names(50), train, val).nearest(new)
    other = Embeddings.of(names(50), train * width + 5, val * width + 5).nearest(new * width + 5)
    distance = torch.cdist(new / train.std(0, correction=0), train / train.std(0, correction=0))
    assert one.ids == other.ids == [f"c{i}" for i in distance.argmin(1).tolist()]
    assert one.distance == pytest.approx(distance.amin(1).tolist(), abs=0.01)
    assert other.distance == pytest.approx(one.distance, abs=0.01)


def test_a_training_crystal_is_its_own_nearest_one() -> None:
    train = random_vectors(50)
    found = Embeddings.of(names(50), train, train[:0]).nearest(train)
    assert found.ids == names(50)
    assert found.distance == [0.0] * 50


def test_percentiles_are_those_of_validation_crystals() -> None:
    train, val = random_vectors(50), random_vectors(101, seed=1)
    embeddings = Embeddings.of(names(50), train, val)
    percentile = embeddings.nearest(val).percentile
    assert sorted(percentile) == pytest.approx(list(range(101)), abs=0.1)
    reasons = embeddings.nearest(torch.cat([val[:3], torch.full((1, 4), 1e9)])).reasons
    assert reasons[3].startswith("far_from_training:")
    assert sum(map(bool, embeddings.nearest(val).reasons)) == 1
    unknown = Embeddings.of(names(50), train, val[:0]).nearest(val)
    assert all(value != value for value in unknown.percentile)
    assert not any(unknown.reasons)


def test_unusual_vectors_have_a_distance() -> None:
    embeddings = Embeddings.of(names(50), random_vectors(50), random_vectors(20, seed=1))
    found = embeddings.nearest(torch.tensor([[torch.nan] * 4, [torch.inf] * 4, [-1e30] * 4]))
    assert all(1e4 < distance < 1e9 for distance in found.distance)
    constant = Embeddings.of(names(5), torch.ones(5, 3), torch.ones(2, 3))
    assert constant.nearest(torch.ones(1, 3)).distance == [0.0]
    assert embeddings.nearest(torch.empty(0, 4)).ids == []


def test_chosen_rows_are_spread() -> None:
    clusters = torch.tensor([[0.0, 0], [0, 9], [9, 0], [9, 9]]).repeat(25, 1)
    rows = spread_rows(clusters + 0.1 * random_vectors(100, 2), 4)
    assert {tuple(row) for row in clusters[rows].tolist()} == {(0, 0), (0, 9), (9, 0), (9, 9)}
    assert spread_rows(clusters, 10).tolist() == sorted(spread_rows(clusters, 10).tolist())
    assert len(spread_rows(clusters, 10)) == 4, "copies are left out"
    assert spread_rows(clusters, 100).tolist() == list(range(100))


def test_wide_embeddings_are_stored_in_two_megabytes() -> None:
    embeddings = Embeddings.of(names(300), random_vectors(300, 5000), random_vectors(3, 5000, 1))
    assert embeddings.vectors.nbytes <= MAX_BYTES
    assert len(embeddings.ids) == len(embeddings.vectors) == 200


def test_a_checkpoint_holds_them_as_plain_data() -> None:
    embeddings = Embeddings.of(names(50), random_vectors(50), random_vectors(20, seed=1))
    plain, new = embeddings.plain(), random_vectors(9, seed=2)
    read = Embeddings.from_plain(plain)
    assert is_plain(plain)
    assert read
    assert read.nearest(new) == embeddings.nearest(new)
    wrong = ["ids", "vectors", "mean", "scale", "percentiles"]
    assert not any(is_plain({**plain, name: None}) for name in wrong)
    assert not any(is_plain({**plain, name: plain[name][:3]}) for name in wrong)
    assert not is_plain({**plain, "mean": torch.full((4,), torch.nan)})
