"""Nested configurations as full keys and values."""

from collections.abc import Iterator, Mapping
from typing import Any


def select(config: Any, key: str) -> Any:
    """The value of `key`, such as graph.cutoff, or None."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Full keys, such as graph.cutoff, and values of a configuration, below `key` if it is given."""
    if isinstance(tree, Mapping) and tree:
        for name, child in tree.items():
            yield from leaves(child, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree
