"""Refuse what Hydra would execute on behalf of configurations that may be untrusted.

The sections that csgcnn reads go through `config.instantiate`. The section `hydra` is Hydra's: it
calls what callbacks, logging handlers and plugins name, sets environment variables, and writes
log files and batch scripts. Composing executes none of it. So the loader below composes, and
hands out a configuration only if each entry of its node `hydra` comes from the command line, is
a default of Hydra, of its plugins or of csgcnn, or has an allowed key and value. The jobs of a
sweep are composed by the same loader.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from csgcnn.config.free_text import TextLoader
from csgcnn.errors import ConfigError, one_line

MAX_ENTRIES, MAX_DEPTH = 20_000, 10
# Bytes of YAML.
MAX_FILE, MAX_FOLDER = 200_000, 2_000_000
# Nodes of a file, where an alias counts as what it stands for.
MAX_NODES, MAX_NESTING = 100_000, 50

ALLOWED_KEYS = re.compile(
    r"mode|verbose|output_subdir|run\.dir|sweep\.(dir|subdir)|help\.\w+"
    r"|job\.(name|chdir|config\.override_dirname\.(kv_sep|item_sep|exclude_keys))"
    r"|(job|hydra)_logging\.(version|disable_existing_loggers|root\.(level|handlers)"
    r"|loggers\.[\w.]+\.(level|handlers)|formatters\.\w+\.(format|datefmt)"
    r"|handlers\.\w+\.(class|level|formatter|stream))"
    r"|callbacks\.\w+\._target_"
    r"|launcher\.(_target_|name|timeout_min|cpus_per_task|gpus_per_node|tasks_per_node|mem_gb|nodes"
    r"|stderr_to_stdout|partition|qos|comment|constraint|exclude|gres|cpus_per_gpu|gpus_per_task"
    r"|mem_per_gpu|mem_per_cpu|account|signal_delay_s|max_num_timeout|array_parallelism|n_jobs"
    r"|backend|prefer|require|verbose|timeout|batch_size)"
    r"|sweeper\.(_target_|max_batch_size|direction|study_name|n_trials|n_jobs|max_failure_rate"
    r"|prune_after|seed|trial|params\..+|sampler\.(_target_|_partial_|[a-z]\w*))",
    re.ASCII,
)
ALLOWED_VALUES = {
    "_target_": {
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra.experimental.callbacks.LogJobReturnCallback",
        "hydra.experimental.callbacks.PickleJobInfoCallback",
        "hydra_plugins.csgcnn_search.SearchSweeper",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
        *(
            f"optuna.samplers.{name}Sampler"
            for name in ("CmaEs", "Grid", "MOTPE", "NSGAII", "Random", "TPE")
        ),
    },
    # A FileHandler could write anywhere.
    "class": {"logging.StreamHandler", "logging.NullHandler"},
    "stream": {"ext://sys.stdout", "ext://sys.stderr"},
}
# Hydra writes these keys itself, after the files are merged.
WRITTEN_BY_HYDRA = re.compile(r"runtime\..*|job\.(override_dirname|config_name|id|num)")
# Values of these keys reach no script, no logging handler and no plugin.
FREE_KEYS = re.compile(r"run\.dir|sweep\.subdir|output_subdir|mode|verbose|help\.\w+")
# Interpolations that make no line break.
HARMLESS = re.compile(
    r"\$\{(now:[%YmdHMSfjyb_.:-]+|hydra[.:](job\.(name|num)|runtime\.choices\.\w+)|oc\.env:\w+"
    r"|unique_dir:[^${}]*)\}"
)


class GuardedConfigLoader(TextLoader):
    """Compose configurations from folders that may be untrusted.

    Args:
        search_path: Where Hydra looks for configurations.
        trusted: Nodes `hydra` that are trusted: plain, composed without the folders.
        overrides: Overrides of the command line, which are trusted.
    """

    def __init__(
        self,
        search_path: ConfigSearchPath,
        trusted: Sequence[Mapping[str, Any]],
        overrides: Sequence[str],
    ) -> None:
        super().__init__(search_path)
        names = (text.partition("=")[0].lstrip("+~") for text in overrides)
        self._given = [name for name in names if name.startswith("hydra.")]
        trusted = [*trusted, *_plugin_defaults()]
        self._trusted = {(key, repr(value)) for node in trusted for key, value in _leaves(node)}

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a configuration, as Hydra does.

        Args:
            config_name: Name of the configuration.
            overrides: Overrides of the command line, or of a job.
            run_mode: Whether to compose for one run or for several.
            from_shell: Whether the overrides come from a shell, for messages.
            validate_sweep_overrides: Whether to refuse several values of a key in one run.

        Raises:
            ConfigError: Hydra would execute something on its behalf.
        """
        # Hydra imports packages that the primary configuration names in a search path.
        primary = self.repository.load_config(config_name) if config_name else None
        if primary and OmegaConf.select(primary.config, "hydra.searchpath") is not None:
            raise ConfigError(_refusal("searchpath", "could import packages"))
        cfg = super().load_configuration(
            config_name, overrides, run_mode, from_shell, validate_sweep_overrides
        )
        plain: Any = OmegaConf.to_container(cfg.hydra, enum_to_str=True)
        for key, value in _leaves(plain):
            if refusal := self._why_refused(key, value, overrides):
                raise ConfigError(_refusal(f"{key}={one_line(value, 60)}", refusal))
        return cfg

    def _why_refused(self, key: str, value: Any, overrides: Sequence[str]) -> str:
        if key in ("overrides.task", "overrides.hydra"):
            return "" if value in overrides else "could pass arguments"
        is_trusted = (key, repr(value)) in self._trusted or WRITTEN_BY_HYDRA.fullmatch(key)
        is_given = any(f"hydra.{key}.".startswith(f"{name}.") for name in self._given)
        return "" if is_trusted or is_given else _why_refused(key, value)


def _plugin_defaults() -> Iterator[dict[str, Any]]:
    """Yield the default nodes of the launchers and sweepers that are installed."""
    for group in ("launcher", "sweeper"):
        for option in ConfigStore.instance().repo["hydra"].get(group, {}).values():
            if not isinstance(option, dict):
                yield {group: OmegaConf.to_container(option.node)}


def check_folder_size(
    folder: Path,
    max_entries: int = MAX_ENTRIES,
    max_file: int = MAX_FILE,
    max_folder: int = MAX_FOLDER,
) -> None:
    """Check that a folder of configurations costs bounded time and memory to compose.

    Args:
        folder: The folder; links are followed.
        max_entries: Largest number of files and folders.
        max_file: Largest size of a YAML file in bytes.
        max_folder: Largest size of all YAML files in bytes.

    Raises:
        ConfigError: It holds too much, or a file expands to too much.
    """
    n_bytes = 0
    for path in _yaml_files(folder, max_entries):
        try:
            size = path.stat().st_size
            n_bytes += size
            if size > max_file or n_bytes > max_folder:
                raise ConfigError(f"{one_line(path)}: too much YAML for a folder of configurations")
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
            if root is not None and not _is_bounded(root):
                raise ConfigError(f"{one_line(path)}: too many aliases or nested parts")
        except RecursionError as error:
            raise ConfigError(f"{one_line(path)}: too many aliases or nested parts") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            # Hydra cannot read it, either.
            continue


def _yaml_files(folder: Path, max_entries: int) -> Iterator[Path]:
    n_entries = 0
    for root, folders, files in os.walk(folder, followlinks=True):
        n_entries += len(folders) + len(files)
        if n_entries > max_entries or len(Path(root).relative_to(folder).parts) > MAX_DEPTH:
            raise ConfigError(
                f"{folder}: too many or too deep folders; give a folder of configurations only"
            )
        for name in sorted(files):
            if name.lower().endswith(".yaml") and Path(root, name).is_file():
                yield Path(root, name)


def _is_bounded(root: yaml.Node) -> bool:
    stack, n_nodes = [(root, 0)], 0
    while stack:
        node, depth = stack.pop()
        n_nodes += 1
        if n_nodes > MAX_NODES or depth > MAX_NESTING:
            return False
        if isinstance(node, yaml.MappingNode):
            stack += [(child, depth + 1) for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            stack += [(item, depth + 1) for item in node.value]
    return True


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield full keys and values; an item of a list has the key of the list."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _leaves(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for item in node:
            yield from _leaves(item, key)
    else:
        yield key, node


def _why_refused(key: str, value: Any) -> str:
    """Return why an entry is refused, or nothing."""
    last = key.rpartition(".")[2]
    if not ALLOWED_KEYS.fullmatch(key) or not isinstance(value, str | int | float | None):
        return "could execute something"
    if last in ALLOWED_VALUES:
        expected = " or ".join(sorted(ALLOWED_VALUES[last]))
        return "" if value in ALLOWED_VALUES[last] else f"may only be {expected}"
    text = str(value)
    if key.startswith("sweeper.params."):
        name = key.removeprefix("sweeper.params.")
        is_safe = not ({"hydra", "plugins"} & set(re.split(r"\W+", name)) or "@" in name)
        return "" if is_safe else "could execute something"
    if "_logging." in key:
        return "could execute something" if "${" in text or "://" in text else ""
    if key.startswith("help."):
        return ""
    if not text.isprintable():
        return "holds a line break or a control character"
    is_harmless = FREE_KEYS.fullmatch(key) or "${" not in _without_harmless(text)
    return "" if is_harmless else "holds an interpolation"


def _without_harmless(text: str) -> str:
    while (shorter := HARMLESS.sub("", text)) != text:
        text = shorter
    return text


def _refusal(entry: str, reason: str) -> str:
    return (
        f"hydra.{entry} is refused in a folder of configurations, which may be untrusted: "
        f"it {reason}. If you trust it, give it on the command line"
    )
