"""Error messages of the command line: one or two lines, with the nearest valid spelling."""

import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)

from csgcnn.cli.overrides import as_typed
from csgcnn.config.locations import option_names
from csgcnn.config.names import unknown_key
from csgcnn.config.override import ALIASES
from csgcnn.errors import UserError, first_line, nearest

# Extras that install a launcher.
EXTRAS = {"joblib": "sweep", "submitit_slurm": "slurm", "submitit_local": "slurm"}
EXPECTED = {
    "IntegerNode": "an integer",
    "FloatNode": "a number",
    "BooleanNode": "true or false",
    "StringNode": "a text",
    "ListConfig": "a list, such as [a,b]",
}


def _wants_tracebacks() -> bool:
    """Return whether the user asked for tracebacks, with HYDRA_FULL_ERROR=1."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def print_error(source: str, error: Exception) -> int:
    """Print an error in one line.

    Args:
        source: Command that failed.
        error: The error.

    Returns:
        The exit code.
    """
    print(f"csgcnn {source}: {format_error(error)}", file=sys.stderr)
    return error.exit_code if isinstance(error, UserError) else 1


def format_error(error: Exception) -> str:
    """Return an error as one line; write the traceback of an internal error to error.log."""
    if _wants_tracebacks():
        traceback.print_exception(error)
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"out of memory ({first_line(error)}); a smaller batch_size or fewer workers need less"
        )
    return f"internal error, {type(error).__name__}: {first_line(error)}; {_keep_traceback(error)}"


def print_hydra_error(command: str, error: Exception, arguments: Sequence[str]) -> int:
    """Print an error of Hydra, or of a cluster that refuses the jobs.

    Args:
        command: Command that was given.
        error: The error.
        arguments: Arguments that were given, which the message repeats as they were typed.

    Returns:
        The exit code.
    """
    if type(error).__module__.startswith("submitit.") and not _wants_tracebacks():
        print(f"csgcnn {command}: the launcher reports: {first_line(error)}", file=sys.stderr)
        return 1
    if isinstance(error, OSError) and error.filename and not _wants_tracebacks():
        # No folder can be made for the run.
        reason = f"cannot write {error.filename}: {error.strerror}"
        print(f"csgcnn {command}: {reason}; give another folder", file=sys.stderr)
        return 1
    expected = HydraException | OmegaConfBaseException | ValueError | yaml.YAMLError
    is_expected = isinstance(error, expected)
    if _wants_tracebacks() or not is_expected:
        traceback.print_exception(error)
        return 1
    message = as_typed(format_hydra_error(error, command), command, arguments)
    print(f"csgcnn {command}: {message}", file=sys.stderr)
    # No folder can be made for the run; nothing is wrong with the command line.
    return 1 if str(error).startswith(f"{UserError.__name__} raised while resolving") else 2


def format_hydra_error(error: Exception, command: str = "train") -> str:
    """Return a mistake in overrides or configuration as one line, with the nearest spelling.

    Args:
        error: The error of Hydra.
        command: Command that was given.
    """
    cause, text = error.__cause__, first_line(error)
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        return f"{mark.name}, line {mark.line + 1}: {error.problem}; expected YAML"
    if (match := re.match(r"In '(.+)': \w+ raised while composing", text)) and error.__context__:
        # A mistake in a file of configurations.
        return f"{match[1]}.yaml: {_format_cause(error.__context__, command)}"
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        if key.endswith((".yaml", ".yml")):
            file = Path(key)
            flags = f"--config-dir {file.parent} --config-name {file.stem}"
            return f"cannot read '{key}'; a file of overrides is given by {flags}"
        quotes = f" with special characters quoted, {key}='...': \"{key}='{value}'\""
        return f"cannot read '{error.override}'; expected key=value{quotes if equals else ''}"
    if isinstance(error, MissingConfigException):
        return _format_missing(error)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError | ValidationError):
        return _format_cause(cause, command, str(error).removeprefix("Error merging override "))
    if "Ambiguous value" in str(error):
        return f"{text}; several values need --multirun, a list needs brackets: key=[a,b]"
    if isinstance(error, InterpolationResolutionError):
        # A resolver raised an error of csgcnn.
        return re.sub(r"^\w+ raised while resolving interpolation: ", "", text)
    return text if str(error) or cause is None else first_line(cause)


def _format_cause(cause: BaseException, command: str, override: str = "") -> str:
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return _format_unknown_key(cause, command)
    if not isinstance(cause, ValidationError):
        return first_line(cause)
    expected = EXPECTED.get(type(cause.child_node).__name__)
    key, _, value = override.partition("=")
    if type(cause.child_node).__name__ == "ListConfig" and value:
        return f"{override}: expected a list: {key}=[{value}]"
    reason = f"expected {expected}" if expected else first_line(cause)
    if (match := re.match(r"Merge error: .+ value: (.+)", reason)) and not override:
        return f"expected keys, not {match[1]:.40}"
    return f"{override or cause.full_key}: {reason}"


def _keep_traceback(error: Exception) -> str:
    """Write the traceback to error.log in the run directory; return advice for the user."""
    lines = "".join(traceback.format_exception(error))
    folder = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else "."
    try:
        with open(Path(folder, "error.log"), "a", encoding="utf-8") as file:
            file.write(lines)
    except OSError:
        return f"please report it:\n{lines}"
    return f"please report it with {Path(folder, 'error.log')}"


def _format_missing(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if not group:
        name = option.removesuffix(".yaml")
        return f"there is no file {name}.yaml; --config-dir FOLDER names the folder that holds it"
    if group == "hydra/launcher" and option in EXTRAS:
        return f"{group}={option} needs an extra: pip install 'csgcnn[{EXTRAS[option]}]'"
    options = list(error.options or option_names(group))
    hint = nearest(option, options)
    return f"{group} has no option {option!r}; expected {', '.join(options)}{hint}"


def _format_unknown_key(unknown: ConfigKeyError | ConfigAttributeError, command: str) -> str:
    parent, full_key = unknown.parent_node, str(unknown.full_key)
    if str(unknown.ref_type_str).startswith("Dict["):
        return f"{full_key} is new there; to add it, write +{full_key}=..."
    siblings = [sibling for sibling in map(str, parent) if sibling != "hydra"]
    if section := full_key.rpartition(".")[0]:
        known = [f"{section}.{sibling}" for sibling in siblings]
    else:
        # No key of the configuration has the name of these groups.
        known = [*siblings, "experiment", *ALIASES]
    return str(unknown_key(full_key, known, command))
