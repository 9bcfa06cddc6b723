"""Full keys and values of nested configurations."""

from collections.abc import Iterator, Mapping
from typing import Any


def select(config: Any, key: str) -> Any:
    """Return the value of a full key, or None.

    Args:
        config: A plain configuration.
        key: Full key, such as graph.cutoff.
    """
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full keys, such as graph.cutoff, and values of a configuration.

    Args:
        tree: A plain configuration.
        key: Full key of the configuration itself.
    """
    if isinstance(tree, Mapping) and tree:
        for name, child in tree.items():
            yield from leaves(child, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree
