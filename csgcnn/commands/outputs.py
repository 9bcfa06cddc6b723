"""Check where a command may write before it does any work."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from csgcnn.errors import ConfigError


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
    """
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
