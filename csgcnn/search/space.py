"""The search space of a hyperparameter search, from the overrides of the command line."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hydra.core.override_parser.types import Override
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from csgcnn.errors import ConfigError

# key -> range
Space = dict[str, BaseDistribution]


def space_of(overrides: Sequence[Override]) -> tuple[Space, dict[str, str]]:
    """Return the search space, and all overrides by key; the last one of a key counts.

    Raises:
        ConfigError: There is nothing to search, or a range is empty.
    """
    by_key = {override.get_key_element(): override for override in overrides}
    space: Space = {}
    for key, override in by_key.items():
        if override.is_sweep_override():
            try:
                space[key] = _range(override)
            except ValueError as error:
                raise ConfigError(f"{override.input_line}: {error}") from error
    if not space:
        raise ConfigError(
            "there is nothing to choose; expected hparams=csgcnn, or ranges such as "
            "edge=gaussian,rbf"
        )
    return space, {key: str(override.input_line) for key, override in by_key.items()}


def _range(override: Override) -> BaseDistribution:
    if not override.is_interval_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    interval: Any = override.value()
    kind = IntDistribution if isinstance(interval.start, int) else FloatDistribution
    return kind(interval.start, interval.end, log="log" in interval.tags)


def value_in(range_: BaseDistribution, text: str) -> Any:
    """Return the value that a text stands for, or None if it is not in the range.

    Args:
        range_: Range of the key.
        text: Value on the command line.
    """
    if isinstance(range_, CategoricalDistribution):
        return text if text in range_.choices else None
    with suppress(ValueError):
        value = int(text) if isinstance(range_, IntDistribution) else float(text)
        return value if range_.low <= value <= range_.high else None  # type: ignore[attr-defined]
    return None
