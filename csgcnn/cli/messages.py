"""What went wrong, told to whoever typed the command: in a line or two, with the nearest right spelling."""

import os
import sys
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)

from csgcnn.config.compose import ALIASES
from csgcnn.config.paths import CONF
from csgcnn.errors import UserError, first_line, nearest

EXTRAS = {
    "joblib": "sweep",
    "submitit_slurm": "slurm",
    "submitit_local": "slurm",
}  # launchers of packages to install
EXPECTED = {
    "IntegerNode": "an integer",
    "FloatNode": "a number",
    "BooleanNode": "true or false",
    "StringNode": "a text",
    "ListConfig": "a list, such as [a,b]",
}
# Whoever sets it wants tracebacks; main sets it for itself, so that Hydra raises what it would print. Processes that a
# launcher starts see what main set, and learn from the other variable whose wish it is.
WANTS_TRACEBACKS = (
    os.environ.setdefault("CSGCNN_TRACEBACKS", os.environ.get("HYDRA_FULL_ERROR", "0")) == "1"
)


def report(what: str, error: Exception) -> int:
    """Print why `what` failed, in a line; returns the exit code."""
    print(f"csgcnn {what}: {format_error(error)}", file=sys.stderr)
    return error.exit_code if isinstance(error, UserError) else 1


def format_error(error: Exception) -> str:
    """The error in a line; the traceback of an unexpected one goes to error.log in the folder of the run."""
    if WANTS_TRACEBACKS:
        traceback.print_exception(error)
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"out of memory ({first_line(error)}); a smaller batch_size or fewer workers need less"
        )
    return f"internal error, {type(error).__name__}: {first_line(error)}; {_keep_traceback(error)}"


def _keep_traceback(error: Exception) -> str:
    """Write the traceback to error.log in the run's folder; says where it is, or the traceback itself."""
    lines = "".join(traceback.format_exception(error))
    folder = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else "."
    try:
        with open(Path(folder, "error.log"), "a", encoding="utf-8") as file:
            file.write(lines)
    except OSError:
        return f"please report it:\n{lines}"
    return f"please report it with {Path(folder, 'error.log')}"


def report_refusal(command: str, error: Exception) -> int:
    """Print why Hydra refused the words or the configuration, or a cluster the jobs; returns the exit code."""
    if type(error).__module__.startswith("submitit.") and not WANTS_TRACEBACKS:
        print(f"csgcnn {command}: the launcher says: {first_line(error)}", file=sys.stderr)
        return 1
    if WANTS_TRACEBACKS or not isinstance(
        error, HydraException | OmegaConfBaseException | ValueError
    ):
        traceback.print_exception(error)
        return 1
    print(f"csgcnn {command}: {explain(error)}", file=sys.stderr)
    return 2


def explain(error: Exception) -> str:
    """What is wrong with the words or the configuration, in a line, with the nearest right spelling."""
    cause = error.__cause__
    if isinstance(error, OverrideParseException):
        quoted = "\"{}='...'\"".format(error.override.partition("=")[0])
        return f"cannot read {error.override!r}; expected key=value, with special characters quoted: {quoted}"
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and option in EXTRAS:
            return f"{group}={option} is in an extra: pip install 'csgcnn[{EXTRAS[option]}]'"
        options = list(error.options or sorted(path.stem for path in (CONF / group).glob("*.yaml")))
        return (
            f"{group} has no option {option!r}, only {', '.join(options)}{nearest(option, options)}"
        )
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return _explain_key(cause)
    if isinstance(cause, ValidationError):
        override = str(error).removeprefix("Error merging override ") or cause.full_key
        expected = EXPECTED.get(type(cause.child_node).__name__)
        return (
            f"{override}: expected {expected}" if expected else f"{override}: {first_line(cause)}"
        )
    if "Ambiguous value" in str(error):
        return (
            f"{first_line(error)}; several values need --multirun, a list needs brackets: key=[a,b]"
        )
    if isinstance(error, InterpolationResolutionError):  # where the folder of a benchmark is named
        return first_line(error).removeprefix("ConfigError raised while resolving interpolation: ")
    return first_line(error) if str(error) or cause is None else first_line(cause)


def _explain_key(unknown: ConfigKeyError | ConfigAttributeError) -> str:
    key, parent, full_key = str(unknown.key), unknown.parent_node, str(unknown.full_key)
    if str(unknown.ref_type_str).startswith("Dict["):
        return f"{full_key} is new there; to add it, write +{full_key}=..."
    siblings = [sibling for sibling in map(str, parent) if sibling != "hydra"]
    if "." not in full_key:
        siblings += [
            "experiment",
            *ALIASES,
        ]  # groups that no key of the configuration is named after
    home = full_key.rpartition(".")[0]
    hint = nearest(full_key, [f"{home}.{sibling}" for sibling in siblings] if home else siblings)
    if not hint:
        namesakes = [full for full in _full_keys(parent._get_root()) if full.endswith(f".{key}")]
        hint = (
            f"; did you mean {' or '.join(namesakes)}?"
            if namesakes
            else f"; expected {', '.join(siblings)}"
        )
    return f"there is no key {full_key}{hint}"


def _full_keys(node: DictConfig, prefix: str = "") -> list[str]:
    full_keys = []
    for key in map(str, node):
        child = node._get_node(key)
        full_keys.append(prefix + key)
        if isinstance(child, DictConfig) and key != "hydra":
            full_keys += _full_keys(child, f"{prefix}{key}.")
    return full_keys
