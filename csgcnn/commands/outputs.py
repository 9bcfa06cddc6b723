"""Check where a command may write before it does any work."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from csgcnn.errors import ConfigError, UserError

# Files by which a run directory and the folder of an evaluation are known.
RUN_FILES = ("config.yaml", "checkpoints")
EVALUATION_FILES = ("metrics.json", "predictions.csv")


def check_parent(output: Path) -> None:
    """Check that the folder of an output exists.

    Raises:
        UserError: It does not.
    """
    if not output.parent.is_dir():
        raise UserError(f"output={output}: there is no folder {output.parent}")


def check_output(
    output: Path, others: Sequence[Path], inputs: Iterable[Path], overwrite: bool
) -> None:
    """Check that an output, and the files beside it, replace nothing that the user may need.

    Args:
        output: The file to write.
        others: Files that are written beside it.
        inputs: Files that the command reads.
        overwrite: Whether files of an earlier command may be replaced.

    Raises:
        ConfigError: A file exists, or is an input of the command.
        UserError: There is no such folder.
    """
    check_parent(output)
    if output.is_dir():
        raise ConfigError(f"output={output} is a folder; give the name of a file")
    read = {os.path.realpath(path) for path in inputs}
    for path in (output, *others):
        if os.path.realpath(path) in read:
            raise ConfigError(f"output={output}: {path} is an input of this command")
    existing = [str(path) for path in (output, *others) if os.path.lexists(path)]
    if existing and not overwrite:
        raise ConfigError(
            f"{' and '.join(existing)} exist{'s' * (len(existing) == 1)}: give another output=, or "
            "overwrite=true to replace"
        )


def check_folder(output: Path, overwrite: bool, files: Sequence[str] = EVALUATION_FILES) -> None:
    """Check that a folder of results replaces nothing that the user may need.

    Args:
        output: The folder.
        overwrite: Whether files of an earlier command may be replaced.
        files: Names of the files that are written.

    Raises:
        ConfigError: It is a file, or holds a run or one of the files.
    """
    if output.exists() and not output.is_dir():
        hint = ", or a table: NAME.csv" if files is EVALUATION_FILES else ""
        raise ConfigError(f"output={output} is a file; give a folder{hint}")
    if any((output / name).exists() for name in RUN_FILES):
        raise ConfigError(f"output={output} is a run directory; give another folder")
    existing = [name for name in files if (output / name).exists()]
    if existing and not overwrite:
        raise ConfigError(
            f"output={output} holds {' and '.join(existing)}: give another folder, or "
            "overwrite=true to replace"
        )
