"""The parts of an override of the command line, and short names of keys and groups."""

import re
from typing import NamedTuple

ALIASES = {"edge": "edge_calculator", "global_features": "graph.global_features"}


class Override(NamedTuple):
    """An override, such as +model.width=3.

    Attributes:
        prefix: "+", "++", "~" or nothing.
        key: Full key or group.
        value: Value; None if there is no "=".
    """

    prefix: str
    key: str
    value: str | None

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value}"
        return f"{self.prefix}{self.key}{value}"


def parse_override(text: str) -> Override | None:
    """Return the parts of an override, or None if the text is none."""
    match = re.fullmatch(r"(\+{1,2}|~)?([A-Za-z_][^=]*?)(?:=(.*))?", text, re.DOTALL)
    if match is None or (match[1] is None and match[3] is None):
        return None
    return Override(match[1] or "", full_key(match[2]), match[3])


def full_key(key: str) -> str:
    """Return a key with its first part spelled out, where that is an alias."""
    first, dot, rest = key.partition(".")
    return f"{ALIASES.get(first, first)}{dot}{rest}"
