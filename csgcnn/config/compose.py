"""Compose configurations from `conf/` and overrides, any number of times in one process."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from csgcnn.config.free_text import TextLoader, as_dict_key, quoted
from csgcnn.config.hydra_guard import GuardedConfigLoader, check_folder_size
from csgcnn.config.locations import CONF
from csgcnn.config.override import full_key
from csgcnn.config.settings.commands import COMMANDS
from csgcnn.errors import ConfigError

# The settings classes give keys their types and defaults. At the root of the store no group lists
# them.
for _command, _settings in COMMANDS.items():
    ConfigStore.instance().store(f"{_command}_schema", _settings)


def compose(
    command: str,
    overrides: Sequence[str] = (),
    *,
    config_dirs: Sequence[Path] = (),
    config_name: str | None = None,
) -> DictConfig:
    """Compose the configuration of a command. It executes nothing and leaves no global state.

    Args:
        command: train, benchmark, predict, evaluate or build.
        overrides: Overrides in the form that Hydra reads, such as "model=csgcnn"; `to_overrides`
            writes them from Python values.
        config_dirs: Further folders of configurations.
        config_name: Configuration to start from, by default the one named after the command.

    Returns:
        The configuration without the node `hydra`, not validated yet.

    Raises:
        ConfigError: There is no such command.
        HydraException: An override or a configuration is wrong.
        OmegaConfBaseException: A value has the wrong type.
    """
    if command not in COMMANDS:
        raise ConfigError(f"{command} has no configuration; expected {', '.join(COMMANDS)}")
    with hydra_session(command, config_dirs=config_dirs, overrides=overrides) as hydra:
        cfg = hydra.compose_config(
            config_name or command, list(overrides), RunMode.RUN, from_shell=False
        )
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


@contextmanager
def hydra_session(
    command: str,
    *,
    config_path: Path = CONF,
    config_dirs: Sequence[Path] = (),
    overrides: Sequence[str] = (),
) -> Iterator[Hydra]:
    """Open Hydra for one command within the block, also in a process that uses Hydra otherwise.

    Folders but `conf/` are treated as untrusted: `config.hydra_guard`.

    Args:
        command: Name of the command, which becomes the name of the job.
        config_path: Folder of the configurations.
        config_dirs: Further folders of configurations, the first one has precedence.
        overrides: Overrides of the command line, which may change the node `hydra`.

    Yields:
        Hydra, which composes configurations and runs jobs.

    Raises:
        ConfigError: A folder does not exist, or costs too much to compose.
    """
    version.setbase("1.3")
    folders = [config_path, *config_dirs] if config_path != CONF else [*config_dirs]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: there is no such folder of configurations")
        check_folder_size(folder)
    search_path = create_config_search_path(str(config_path.absolute()))
    for folder in config_dirs:
        place = SearchPathQuery(provider="schema")
        search_path.prepend("command-line", f"file://{folder.absolute()}", place)
    loader: ConfigLoaderImpl = TextLoader(search_path)
    if folders:
        loader = GuardedConfigLoader(search_path, _trusted_nodes(command), overrides)
    state = GlobalHydra.instance()
    outer, state.hydra = state.hydra, None
    try:
        hydra = Hydra(command, loader)
        state.initialize(hydra)
        yield hydra
    finally:
        state.hydra = outer


@cache
def _trusted_nodes(command: str) -> list[Any]:
    """Return the nodes `hydra` that `conf/` and the defaults of Hydra compose, as plain data."""
    trusted = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    nodes = (trusted.load_configuration(name, [], RunMode.RUN) for name in (None, command))
    return [OmegaConf.to_container(cfg.hydra, enum_to_str=True) for cfg in nodes]


def to_overrides(values: Mapping[str, Any]) -> list[str]:
    """Return overrides, in the form that Hydra reads, that set keys and options to Python values.

    Args:
        values: Values by full key, such as {"trainer.max_epochs": 50, "model": "csgann"}.
    """
    return [
        f"{'++' if isinstance(value, Mapping) else ''}{full_key(key)}={_literal(value)}"
        for key, value in values.items()
    ]


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        keys = (as_dict_key(str(key)) for key in value)
        entries = zip(keys, map(_literal, value.values()), strict=True)
        return f"{{{','.join(map(':'.join, entries))}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_literal, value))}]"
    return quoted(str(value))


def as_argument(value: Any) -> str:
    """Return a value as the command line takes it: [a,b], {a:b}, true, null."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{as_argument(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_argument, value))}]"
    return value if isinstance(value, str) else json.dumps(value, default=str)
