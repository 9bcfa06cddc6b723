"""Space groups by name: Hall symbols of the settings that a Hermann-Mauguin symbol may mean."""

import re
import warnings
from functools import cache, lru_cache
from typing import Any, NamedTuple

# Codes of ICSD for origin choices, and the letters of axes and origins after a colon.
_SUFFIX = re.compile(
    r"(?P<name>.*?)\s*(?::\s*(?P<setting>[12HR])|(?P<code>[SZ]|(?<=\s)[HR]))", re.IGNORECASE
)
_SETTING_OF_CODE = {"S": "1", "Z": "2", "H": "H", "R": "R"}
# "(225)", "(No. 225)" behind a symbol; "P 6(3)" ends with a screw axis.
_NUMBER_BEHIND = re.compile(r"\s+\(\d+\)$|\s*\((?:no\.?\s*\d+|\d{2,3})\)$", re.IGNORECASE)
_LONGEST = 60


class Setting(NamedTuple):
    """A setting of a space group.

    Attributes:
        name: Hermann-Mauguin symbol with the setting, such as "F d -3 m:2".
        hall: Hall symbol, which determines the operations.
        choice: "1" or "2" for an origin, "H" or "R" for axes, or "".
    """

    name: str
    hall: str
    choice: str


@lru_cache(maxsize=1024)
def settings_of_name(name: str) -> list[Setting]:
    """Return the settings that a Hermann-Mauguin symbol may mean, the usual one first.

    Short, full and old symbols are known, with or without spaces and underscores, and settings
    written as ":2", ":H", "Z" (ICSD) or "R".

    Args:
        name: The symbol.

    Returns:
        The settings; none if the symbol is unknown.
    """
    name = _NUMBER_BEHIND.sub("", " ".join(name.split())[:_LONGEST])
    choice = ""
    if found := _SUFFIX.fullmatch(name):
        name = found["name"]
        choice = (found["setting"] or _SETTING_OF_CODE[found["code"].upper()]).upper()
    settings = _table().get(_key(name)) or _known_to_gemmi(name)
    if not choice:
        return settings
    chosen = [setting for setting in settings if setting.choice == choice]
    return chosen or [setting for setting in settings if choice in "1H" and not setting.choice]


@cache
def settings_of_number(number: int) -> list[Setting]:
    """Return the settings with the axes of the International Tables, by number.

    Args:
        number: 1 to 230.
    """
    import gemmi

    return _siblings(gemmi.find_spacegroup_by_number(number) if 1 <= number <= 230 else None)


@cache
def group_number(hall: str) -> int | None:
    """Return the number of the space group of a Hall symbol, None in a setting without a name."""
    import gemmi

    group = gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(hall))
    return None if group is None else int(group.number)


def _known_to_gemmi(name: str) -> list[Setting]:
    """Return the settings of a symbol that only gemmi understands, such as "C m c e"."""
    import gemmi

    return _siblings(gemmi.find_spacegroup_by_name(name))


def _siblings(group: Any) -> list[Setting]:
    """Return the settings with the symbol of a group: both origins, or both kinds of axes."""
    import gemmi

    if group is None:
        return []
    same = (one for one in gemmi.spacegroup_table() if one.number == group.number)
    return [_setting(one) for one in same if one.hm == group.hm]


@cache
def _table() -> dict[str, list[Setting]]:
    """Return the settings by symbol without spaces, in small letters."""
    import gemmi
    import spglib

    table: dict[str, list[Setting]] = {}

    def add(symbol: str, setting: Setting) -> None:
        known = table.setdefault(_key(symbol), [])
        if all(other.hall != setting.hall for other in known):
            known.append(setting)

    groups = list(gemmi.spacegroup_table())
    for group in groups:
        add(group.hm, _setting(group))
    # Short symbols of monoclinic groups mean the setting that comes first in the tables.
    for group in groups:
        if _key(group.short_name()) not in table or group.ext:
            add(group.short_name(), _setting(group))
        if group.number >= 195:
            # Before 1992: m3m for m-3m.
            add(group.hm.replace("-3", "3"), _setting(group))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        types = [spglib.get_spacegroup_type(hall_number) for hall_number in range(1, 531)]
    for found in filter(None, types):
        choice = found.choice if found.choice in ("1", "2", "H", "R") else ""
        name = found.international_full + (f":{choice}" if choice else "")
        if choice or _key(found.international_full) not in table:
            add(found.international_full, Setting(name, found.hall_symbol, choice))
    return table


def _setting(group: Any) -> Setting:
    return Setting(group.xhm(), group.hall, str(group.ext).strip("\0 "))


def _key(symbol: str) -> str:
    """Return a symbol without what differs between spellings."""
    return re.sub(r"[\s_()~]|sub", "", symbol.lower())
