"""Where the configurations and the included data are installed."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

# A wheel holds configurations and data inside the package, a checkout beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
INCLUDED_DATA = PACKAGE / "included" if (PACKAGE / "included").is_dir() else PACKAGE.parent / "data"
PRETRAINED = INCLUDED_DATA / "pretrained.ckpt"  # what init_from=pretrained means


def group_names() -> list[str]:
    """Return the groups of options of `conf/`."""
    return [path.name for path in CONF.iterdir() if path.is_dir()]


def option_names(group: str) -> list[str]:
    """Return the options of a group of `conf/`, sorted."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
