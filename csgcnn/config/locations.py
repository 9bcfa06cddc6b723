"""Where the configurations and the included data are installed."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

# A wheel holds configurations and data inside the package, a checkout beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
INCLUDED_DATA = PACKAGE / "included" if (PACKAGE / "included").is_dir() else PACKAGE.parent / "data"
