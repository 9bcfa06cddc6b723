"""Helpers of tests of the graph cache."""

from pathlib import Path
from typing import NoReturn

import torch

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.data.store import GraphStore

SETTINGS = GraphSettings()


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def not_again(*_: object) -> NoReturn:
    """Replace the builder of graphs where nothing may be built."""
    raise AssertionError("the graphs were built again")


def assert_same(one: GraphStore, other: GraphStore) -> None:
    assert (one.ids, one.columns, one.settings) == (other.ids, other.columns, other.settings)
    everything = torch.arange(len(one))
    for name in ("atomic_number", "edge_index", "distance", "edge_multiplicity"):
        assert torch.equal(
            getattr(one.batch(everything), name), getattr(other.batch(everything), name)
        )
