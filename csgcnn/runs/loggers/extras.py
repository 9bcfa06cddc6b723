"""Packages of loggers, which extras install."""

from importlib.util import find_spec

from csgcnn.errors import ConfigError


def require(package: str) -> None:
    """Check that the package of a logger, and the extra of the same name, is installed.

    Raises:
        ConfigError: It is not.
    """
    if find_spec(package) is None:
        raise ConfigError(f"logger={package} needs an extra: pip install 'csgcnn[{package}]'")
