"""Checkpoints: plain data that executes nothing when loaded."""

import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from csgcnn.errors import UserError

FORMAT = 1
REQUIRED = ("config", "targets", "elements", "state_dict")
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}  # format n -> function giving format n + 1


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint of dicts, lists, strings, numbers and tensors: whole or not at all."""
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **content}, file))


def write_atomically(path: Path, write: Callable[[Any], object]) -> None:
    """Let `write` fill a temporary file, flush it to the disk and rename it to `path`."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, upgraded to the present format; nothing in the file is executed.

    Raises:
        UserError: it is absent, truncated, no csgcnn checkpoint, holds a foreign class, or is of a newer format.
    """
    if not path.is_file():
        raise UserError(f"ckpt={path}: there is no such file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not a csgcnn checkpoint, or it is truncated ({path.stat().st_size} bytes)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds something other than plain data and was refused, nothing was executed: {_first_line(error)}"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise UserError(f"{path} is damaged and cannot be read: {_first_line(error)}") from error
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int) or version < 1 or any(key not in content for key in REQUIRED):
        raise UserError(f"{path} is not a csgcnn checkpoint: it lacks one of format, {', '.join(REQUIRED)}")
    if version > FORMAT:
        raise UserError(
            f"{path} has checkpoint format {version}, written by csgcnn {content.get('csgcnn', '?')}; "
            f"this version reads up to {FORMAT}: please update csgcnn"
        )
    for old in range(version, FORMAT):
        content = UPGRADES[old](content)
    return content


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "Unsupported" in line or "unsupported" in line]
    return (lines or str(error).splitlines() or [type(error).__name__])[0][:200]
