"""Configurations that strangers made (`--config-dir`): what Hydra itself would execute in them is refused.

The sections that csgcnn reads go through `config.build`. The section `hydra` is Hydra's: it calls what callbacks,
logging handlers and plugins name, sets environment variables, writes log files and batch scripts. So only the keys in
KEYS may be there, whatever way a file ends up in that section: by its key, its folder, its header or a defaults list.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from csgcnn.errors import ConfigError

MOST_ENTRIES, DEEPEST_FOLDER = 20_000, 10
LARGEST_FILE, LARGEST_FOLDER = 200_000, 2_000_000  # bytes of YAML
MOST_NODES, DEEPEST_NODE = 100_000, 50  # of a file, an alias counted as what it stands for

KEYS = re.compile(
    r"mode|verbose|output_subdir|run\.dir|sweep\.(dir|subdir)|help\.(app_name|header|footer|template)"
    r"|job\.(name|chdir|config\.override_dirname\.(kv_sep|item_sep|exclude_keys))"
    r"|(job|hydra)_logging\.(version|disable_existing_loggers|root\.(level|handlers)|loggers\.[\w.]+\.(level|handlers)"
    r"|formatters\.\w+\.(format|datefmt)|handlers\.\w+\.(class|level|formatter|stream))"
    r"|callbacks\.\w+\._target_"
    r"|launcher\.(_target_|name|timeout_min|cpus_per_task|gpus_per_node|tasks_per_node|mem_gb|nodes|stderr_to_stdout"
    r"|partition|qos|comment|constraint|exclude|gres|cpus_per_gpu|gpus_per_task|mem_per_gpu|mem_per_cpu|account"
    r"|signal_delay_s|max_num_timeout|array_parallelism|n_jobs|backend|prefer|require|verbose|timeout|batch_size)"
    r"|sweeper\.(_target_|max_batch_size|direction|study_name|n_trials|n_jobs|max_failure_rate|prune_after|seed|params\..+)"
    r"|sweeper\.sampler\.(_target_|_partial_|[a-z]\w*)",
    re.ASCII,
)
ONE_OF = {
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
    "class": {
        "logging.StreamHandler",
        "logging.NullHandler",
    },  # a FileHandler writes whatever it likes where it likes
    "stream": {"ext://sys.stdout", "ext://sys.stderr"},
}
GROUPS = re.compile(
    r"hydra/(launcher|sweeper|sweeper/sampler|job_logging|hydra_logging|help|output)"
)
# Keys whose interpolations reach no script, no logging handler and no plugin.
FREE = re.compile(r"run\.dir|sweep\.subdir|output_subdir|mode|verbose|help\.\w+")
HARMLESS = re.compile(  # interpolations that make no line break
    r"\$\{(now:[%YmdHMSfjyb_.:-]+|hydra[.:](job\.(name|num)|runtime\.choices\.\w+)|oc\.env:\w+"
    r"|unique_dir:[^${}]*)\}"
)
OPTION = re.compile(r"[\w-]+(\.[\w-]+)*|~?", re.ASCII)
WAY_OUT = re.compile(r"\.\.|//|\\|\$|[^ -\x7e\xa0-\U0010ffff]")  # of a folder; or no text at all


class _RefusedError(Exception):
    """A key, and why it may not be there."""


def refuse_foreign_code(folder: Path) -> None:
    """Check that no configuration below `folder` makes Hydra execute something.

    Raises:
        ConfigError: one could; it names the file and the key. Or there is more than a configuration ever holds.
    """
    n_bytes = 0
    for path in _yaml_files(folder):
        try:
            n_bytes += path.stat().st_size
            if path.stat().st_size > LARGEST_FILE or n_bytes > LARGEST_FOLDER:
                raise _RefusedError(
                    "there is more YAML than configurations have; give a folder of nothing else"
                )
            _check_file(path.read_text(encoding="utf-8"), path.relative_to(folder).parts)
        except (_RefusedError, RecursionError) as error:
            reason = (
                str(error)
                if isinstance(error, _RefusedError)
                else "its parts are nested too deeply"
            )
            raise ConfigError("".join(filter(str.isprintable, f"{path}: {reason}"))) from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue  # Hydra cannot read it, either


def _yaml_files(folder: Path) -> Iterator[Path]:
    """All that Hydra could load from below a folder; it follows links."""
    n_entries = 0
    for root, folders, files in os.walk(folder, followlinks=True):
        n_entries += len(folders) + len(files)
        depth = len(Path(root).relative_to(folder).parts)
        if n_entries > MOST_ENTRIES or depth > DEEPEST_FOLDER:
            raise ConfigError(
                f"{folder} holds too many or too deep folders; give one that holds configurations only"
            )
        for name in sorted(files):
            if name.lower().endswith(".yaml") and Path(root, name).is_file():
                yield Path(root, name)


def _check_file(text: str, place: tuple[str, ...]) -> None:
    """Check a file whose place below the folder is, for Hydra, the place of its content, too."""
    for package in re.findall(r"@\s*package\s+(\S+)", text[:512]):  # as much as Hydra reads of it
        if _leads_to_hydra(package):
            raise _RefusedError(
                f"the header `@package {package}` is refused; write a section `hydra:` instead"
            )
    if not "".join(place).isprintable() or any("_global_" in name for name in place):
        raise _RefusedError("its name is refused")
    folders = [name.lower() for name in place[:-1]]  # some file systems do not tell them apart
    inside = place[folders.index("hydra") + 1 : -1] if "hydra" in folders else None
    root = yaml.compose(
        text, Loader=yaml.SafeLoader
    )  # the parser that Hydra uses; nothing is constructed
    for key, node in _leaves(root, inside):
        if key == ("defaults",):
            _check_defaults(node, inside is not None)
        else:
            _check_value(".".join(key), node)


def _leaves(
    root: yaml.Node | None, inside: tuple[str, ...] | None
) -> Iterator[tuple[tuple[str, ...], yaml.Node]]:
    """The values within sections `hydra`, with their keys there, and all defaults lists, with the key `defaults`."""
    stack = [(root, inside, 0)] if root is not None else []
    n_nodes = 0
    while stack:
        node, key, depth = stack.pop()
        n_nodes += 1
        if n_nodes > MOST_NODES or depth > DEEPEST_NODE:
            raise _RefusedError(
                "its aliases, or its nested parts, make it larger than a configuration is"
            )
        if isinstance(node, yaml.MappingNode):
            for name, child in reversed(node.value):
                is_defaults = name.value == "defaults" and (
                    key is None or (key == inside and depth == 0)
                )
                if is_defaults:
                    yield ("defaults",), child
                elif key is not None:
                    if name.tag != "tag:yaml.org,2002:str":
                        raise _RefusedError(f"hydra.{'.'.join(key)}: a key that is no text")
                    stack.append((child, (*key, name.value), depth + 1))
                else:
                    stack.append((child, () if name.value == "hydra" else None, depth + 1))
        elif isinstance(node, yaml.SequenceNode):
            stack += [(item, key, depth + 1) for item in reversed(node.value)]
        elif key is not None:
            yield key, node


def _check_value(key: str, node: yaml.Node) -> None:
    value, last = node.value, key.rpartition(".")[2]
    if not KEYS.fullmatch(key) or not re.fullmatch(
        r"tag:yaml.org,2002:(str|int|float|bool|null)", node.tag
    ):
        refusal = "could execute something"
    elif key.startswith("sweeper.params."):
        refusal = _refusal_of_sweep(key.removeprefix("sweeper.params."), value)
    elif last in ONE_OF:
        refusal = (
            "" if value in ONE_OF[last] else f"may only be {' or '.join(sorted(ONE_OF[last]))}"
        )
    elif "_logging." in key:
        refusal = "could execute something" if "${" in value or "://" in value else ""
    elif key.startswith("help."):
        refusal = ""
    elif not value.isprintable():
        refusal = "holds a line break or a control character"
    else:
        refusal = (
            ""
            if FREE.fullmatch(key) or "${" not in _without_harmless(value)
            else "holds an interpolation"
        )
    if refusal:
        raise _RefusedError(
            f"hydra.{key}={value:.60} is refused in a folder of configurations, which may be a stranger's: "
            f"it {refusal}. If it is yours, give it on the command line"
        )


def _refusal_of_sweep(name: str, value: str) -> str:
    """Why a parameter of a sweep, which is as good as a word of the command line, is refused."""
    if "hydra" in re.split(r"\W+", name) or "@" in name:
        return "changes the section hydra"
    return "could lead out of the folder" if WAY_OUT.search(value) else ""


def _without_harmless(value: str) -> str:
    while (shorter := HARMLESS.sub("", value)) != value:
        value = shorter
    return value


def _leads_to_hydra(package: str) -> bool:
    parts = re.split(r"[.:/\[\]@\s]+", package)
    return (
        "hydra" in parts
        or "$" in package
        or any("_global_" in part and part != "_global_" for part in parts)
    )


def _check_defaults(node: yaml.Node, is_in_hydra: bool) -> None:
    """Check that a defaults list moves nothing into the section hydra, and stays in the folder."""
    for entry in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if isinstance(entry, yaml.MappingNode):
            for key, chosen in entry.value:
                options = chosen.value if isinstance(chosen, yaml.SequenceNode) else [chosen]
                group, at, package = str(key.value).partition("@")
                _check_default(
                    group.split(" ")[-1],
                    at + package,
                    [str(option.value) for option in options],
                    is_in_hydra,
                )
        else:
            path, at, package = str(entry.value).partition("@")
            group, slash, option = path.rpartition("/")
            _check_default(group + slash, at + package, [option], is_in_hydra)


def _check_default(group: str, package: str, options: list[str], is_in_hydra: bool) -> None:
    """Check an entry: options of a group, such as `dataset` or `experiment/`, for a package, such as `@dataset`."""
    if is_in_hydra:  # whatever is in a folder hydra is looked at as what it becomes
        is_fine = (
            bool(re.fullmatch(r"[\w-]*", group))
            and all(map(OPTION.fullmatch, options))
            and not package
        )
    elif _leads_to_hydra(group):
        is_fine = (
            bool(GROUPS.fullmatch(group.strip("/")))
            and all(map(OPTION.fullmatch, options))
            and not package
        )
    else:
        is_fine = not (_leads_to_hydra(package) or WAY_OUT.search(group))
        is_fine = is_fine and not any(map(_leads_out, options))
    if not is_fine:
        raise _RefusedError(
            f"defaults: {group}{package}: {', '.join(options)} is refused, for it leads into the section hydra or "
            "out of the folder"
        )


def _leads_out(option: str) -> bool:
    """Whether an option, perhaps made of others as in `${dataset}_${model}`, can lead out of its group's folder."""
    return bool(WAY_OUT.search(option)) and not re.fullmatch(r"([\w-]|\$\{\w+\})+", option)
