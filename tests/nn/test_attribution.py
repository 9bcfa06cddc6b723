"""Contributions of sites and importances of edges."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError
from csgcnn.nn.attribution import check_explainable, contributions, edge_weights
from csgcnn.nn.build import build_network
from csgcnn.nn.network import CrystalGraphNetwork

Networks = Callable[..., CrystalGraphNetwork]
Pack = Callable[..., GraphStore]
Structure = dict[str, Any]

HEADS = {
    "linear": ["model.n_head_layers=null"],
    "softplus": ["pooling=sum"],
    "deep silu": ["model.activation=silu", "model.n_head_layers=3"],
    "relu": ["model.activation=relu", "pooling=sum"],
}


def of_sites(network: CrystalGraphNetwork, store: GraphStore) -> list[Tensor]:
    """The contributions of the sites of each crystal, in the order of its sites."""
    batch = store.batch(torch.arange(len(store)))
    nodes = contributions(network.eval(), batch).sites
    return [store.site_values(nodes[batch.graph_index == i], i)[:, 0] for i in range(len(store))]


@pytest.mark.parametrize("head", HEADS)
def test_contributions_add_up_to_prediction_minus_reference(
    head: str, network: Networks, pack: Pack, structures: list[Structure]
) -> None:
    model, store = network(*HEADS[head]).eval(), pack(structures[:8])
    batch = store.batch(torch.arange(len(store)))
    reference = contributions(model, batch).reference[:, 0]
    total = torch.stack([sites.sum() for sites in of_sites(model, store)])
    with torch.no_grad():
        prediction = model(batch)[:, 0].double()
    assert reference.std() == 0
    torch.testing.assert_close(total, prediction - reference, rtol=1e-4, atol=1e-5)


def test_what_enters_at_the_head_contributes_too_also_to_probabilities(
    composed: Callable[..., DictConfig], pack: Pack, structures: list[Structure]
) -> None:
    config = composed("graph.global_features=density", "pooling=sum")
    model = build_network(config, n_outputs=[1, 3], input_sizes=[0, 2]).eval()
    store = pack(structures[:6], global_features=("density",))
    inputs = torch.tensor([[0.5, 0], [2, 1], [-1, 1], [0, 0], [1, 1], [3, 0]])
    store.set_inputs("test", inputs, {})
    batch = store.batch(torch.arange(len(store)))
    found = contributions(model, batch)
    assert found.crystal is not None
    weighted = found.sites * batch.atom_multiplicity.unsqueeze(1)
    total = found.reference + found.crystal
    total = total.index_add(0, batch.graph_index, weighted)
    torch.testing.assert_close(total.float(), model(batch), rtol=1e-4, atol=1e-5)
    assert (found.crystal.abs() > 1e-4).all(0).any()


def test_contributions_of_a_linear_head_are_the_terms_of_its_sum(
    network: Networks, pack: Pack, structures: list[Structure]
) -> None:
    model = network("model.n_head_layers=null").eval()
    store = pack(structures, compress=False)
    batch = store.batch(torch.arange(len(store)))
    with torch.no_grad():
        sites = model.atom_features(batch)[-1] @ model.head.out.weight[0] * model.scaler.std
        terms = sites / batch.n_sites[batch.graph_index]
    torch.testing.assert_close(torch.cat(of_sites(model, store)).float(), terms)


def test_equivalent_sites_contribute_equally_with_and_without_compression(
    network: Networks, pack: Pack, structures: list[Structure]
) -> None:
    model, compressed = network("model=csgann"), pack(structures)
    full = of_sites(model, pack(structures, compress=False))
    n_merged = 0
    for i, (merged, alone) in enumerate(zip(of_sites(model, compressed), full, strict=True)):
        torch.testing.assert_close(merged, alone, rtol=1e-3, atol=1e-5)
        node = compressed.site_values(torch.arange(len(merged)), i)
        for values in (merged[node == one] for one in node.unique()):
            assert values.unique().numel() == 1
            n_merged += len(values) > 1
    assert n_merged > 20


def test_a_supercell_divides_the_contribution_of_a_site_among_its_images(
    network: Networks, pack: Pack, structures: list[Structure], supercell: Callable[..., Structure]
) -> None:
    model = network()
    for structure in structures[:5]:
        store = pack([structure, supercell(structure, 2, 1, 1)])
        small, large = of_sites(model, store)
        torch.testing.assert_close(large.view(-1, 2).sum(1), small, rtol=1e-4, atol=1e-6)
        images = large.view(-1, 2)
        torch.testing.assert_close(images[:, 0], images[:, 1])


@pytest.mark.parametrize("pooling", ["max", "attention", "set2set"])
def test_a_pooling_that_is_no_sum_is_refused_by_name(
    pooling: str, composed: Callable[..., DictConfig]
) -> None:
    model = build_network(composed(f"pooling={pooling}"), n_outputs=[1])
    with pytest.raises(UserError, match=rf"pooling={pooling} is not a sum .* pooling=mean or"):
        check_explainable(model)


def test_a_kernel_head_is_refused_by_name(composed: Callable[..., DictConfig]) -> None:
    model = build_network(composed("head=svr"), n_outputs=[1])
    with pytest.raises(UserError, match=r"head=svr .* train with head=mlp"):
        check_explainable(model)


def test_importances_estimate_the_change_if_edges_fade(
    network: Networks, pack: Pack, structures: list[Structure], double: Callable[..., GraphBatch]
) -> None:
    model = network("model=csginn", "model.activation=softplus").double().eval()
    graph, step = double(pack(structures).batch(torch.arange(len(structures)))), 1e-6
    weighted = edge_weights(model, graph).importance[:, 0] * graph.edge_count
    center = graph.graph_index[graph.edge_index[1]]
    expected = torch.zeros(graph.n_graphs).double().index_add(0, center, weighted)
    with torch.no_grad():
        before = model(graph)[:, 0]
        fade = model.edge_calculator.register_forward_hook(lambda *given: given[2] * (1 - step))
        change = (before - model(graph)[:, 0]) / step
        fade.remove()
    torch.testing.assert_close(expected, change, rtol=1e-3, atol=1e-4)
    assert edge_weights(model, graph).attention is None


def test_weights_of_merged_edges_are_those_of_each_of_them(
    network: Networks, pack: Pack, structures: list[Structure]
) -> None:
    model = network("model=csgann").eval()
    totals = []
    for compress in (True, False):
        store = pack(structures, compress=compress)
        batch = store.batch(torch.arange(len(store)))
        found = edge_weights(model, batch)
        assert found.attention is not None
        assert found.attention.shape == (len(batch.distance), 3)
        center = batch.edge_index[1]
        sums = torch.zeros(len(batch.atomic_number), 3).index_add(0, center, found.attention)
        torch.testing.assert_close(sums, torch.ones_like(sums))
        weighted = found.importance[:, 0] * batch.edge_count
        of_crystals = torch.zeros(batch.n_graphs)
        totals.append(of_crystals.index_add(0, batch.graph_index[center], weighted))
    torch.testing.assert_close(totals[0], totals[1], rtol=1e-3, atol=1e-4)
