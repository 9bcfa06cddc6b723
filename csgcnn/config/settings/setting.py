"""One configuration key: its type, default and description."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

MISSING: Any = "???"  # OmegaConf's mark of a value that the user must give

# Largest seed that torch accepts.
MAX_SEED = 2**63 - 1

Effect = Literal["result", "execution", "seed"]


@dataclass(frozen=True, slots=True)
class Setting:
    """Describe a key of the configuration, beside its type and its default.

    It annotates an argument of a class or function that a `_target_` names; a field of a settings
    class has it through `setting`:

        width: Annotated[int, Setting("Width of the layers.", at_least=1)] = 64
        cutoff: float = setting(8.0, "Radius of the neighbor search.", unit="Å", above=0)

    Range checks, `--help`, the reference page, resume, search, table and benchmark derive from it.

    Attributes:
        help: One sentence: what the key does.
        unit: Unit of the value.
        at_least: Smallest allowed number.
        above: Largest number that is too small.
        at_most: Largest allowed number.
        below: Smallest number that is too large.
        choices: Allowed values.
        null: What null stands for, where it is allowed.
        effect: `result`: the key changes what is computed. `execution`: it changes only where,
            how fast or how long; runs that differ in it are the same run, and `resume=` accepts
            another value. `seed`: runs that differ in it repeat each other.
        resumable: Whether `resume=` accepts another value of a key that changes the result.
        averaged: Whether it does so for one of several runs that are averaged, too.
        read_by: Value of another key of the section with which this one is read:
            "method=fold,leave_*", or "top" for any value but null and false. With other values,
            the key is refused where a user gives it.
        verbatim: Whether the command line takes the value as it is typed, special characters
            included, as a path or a comparison.
        is_path: Whether the value names a file or folder, which is verbatim and which shells
            complete.
        by_name: Whether two paths with the same file name are the same value where runs are
            compared.
        divides: Key whose value must be a multiple of this one.
        body: Whether weights of the network's body are useless with another value; `init_from=`
            refuses that. Read for keys of the network only.
    """

    help: str
    unit: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: Sequence[str] = ()
    null: str = ""
    effect: Effect = "result"
    resumable: bool = False
    averaged: bool = True
    read_by: str = ""
    verbatim: bool = False
    is_path: bool = False
    by_name: bool = False
    divides: str = ""
    body: bool = True

    @property
    def readers(self) -> str:
        """The values of the other key that read this one: "fold or matbench"."""
        return _alternatives(self.read_by.partition("=")[2].split(","))

    def is_read(self, section: Mapping[str, Any]) -> bool:
        """Return whether the other values of the section read the key."""
        name, _, values = self.read_by.partition("=")
        found = section.get(name)
        given = found.values() if isinstance(found, Mapping) else [found]
        if values:
            # cuda:1 is a device cuda
            names = [str(value).partition(":")[0] for value in given]
            return any(fnmatchcase(name, v) for name in names for v in values.split(","))
        return not self.read_by or any(value not in (None, False, "") for value in given)

    @property
    def is_bounded(self) -> bool:
        """Whether the value must be a number within bounds."""
        bounds = (self.at_least, self.above, self.at_most, self.below)
        return any(bound is not None for bound in bounds)

    def accepts(self, value: Any) -> bool:
        """Return whether a value, other than None, is one of the choices and within the bounds."""
        if self.choices:
            values = value if isinstance(value, list | tuple) else [value]
            return all(item in self.choices for item in values)
        if not self.is_bounded:
            return True
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def expected(self, kind: str = "a number") -> str:
        """Return the allowed values in words, for messages and help: "an integer from 1 to 10".

        Args:
            kind: The type in words.
        """
        if self.choices:
            return _alternatives(self.choices)
        if self.above is not None and self.at_most is not None:
            return f"{kind} above {_number(self.above)} and at most {_number(self.at_most)}"
        if self.at_least is not None and self.at_most is None and self.below is None:
            return f"{kind} of at least {_number(self.at_least)}"
        low = "" if self.at_least is None else f"from {_number(self.at_least)}"
        low = low if self.above is None else f"above {_number(self.above)}"
        high = "" if self.at_most is None else f"{'to' if low else 'up to'} {_number(self.at_most)}"
        high = high if self.below is None else f"{'to ' if low else ''}below {_number(self.below)}"
        return " ".join(filter(None, [kind, low, high]))


def setting(default: Any, help: str, **description: Any) -> Any:
    """Return a field of a settings class.

    Args:
        default: Default; MISSING if the user must give a value.
        help: One sentence: what the key does.
        **description: Further attributes of `Setting`.
    """
    metadata = {"setting": Setting(help, **description)}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def _alternatives(texts: Sequence[str]) -> str:
    *others, last = texts
    return f"{', '.join(others)} or {last}" if others else last


def _number(bound: float) -> str:
    if bound == MAX_SEED:
        return "2^63 - 1"
    return f"{bound:g}" if abs(bound) < 1e6 else f"{bound:,}"


KINDS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key with its type, its default and its description.

    Attributes:
        name: Name within its section.
        type: Source text of the type: "int | None".
        default: Default; MISSING if the user must give a value.
        setting: The description.
        is_read: Whether the command reads the key.
    """

    name: str
    type: str
    default: Any
    setting: Setting
    is_read: bool = True

    @property
    def kinds(self) -> set[str]:
        """Names of the types that are allowed."""
        return {part.strip() for part in self.type.split("|")}

    @property
    def expected(self) -> str:
        """The allowed values in words."""
        value_type = self.type.removeprefix("dict[str, ").rstrip("]")
        kinds = [KINDS[kind] for kind in value_type.split(" | ") if kind in KINDS]
        return self.setting.expected(" or ".join(kinds) or "a value")

    def accepts(self, value: Any) -> bool:
        """Return whether a value has the type of the key and is in its range."""
        if value is None:
            return "None" in self.kinds or "Any" in self.kinds
        allowed = [kind for kind in self.kinds if kind in KINDS]
        has_type = not allowed or any(_is_a(value, kind) for kind in allowed)
        return has_type and self.setting.accepts(value)


def _is_a(value: Any, kind: str) -> bool:
    if kind == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, {"bool": bool, "str": str}[kind])
