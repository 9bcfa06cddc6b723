"""Limits and error messages for reading files that may come from anyone.

A file of a kilobyte can ask for gigabytes of memory or for hours, without a line of code in it.
Everything that is read is therefore checked, in memory and time proportional to the file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from torch import Tensor

from csgcnn.errors import UserError, first_line


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest sizes of a file and its content.

    Attributes:
        file_bytes: Bytes of the file.
        description_bytes: Bytes of the JSON description of a checkpoint.
        members: Members of a zip archive.
        depth: Containers within containers.
        sharing: How often a byte may be counted by tensors that share memory.
    """

    file_bytes: int = 4 * 2**30
    description_bytes: int = 2**25
    members: int = 100_000
    depth: int = 50
    sharing: int = 10


LIMITS = Limits()


class RefusedError(Exception):
    """The file holds more than plain data, or more than the limits allow."""


class TruncatedError(Exception):
    """The file is of another kind, or only a part of it is there."""


@contextmanager
def reading(path: Path, kind: str, limits: Limits = LIMITS) -> Iterator[int]:
    """Turn any error of the block, which reads an untrusted file, into a UserError of one line.

    Args:
        path: The file.
        kind: The expected content, for messages, such as "csgcnn checkpoint".
        limits: Largest sizes.

    Yields:
        The size of the file in bytes.

    Raises:
        UserError: It is not a file, it is too large, or the block raised an error.
    """
    if path.is_dir():
        raise UserError(f"{path} is a directory; did you mean {path}/checkpoints/best.ckpt?")
    if not path.is_file():
        raise UserError(f"{path} is not a regular file; expected a {kind}")
    size = path.stat().st_size
    if size > limits.file_bytes:
        raise UserError(
            f"{path} is not a {kind}: it has {size:,} bytes; expected at most {limits.file_bytes:,}"
        )
    try:
        yield size
    except UserError:
        raise
    except (RefusedError, RecursionError) as error:
        is_deep = isinstance(error, RecursionError)
        reason = "its parts are nested too deeply" if is_deep else first_line(error)
        raise UserError(f"{path} is refused, nothing was executed: {reason}") from error
    except (TruncatedError, BadZipFile) as error:
        message = f"{path} is not a {kind}, or it is truncated ({size:,} bytes): "
        raise UserError(message + first_line(error)) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # readers of damaged files raise errors of many classes
        raise UserError(f"{path} is damaged: {first_line(error)}") from error


def checked_tree(tree: Any, max_nodes: int, file_bytes: int, limits: Limits = LIMITS) -> Any:
    """Copy a tree of plain data: dicts, lists, tuples, strings, numbers, None and tensors.

    Parts that occur several times are copied, and counted, each time.

    Args:
        tree: The tree, which may contain itself.
        max_nodes: Largest number of nodes.
        file_bytes: Size of the file that it was read from.
        limits: Largest sizes.

    Raises:
        RefusedError: It holds anything else or exceeds a limit.
    """
    nodes_left, bytes_left = max_nodes, limits.sharing * file_bytes

    def copy(node: Any, depth: int) -> Any:
        nonlocal nodes_left, bytes_left
        nodes_left -= 1
        if nodes_left < 0 or depth > limits.depth:
            raise RefusedError("its parts are nested too deeply or contain each other")
        kind = type(node)
        if node is None or kind in (str, int, float, bool):
            return node
        if kind is dict:
            return {key: copy(item, depth + 1) for key, item in node.items()}
        if kind is list or kind is tuple:
            return kind(copy(item, depth + 1) for item in node)
        if kind is Tensor:
            bytes_left -= node.numel() * node.element_size()
            if bytes_left < 0:
                raise RefusedError(f"its tensors {list(node.shape)} are larger than the file")
            return node
        raise RefusedError(f"it holds an object of the class {kind.__name__}")

    return copy(tree, 0)
