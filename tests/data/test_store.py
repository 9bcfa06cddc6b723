import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graphs import CrystalGraphs, connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore, open_store
from csgcnn.errors import UserError

BatchCheck = Callable[[GraphBatch, GraphBatch], None]


def concatenated(singles: list[GraphBatch]) -> GraphBatch:
    first_atom = np.cumsum([0, *(len(single.atomic_number) for single in singles)]).tolist()
    joined = {
        name: torch.cat([getattr(single, name) for single in singles])
        for name in (
            "atomic_number",
            "atom_multiplicity",
            "site_features",
            "distance",
            "edge_multiplicity",
            "global_features",
        )
    }
    edges = [single.edge_index + shift for single, shift in zip(singles, first_atom, strict=False)]
    graph = [single.graph_index + number for number, single in enumerate(singles)]
    return GraphBatch(
        **joined,
        graph_index=torch.cat(graph),
        edge_index=torch.cat(edges, 1),
        n_graphs=len(singles),
    )


@pytest.mark.parametrize(
    "pick",
    [list(range(28)), [27, 0, 5, 11, 12, 3], [0], [12, 11, 0, 27], [7, 7, 2, 7], []],
    ids=["all", "shuffled", "one without edges", "only without edges", "repeated", "none"],
)
def test_a_batch_holds_its_crystals_end_to_end(
    mixed_store: GraphStore, assert_equal_batches: BatchCheck, pick: list[int]
) -> None:
    batch = mixed_store.batch(torch.tensor(pick, dtype=torch.long))
    if pick:
        singles = [mixed_store.batch(torch.tensor([i])) for i in pick]
        assert_equal_batches(batch, concatenated(singles))
        assert batch.n_sites.tolist() == mixed_store.graphs.n_sites[pick].tolist()
        assert (batch.edge_index[1].diff() >= 0).all()
    assert len(batch) == len(pick)
    assert len(batch.atomic_number) == mixed_store.graphs.n_atoms[pick].sum()


def test_a_batch_of_one_crystal_is_a_slice_of_the_packed_arrays(mixed_store: GraphStore) -> None:
    graphs = mixed_store.graphs
    for i in (0, 4, 11, 26, 27):
        single = mixed_store.batch(torch.tensor([i]))
        atoms = slice(graphs.n_atoms[:i].sum(), graphs.n_atoms[: i + 1].sum())
        edges = slice(graphs.n_edges[:i].sum(), graphs.n_edges[: i + 1].sum())
        assert single.atomic_number.tolist() == graphs.atomic_number[atoms].tolist()
        assert single.atom_multiplicity.tolist() == graphs.atom_multiplicity[atoms].tolist()
        assert single.edge_index.tolist() == graphs.edge_index[:, edges].tolist()
        assert single.distance.tolist() == graphs.distance[edges].tolist()
        assert single.edge_multiplicity.tolist() == graphs.edge_multiplicity[edges].tolist()


def test_pyg_can_batch_the_crystals(mixed_store: GraphStore) -> None:
    picked = [3, 0, 20, 27, 11]
    (batch,) = DataLoader([mixed_store[i] for i in picked], batch_size=len(picked))
    ours = mixed_store.batch(torch.tensor(picked))
    assert batch.num_graphs == len(picked)
    assert torch.equal(batch.batch, ours.graph_index)
    assert torch.equal(batch.edge_index, ours.edge_index)
    assert torch.equal(batch.z, ours.atomic_number)
    assert torch.equal(batch.distance, ours.distance)
    assert torch.equal(batch.edge_multiplicity, ours.edge_multiplicity)
    assert torch.equal(batch.atom_multiplicity, ours.atom_multiplicity)
    assert batch.lattice.shape == (len(picked), 3, 3)
    assert batch.id == [mixed_store.ids[i] for i in picked]


def test_items_count_like_a_list(mixed_store: GraphStore) -> None:
    assert mixed_store[-1].id == mixed_store.ids[-1]
    assert mixed_store[0].num_nodes == 1
    assert mixed_store[0].edge_index.shape == (2, 0)
    with pytest.raises(IndexError):
        mixed_store[len(mixed_store)]
    assert len(list(mixed_store)) == len(mixed_store)


def test_node_values_are_expanded_to_sites(
    mixed_store: GraphStore, dielectric_records: list[Record]
) -> None:
    records = dielectric_records[::44]
    for i, record in [(1, records[0]), (10, records[9]), (13, records[10]), (-2, records[-1])]:
        z = torch.stack([mixed_store[i].z, mixed_store[i].z], 1)
        sites = to_crystal(record.source).atomic_number.tolist()
        assert mixed_store.site_values(z, i).tolist() == [[z, z] for z in sites]


def test_elements_of_crystals(mixed_store: GraphStore, dielectric_records: list[Record]) -> None:
    assert [mixed_store.elements[i] for i in (0, 11, 12, 27)] == [{54}] * 4
    first = set(to_crystal(dielectric_records[0].source).atomic_number.tolist())
    assert mixed_store.elements[1] == first


def test_numbers_have_nan_where_a_value_is_missing(ideal_crystals: dict[str, Crystal]) -> None:
    graphs = connect([ideal_crystals["fcc"]] * 3, GraphSettings())
    columns = {"gap": [1.0, None, 0], "metal": [True, False, None], "name": ["a", "b", None]}
    store = GraphStore(graphs, ["a", "b", "c"], columns, GraphSettings())
    numbers = store.numbers(["metal", "gap"])
    assert numbers.dtype == torch.float64
    np.testing.assert_array_equal(numbers.numpy(), [[1, 1], [0, np.nan], [np.nan, 0]])


def test_a_batch_is_on_the_device_of_its_store(mixed_store: GraphStore) -> None:
    """The device `meta` replaces an accelerator: no tensor of a batch may remain on the host."""
    on_host = mixed_store.batch(torch.tensor([1, 2, 0]))
    moved = mixed_store.to("meta").batch(torch.tensor([1, 2, 0]))
    for field in fields(GraphBatch):
        a, b = getattr(moved, field.name), getattr(on_host, field.name)
        if isinstance(b, torch.Tensor):
            assert a.device.type == "meta", field.name
            assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name


def test_a_loaded_store_is_equal(
    mixed_store: GraphStore, assert_equal_batches: BatchCheck, tmp_path: Path
) -> None:
    mixed_store.columns["gap"][3] = None
    mixed_store.save(tmp_path)
    loaded = GraphStore.load(tmp_path)
    for field in fields(CrystalGraphs):
        one, other = getattr(mixed_store.graphs, field.name), getattr(loaded.graphs, field.name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert (loaded.ids, loaded.columns) == (mixed_store.ids, mixed_store.columns)
    assert loaded.settings == mixed_store.settings
    everything = torch.arange(len(mixed_store))
    assert_equal_batches(loaded.batch(everything), mixed_store.batch(everything))


def test_a_damaged_store_of_a_user_names_the_command_to_build_it(
    mixed_store: GraphStore, tmp_path: Path
) -> None:
    mixed_store.save(tmp_path)
    (tmp_path / "distance.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"distance\.npy: .* again with csgcnn build$"):
        open_store(tmp_path)


@pytest.fixture
def mapped(store_in_memory: GraphStore, tmp_path: Path) -> GraphStore:
    store_in_memory.save(tmp_path)
    return GraphStore.load(tmp_path).to("cpu", resident=False)


def test_batches_from_files_are_those_from_memory(
    store_in_memory: GraphStore, mapped: GraphStore, assert_equal_batches: BatchCheck
) -> None:
    mapped.to("cpu", resident=False, max_mapped_bytes=1000)
    parts = torch.randperm(100).split(7)
    for part, batch in zip(parts, mapped.batches(parts), strict=True):
        assert_equal_batches(batch, store_in_memory.batch(part))
    assert mapped.n_bytes == store_in_memory.n_bytes


def mapped_memory(folder: Path) -> int:
    """Kibibytes of this process's memory that belong to files of a folder."""
    total, is_within = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            if "-" in line.split(" ", 1)[0]:
                is_within = f"{folder}/" in line
            elif is_within and line.startswith("Rss:"):
                total += int(line.split()[1])
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")
def test_memory_of_files_is_returned_after_the_given_number_of_bytes(
    mapped: GraphStore, tmp_path: Path
) -> None:
    everything = torch.arange(100)
    n_bytes = 16 * len(mapped.graphs.distance) + 5 * len(mapped.graphs.atomic_number)
    mapped.to("cpu", resident=False, max_mapped_bytes=2 * n_bytes)
    mapped.release()
    assert mapped_memory(tmp_path) == 0
    for _ in range(2):
        mapped.batch(everything)
        assert mapped_memory(tmp_path) * 1024 > n_bytes
    mapped.batch(everything)
    assert mapped_memory(tmp_path) == 0


def test_a_resident_store_does_not_need_its_files(
    store_in_memory: GraphStore,
    mapped: GraphStore,
    assert_equal_batches: BatchCheck,
    tmp_path: Path,
) -> None:
    mapped.to("cpu")
    for path in tmp_path.iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    everything = torch.arange(100)
    assert_equal_batches(mapped.batch(everything), store_in_memory.batch(everything))


def test_batches_are_read_ahead_for_a_device(mapped: GraphStore) -> None:
    """The device `meta` replaces an accelerator."""
    parts = torch.randperm(100).split(9)
    mapped.to("meta", resident=False)
    batches = list(mapped.batches(parts))
    assert [batch.distance.device.type for batch in batches] == ["meta"] * len(parts)
    n_edges = [mapped.graphs.n_edges[part.numpy()].sum() for part in parts]
    assert [len(batch.distance) for batch in batches] == n_edges
    with pytest.raises(IndexError):
        list(mapped.batches([torch.tensor([3]), torch.tensor([100])]))


def test_a_store_in_files_is_shuffled_in_windows_of_blocks(mapped: GraphStore) -> None:
    torch.manual_seed(0)
    rows = torch.arange(0, 100, 2)
    orders = [mapped.shuffled(rows, block=4, window=5) for _ in range(300)]
    for order in orders:
        assert sorted(order.tolist()) == rows.tolist()
        # A window has every other row of five blocks.
        for window in order.split(5 * 2):
            assert len((window // 4).unique()) == 5
    position = torch.stack(orders).argsort()
    # Every row may come at any position; the standard deviation of the mean is 0.83.
    assert (position.double().mean(0) - 24.5).abs().max() < 4
    # Rows of one block share a window, and rows of different blocks usually do not.
    apart = (position[:, :1] - position[:, 1:]).abs().float()
    assert apart[:, 0].mean() < 6
    assert apart[:, 10].mean() > 12


def test_a_resident_store_is_shuffled_as_a_whole(store_in_memory: GraphStore) -> None:
    torch.manual_seed(3)
    order = store_in_memory.shuffled(torch.arange(100))
    torch.manual_seed(3)
    assert torch.equal(order, torch.randperm(100))


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_blocks_of_any_size_hold_all_graphs(
    store_in_memory: GraphStore, mapped: GraphStore, size: int
) -> None:
    blocks = list(mapped.graphs.blocks(size))
    assert max(map(len, blocks)) == min(size, 100)
    together = CrystalGraphs.concatenate(blocks)
    for field in fields(CrystalGraphs):
        expected = getattr(store_in_memory.graphs, field.name)
        np.testing.assert_array_equal(getattr(together, field.name), expected)


def test_blocks_of_a_store_in_files_hold_all_graphs(mapped: GraphStore) -> None:
    assert sum(map(len, mapped.blocks())) == 100
