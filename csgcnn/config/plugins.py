"""Load plugins: packages that the user opted in, and packages installed as plugins."""

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from csgcnn.config.targets import allowed_plugins, plugins_allowed
from csgcnn.errors import ConfigError, first_line


@contextmanager
def plugins_loaded(packages: Iterable[str]) -> Iterator[None]:
    """Allow the classes of plugins as `_target_` within the block.

    The packages are imported, so that they can register data formats and metrics. So are
    packages with an entry point in the group `csgcnn.plugins`.

    Args:
        packages: Names of top-level packages, as the user gave them.

    Raises:
        ConfigError: A package cannot be imported.
    """
    with plugins_allowed(packages):
        for name in sorted(allowed_plugins()):
            _import(name)
        yield


def check_opt_in(named: Iterable[str], opted_in: Iterable[str]) -> None:
    """Check that a configuration names no plugins but those that the command line allows.

    Args:
        named: The key `plugins` of the composed configuration.
        opted_in: The packages of `plugins=[...]` on the command line.

    Raises:
        ConfigError: It does; a configuration, which may be untrusted, cannot opt in.
    """
    if unexpected := sorted(set(named) - set(opted_in)):
        names = ",".join([*opted_in, *unexpected])
        raise ConfigError(
            f"the configuration names the plugins {', '.join(unexpected)}, which run their own "
            f"code; if you trust them, add plugins=[{names}]"
        )


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ConfigError(f"plugins={name}: it needs {error.name}, which is absent") from error
        raise ConfigError(f"plugins={name}: there is no package {name}; install it") from error
    except Exception as error:
        raise ConfigError(f"plugins={name}: its import fails: {first_line(error)}") from error
