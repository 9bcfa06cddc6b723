"""Poolings: multiplicities, the modules of PyG, and dependence on the size of the cell."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import aggr

from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.pooling import AttentionPooling, MaxPooling, MeanPooling, Set2Set, SumPooling

POOLINGS = [MeanPooling, SumPooling, MaxPooling, AttentionPooling, Set2Set]
HIDDEN = 6
Expand = Callable[[GraphBatch], tuple[GraphBatch, Tensor]]


@pytest.fixture(scope="module")
def graph(structures: list[Any], pack: Callable[..., GraphStore]) -> GraphBatch:
    batch = pack(structures).batch(torch.arange(len(structures)))
    assert batch.atom_multiplicity.max() > 4
    return replace(batch, atom_multiplicity=batch.atom_multiplicity.double())


@pytest.fixture
def x(graph: GraphBatch) -> Tensor:
    torch.manual_seed(0)
    return 2 * torch.randn(len(graph.atomic_number), HIDDEN, dtype=torch.float64)


def made(pooling: type[nn.Module], **arguments: Any) -> Any:
    """Build a pooling in float64 with shifted weights."""
    torch.manual_seed(1)
    layer = pooling(HIDDEN, **arguments).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_atom_of_multiplicity_n_counts_as_n_sites(
    pooling: type[nn.Module], graph: GraphBatch, x: Tensor, expanded: Expand
) -> None:
    full, node = expanded(graph)
    pool = made(pooling)
    x.requires_grad_()
    small, large = pool(x, graph), pool(x[node], full)
    assert small.shape == (graph.n_graphs, pool.dim)
    torch.testing.assert_close(small, large, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(small)
    gradients = [
        torch.autograd.grad((out * direction).sum(), [x, *pool.parameters()])
        for out in (small, large)
    ]
    for found, expected in zip(*gradients, strict=True):
        assert expected.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def pyg_module(pool: Any) -> nn.Module:
    """Return the module of PyG with the same weights."""
    match pool:
        case MeanPooling():
            return aggr.MeanAggregation()
        case SumPooling():
            return aggr.SumAggregation()
        case MaxPooling():
            return aggr.MaxAggregation()
        case AttentionPooling():
            return aggr.AttentionalAggregation(pool.gate, pool.value)
    theirs = aggr.Set2Set(HIDDEN, processing_steps=pool.steps).double()
    theirs.lstm.load_state_dict(
        {f"{name}_l0": weight for name, weight in pool.lstm.state_dict().items()}
    )
    return theirs


@pytest.mark.parametrize(
    ("pooling", "arguments"),
    [*((pooling, {}) for pooling in POOLINGS), (Set2Set, {"steps": 1})],
)
def test_on_a_full_graph_a_pooling_equals_the_module_of_pyg(
    pooling: type[nn.Module],
    arguments: dict[str, Any],
    graph: GraphBatch,
    x: Tensor,
    expanded: Expand,
) -> None:
    full, node = expanded(graph)
    pool = made(pooling, **arguments)
    expected = pyg_module(pool)(x[node], full.graph_index, dim_size=full.n_graphs)
    # The first query of Set2Set is the same for all crystals; the last columns are what it reads.
    assert expected.std(0)[-HIDDEN:].min() > 1e-2
    torch.testing.assert_close(pool(x[node], full), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("compress", [True, False], ids=["compressed", "full"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_only_the_sum_grows_with_the_cell(
    pooling: type[nn.Module],
    compress: bool,
    structures: list[Any],
    pack: Callable[..., GraphStore],
    supercell: Callable[..., Any],
) -> None:
    cells = [structure for structure in structures if len(structure["species"]) <= 12][:12]
    generator = torch.Generator().manual_seed(2)
    of_element = torch.randn(101, HIDDEN, dtype=torch.float64, generator=generator)
    pool, pooled = made(pooling), []
    for chosen in (cells, [supercell(structure, 1, 2, 1) for structure in cells]):
        graph = pack(chosen, compress=compress).batch(torch.arange(len(chosen)))
        pooled.append(pool(of_element[graph.atomic_number], graph))
    once, twice = pooled
    expected = 2 * once if pooling is SumPooling else once
    torch.testing.assert_close(twice, expected, rtol=1e-6, atol=1e-6)
