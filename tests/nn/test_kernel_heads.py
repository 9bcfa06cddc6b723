"""The inputs of kernel heads, and their states, which have any number of rows."""

from typing import Any

import pytest
import torch

from csgcnn.data.batch import GraphBatch
from csgcnn.errors import ConfigError
from csgcnn.nn.kernel_heads import (
    GaussianProcessHead,
    KernelHead,
    SupportVectorHead,
    matern,
    pooled_sites,
)

WIDTHS = {"crystal": [9], "global": [2]}


def batch_of(features: list[list[float]], multiplicity: list[float], index: list[int]) -> Any:
    """Crystals of which only what `pooled_sites` reads is given."""
    empty = torch.zeros(0)
    return GraphBatch(
        torch.ones(len(index), dtype=torch.long),
        torch.tensor(multiplicity),
        torch.tensor(features, dtype=torch.float16),
        torch.tensor(index),
        torch.zeros(2, 0, dtype=torch.long),
        *(empty, empty, torch.zeros(2, 0)),
        n_graphs=2,
    )


def test_site_features_are_pooled_over_sites() -> None:
    merged = batch_of([[1, 8], [4, 2], [7, 7], [99, 99]], [2, 1, 1, 0], [0, 0, 1, 1])
    sites = batch_of([[1, 8], [1, 8], [4, 2], [7, 7]], [1, 1, 1, 1], [0, 0, 0, 1])
    found = pooled_sites(merged)
    torch.testing.assert_close(found, pooled_sites(sites))
    std = torch.tensor([1.0, 1, 4]).std(correction=0).item()
    torch.testing.assert_close(found[0], torch.tensor([2, 6, std, 2 * std, 4, 8]))
    torch.testing.assert_close(found[1], torch.tensor([7.0, 7, 0, 0, 7, 7]))


def made(head: KernelHead, n_rows: int = 12) -> KernelHead:
    torch.manual_seed(0)
    inputs = torch.randn(n_rows, 11) * 5 + 3
    head.fit_inputs(inputs)
    dual = torch.randn(n_rows, 1)
    head.keep(rows=head.standardize(inputs), dual=dual, known=torch.ones(n_rows, 1))
    return head


def test_blocks_weigh_alike() -> None:
    head = made(SupportVectorHead(WIDTHS, 1, ["crystal", "global"]))
    for block in head.rows.split([9, 2], dim=1):
        assert block.square().sum(1).mean() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("kind", [SupportVectorHead, GaussianProcessHead])
def test_a_state_sizes_the_head_that_loads_it(kind: type[KernelHead]) -> None:
    head, test = made(kind(WIDTHS, 1, ["crystal", "global"])), torch.randn(3, 11)
    with torch.device("meta"):
        loaded = kind(WIDTHS, 1, ["crystal", "global"])
    loaded.load_state_dict(head.state_dict(), assign=True)
    assert torch.equal(loaded(test), head(test))
    again = made(kind(WIDTHS, 1, ["crystal", "global"]), n_rows=5)
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(test), head(test))
    if head.has_std:
        assert torch.equal(again.std(test), head.std(test))


def test_rows_that_no_target_needs_are_dropped() -> None:
    head = SupportVectorHead(WIDTHS, 2, "global")
    dual = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    head.keep(rows=torch.arange(6.0).view(3, 2), dual=dual)
    assert head.rows.tolist() == [[2, 3], [4, 5]]
    head.keep(rows=torch.ones(3, 2), dual=torch.zeros(3, 2))
    assert head.is_fitted, "of constant targets"


def test_many_rows_are_summed_in_blocks() -> None:
    head = SupportVectorHead(WIDTHS, 1, "global")
    rows, dual, test = torch.randn(9000, 2), torch.randn(9000, 1), torch.randn(4, 2)
    head.keep(rows=rows, dual=dual)
    squared = (test.unsqueeze(1).double() - rows).square().sum(2)
    r = (5 * squared).sqrt()
    kernel = (1 + r + r**2 / 3) * (-r).exp()
    torch.testing.assert_close(head(test), 1 + kernel @ dual.double())


def test_each_target_weighs_the_blocks_by_itself() -> None:
    head = SupportVectorHead(WIDTHS, 2, ["crystal", "global"])
    head.block_weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    x, rows = torch.randn(3, 11), torch.randn(5, 11)
    first, second = head.kernel(x, rows)
    torch.testing.assert_close(first, matern(torch.cdist(x[:, :9], rows[:, :9]).double() ** 2))
    squared = 4 * torch.cdist(x[:, 9:], rows[:, 9:]).double() ** 2
    torch.testing.assert_close(second, matern(squared))


@pytest.mark.parametrize(
    ("inputs", "message"), [([], "expected one or several of"), ("global", "graph.global_features")]
)
def test_inputs_that_do_not_exist_are_refused(inputs: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SupportVectorHead({"crystal": [9], "global": [0]}, 1, inputs)


def test_a_state_with_too_many_rows_is_refused() -> None:
    head = SupportVectorHead(WIDTHS, 1, "global")
    rows = {"rows": torch.zeros(20_001, 2), "dual": torch.zeros(20_001, 1)}
    with pytest.raises(ValueError, match="20,001 rows"):
        head.load_state_dict(head.state_dict() | rows)
