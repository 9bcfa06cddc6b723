import json
import os
import pickle
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal, to_crystal
from csgcnn.crystals.graphs import CrystalGraphs, connect
from csgcnn.crystals.records import Record
from csgcnn.data.batch import GraphBatch
from csgcnn.data.collate import ranges
from csgcnn.data.store import GraphStore

LONE_ATOM = Crystal(np.eye(3) * 30, np.array([54], dtype=np.uint8), np.zeros((1, 3)))


@pytest.fixture(params=[True, False], ids=["compressed", "full"])
def store(request: pytest.FixtureRequest, dielectric_records: list[Record]) -> GraphStore:
    """24 real crystals, with crystals without edges first, in the middle and last."""
    settings = GraphSettings(compress=request.param)
    crystals = [to_crystal(record.source) for record in dielectric_records[::44]]
    crystals = [LONE_ATOM, *crystals[:10], LONE_ATOM, LONE_ATOM, *crystals[10:], LONE_ATOM]
    ids = [f"crystal-{number}" for number in range(len(crystals))]
    columns = {
        "gap": [float(number) for number in range(len(ids))],
        "name": [f"n{id}" for id in ids],
    }
    return GraphStore(connect(crystals, settings), ids, columns, settings)


def assert_equal(one: GraphBatch, other: GraphBatch) -> None:
    for field in fields(GraphBatch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, torch.Tensor):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
            assert torch.equal(a, b), field.name
        else:
            assert a == b, field.name


def concatenated(singles: list[GraphBatch]) -> GraphBatch:
    first_atom = np.cumsum([0, *(len(single.atomic_number) for single in singles)]).tolist()
    joined = {
        name: torch.cat([getattr(single, name) for single in singles])
        for name in [
            "atomic_number",
            "atom_multiplicity",
            "distance",
            "edge_multiplicity",
            "edge_vector",
            "global_features",
        ]
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
def test_a_batch_is_its_crystals_end_to_end(store: GraphStore, pick: list[int]) -> None:
    batch = store.batch(torch.tensor(pick, dtype=torch.long))
    if pick:
        assert_equal(batch, concatenated([store.batch(torch.tensor([i])) for i in pick]))
        assert batch.n_sites.tolist() == store.graphs.n_sites[pick].tolist()
        assert (batch.edge_index[1].diff() >= 0).all()
    assert len(batch) == len(pick)
    assert len(batch.atomic_number) == store.graphs.n_atoms[pick].sum()


def test_one_crystal_is_its_slice_of_the_packed_arrays(store: GraphStore) -> None:
    graphs = store.graphs
    for i in (0, 4, 11, 26, 27):
        single = store.batch(torch.tensor([i]))
        atoms = slice(graphs.n_atoms[:i].sum(), graphs.n_atoms[: i + 1].sum())
        edges = slice(graphs.n_edges[:i].sum(), graphs.n_edges[: i + 1].sum())
        assert single.atomic_number.tolist() == graphs.atomic_number[atoms].tolist()
        assert single.atom_multiplicity.tolist() == graphs.atom_multiplicity[atoms].tolist()
        assert single.edge_index.tolist() == graphs.edge_index[:, edges].tolist()
        assert single.distance.tolist() == graphs.distance[edges].tolist()
        assert single.edge_multiplicity.tolist() == graphs.edge_multiplicity[edges].tolist()


def test_edge_counts_are_those_of_the_full_graph(ideal_crystals: dict[str, Crystal]) -> None:
    crystals = list(ideal_crystals.values())
    counts = []
    for compress in (True, False):
        settings = GraphSettings(compress=compress)
        store = GraphStore(connect(crystals, settings), list(ideal_crystals), {}, settings)
        batch = store.batch(torch.arange(len(crystals)))
        of_edge = batch.graph_index[batch.edge_index[1]]
        counts.append(torch.zeros(len(crystals)).index_add(0, of_edge, batch.edge_count).tolist())
    assert counts[0] == counts[1]


def test_ranges() -> None:
    position, owner = ranges(torch.tensor([5, 0, 9]), torch.tensor([2, 0, 3]), 5)
    assert position.tolist() == [5, 6, 9, 10, 11]
    assert owner.tolist() == [0, 0, 2, 2, 2]


def test_saved_and_loaded_is_equal(store: GraphStore, tmp_path: Path) -> None:
    store.columns["gap"][3] = None
    store.save(tmp_path)
    loaded = GraphStore.load(tmp_path)
    for field in fields(CrystalGraphs):
        one, other = getattr(store.graphs, field.name), getattr(loaded.graphs, field.name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert (loaded.ids, loaded.columns, loaded.settings) == (
        store.ids,
        store.columns,
        store.settings,
    )
    everything = torch.arange(len(store))
    assert_equal(loaded.batch(everything), store.batch(everything))


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def newer(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 999}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("distance.npy", shorten),
        ("site_node.npy", Path.unlink),
        ("meta.json", shorten),
        ("meta.json", Path.unlink),
        ("meta.json", newer),
    ],
)
def test_a_damaged_store_is_refused_by_the_name_of_the_file(
    store: GraphStore, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    store.save(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
        GraphStore.load(tmp_path)


def with_value(place: tuple[int, ...], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def changed(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return changed


class Payload:
    """Unpickled, it would fail the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle in an array was executed",)


def with_pickle(array: np.ndarray) -> np.ndarray:
    array = array.astype(object)
    array.reshape(-1)[0] = Payload()
    return array


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("distance", lambda array: array.astype("float64"), "expected float32"),
        ("atomic_number", lambda array: array.astype("int8"), "expected uint8"),
        ("fingerprint", lambda array: array.view("int64"), "expected uint64"),
        ("lattice", lambda array: array.astype(">f4"), "expected float32"),
        ("distance", lambda array: array[:-1], "expected float32"),
        ("distance", lambda array: array[None], "expected float32"),
        ("edge_index", lambda array: array.T, "expected int32"),
        ("n_atoms", lambda array: np.append(array, array[-1:]), r"expected int32 \[28\]"),
        ("edge_vector", lambda array: np.zeros((len(array), 3), array.dtype), "expected float32"),
        ("lattice", with_pickle, "Python objects in dtype"),
        ("lattice", with_value((0, 0, 0), np.nan), "values beyond"),
        ("edge_multiplicity", with_value((0,), np.nan), "values beyond"),
        ("distance", with_value((0,), np.inf), "values beyond"),
        ("distance", with_value((0,), 0), "values beyond"),
        ("atom_multiplicity", with_value((-1,), 0), "values beyond 1 to"),
        ("atomic_number", with_value((0,), 0), "values beyond 1 to 100"),
        ("atomic_number", with_value((0,), 101), "values beyond 1 to 100"),
        ("n_atoms", with_value((0,), -1), "values beyond 1 to"),
        ("n_edges", with_value((0,), -1), "values beyond 0 to"),
        ("site_node", with_value((0,), -1), "values beyond 0 to"),
        ("site_node", with_value((-1,), 1), "a node that its crystal does not have"),
        ("edge_index", with_value((0, 0), 9999), "a node that its crystal does not have"),
        ("edge_index", with_value((1, -1), 9999), "a node that its crystal does not have"),
        ("distance", with_value((0,), 2.5), "its checksum is another one"),
        ("fingerprint", with_value((0,), 7), "its checksum is another one"),
    ],
)
def test_what_no_store_holds_is_refused(
    store: GraphStore,
    tmp_path: Path,
    name: str,
    change: Callable[[np.ndarray], np.ndarray],
    reason: str,
) -> None:
    store.save(tmp_path)
    path = tmp_path / f"{name}.npy"
    np.save(path, change(np.load(path)), allow_pickle=True)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{reason}"):
        GraphStore.load(tmp_path)


@pytest.mark.parametrize(
    "shape", ["(2684354560,)", "(-1,)", "(((((", "(2, 99999999999999999999)", "__import__('os')"]
)
def test_what_a_header_declares_is_not_allocated(
    store: GraphStore, tmp_path: Path, shape: str
) -> None:
    store.save(tmp_path)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    (tmp_path / "distance.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    )
    tracemalloc.start()
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "distance.npy"))):
        GraphStore.load(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_pipe_or_another_format_is_no_array(store: GraphStore, tmp_path: Path) -> None:
    store.save(tmp_path)
    for make, reason in (
        (lambda path: path.write_bytes(b""), "No data left"),
        (lambda path: path.write_bytes(pickle.dumps(Payload())), "pickled .object. data"),
        (lambda path: ZipFile(path, "w").close(), "expected float32"),
        (os.mkfifo, "no such file"),
    ):
        (tmp_path / "lattice.npy").unlink()
        make(tmp_path / "lattice.npy")
        with pytest.raises(ValueError, match=rf"lattice\.npy: .*{reason}"):
            GraphStore.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ids": "c0"}, "wrong type"),
        ({"ids": list(range(28))}, "wrong type"),
        ({"columns": [1]}, "wrong type"),
        ({"columns": {"gap": [1.0]}}, "column 'gap' has 1 values for 28 ids"),
        ({"columns": {"gap": 28}}, "column 'gap' holds other than"),
        (
            {"columns": {"gap": [[]] * 28}},
            "column 'gap' holds other than numbers, texts, true and false",
        ),
        ({"columns": {"gap": [-(10**301)] * 28}}, r"column 'gap' holds an integer beyond 1e\+300"),
        ({"columns": {"gap": [True, None, "x", 10**299] * 7}}, "its checksum is another one"),
        ({"ids": [f"c{number}" for number in range(28)]}, "its checksum is another one"),
    ],
)
def test_rows_that_no_store_has_are_refused(
    store: GraphStore, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    store.save(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*{reason}"):
        GraphStore.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"cutoff": -1}},
        {"settings": {"radius": 8}},
        {"settings": None},
        {"crc32": 7},
        {"format": [[]] * 1000},
    ],
)
def test_impossible_settings_are_refused(
    store: GraphStore, tmp_path: Path, change: dict[str, Any]
) -> None:
    store.save(tmp_path)
    path = tmp_path / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: ") as caught:
        GraphStore.load(tmp_path)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_files_beside_a_store_do_not_matter(store: GraphStore, tmp_path: Path) -> None:
    (tmp_path / "rejected.json").write_text("[]")
    store.save(tmp_path)
    (tmp_path / "notes.npy").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "folder").mkdir()
    assert GraphStore.load(tmp_path).ids == store.ids
    (tmp_path / "rejected.json").write_text("[[]]")
    with pytest.raises(ValueError, match=r"rejected\.json: its checksum is another one"):
        GraphStore.load(tmp_path)
    (tmp_path / "rejected.json").unlink()
    assert GraphStore.load(tmp_path).ids == store.ids


def test_pyg_can_batch_the_crystals(store: GraphStore) -> None:
    picked = [3, 0, 20, 27, 11]
    (batch,) = DataLoader([store[i] for i in picked], batch_size=len(picked))
    ours = store.batch(torch.tensor(picked))
    assert batch.num_graphs == len(picked)
    assert torch.equal(batch.batch, ours.graph_index)
    assert torch.equal(batch.edge_index, ours.edge_index)
    assert torch.equal(batch.z, ours.atomic_number)
    assert torch.equal(batch.distance, ours.distance)
    assert torch.equal(batch.edge_multiplicity, ours.edge_multiplicity)
    assert torch.equal(batch.atom_multiplicity, ours.atom_multiplicity)
    assert batch.lattice.shape == (len(picked), 3, 3)
    assert batch.id == [store.ids[i] for i in picked]


def test_items_count_like_a_list(store: GraphStore) -> None:
    assert store[-1].id == store.ids[-1]
    assert store[0].num_nodes == 1
    assert store[0].edge_index.shape == (2, 0)
    with pytest.raises(IndexError):
        store[len(store)]
    assert len(list(store)) == len(store)


def test_node_values_return_to_their_sites(
    store: GraphStore, dielectric_records: list[Record]
) -> None:
    records = dielectric_records[::44]
    for i, record in [(1, records[0]), (10, records[9]), (13, records[10]), (-2, records[-1])]:
        z = torch.stack([store[i].z, store[i].z], 1)
        crystal = to_crystal(record.source)
        assert store.site_values(z, i).tolist() == [[z, z] for z in crystal.atomic_number.tolist()]


def test_elements(store: GraphStore, dielectric_records: list[Record]) -> None:
    assert [store.elements[i] for i in (0, 11, 12, 27)] == [{54}] * 4
    assert store.elements[1] == set(to_crystal(dielectric_records[0].source).atomic_number.tolist())


def test_numbers_have_nan_where_a_value_is_missing(ideal_crystals: dict[str, Crystal]) -> None:
    graphs = connect([ideal_crystals["fcc"]] * 3, GraphSettings())
    columns = {"gap": [1.0, None, 0], "metal": [True, False, None], "name": ["a", "b", None]}
    store = GraphStore(graphs, ["a", "b", "c"], columns, GraphSettings())
    numbers = store.numbers(["metal", "gap"])
    assert numbers.dtype == torch.float64
    np.testing.assert_array_equal(numbers.numpy(), [[1, 1], [0, np.nan], [np.nan, 0]])


def test_a_batch_lies_on_the_device_of_its_store(store: GraphStore) -> None:
    """The device `meta` stands in for an accelerator: nothing of a batch may be left behind on the host."""
    on_host = store.batch(torch.tensor([1, 2, 0]))
    moved = store.to("meta").batch(torch.tensor([1, 2, 0]))
    for field in fields(GraphBatch):
        a, b = getattr(moved, field.name), getattr(on_host, field.name)
        if isinstance(b, torch.Tensor):
            assert a.device.type == "meta", field.name
            assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
