"""Data-parallel training over `torch.distributed`; with one process each function is a no-op.

All processes take the same steps at the same time, so each calls every function here.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from csgcnn.errors import UserError, first_line
from csgcnn.hardware import Rank, rendezvous

TIMEOUT = timedelta(minutes=10)  # for a process that does not answer; a dead one is noticed at once
T = TypeVar("T")


class RankLostError(UserError):
    """Another process of the run ended, or does not answer."""


class CollectiveError(UserError):
    """Raised on all ranks when one fails; rank 0 reports it."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def process_group(own: Rank) -> Iterator[None]:
    """Connect the processes of a run within the block.

    Args:
        own: Rank of this process.

    Raises:
        RankLostError: The others cannot be reached.
    """
    os.environ.update(rendezvous())
    try:
        dist.init_process_group(rank=own.rank, world_size=own.world_size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise RankLostError(
            f"process {own.rank} cannot connect to the {own.world_size - 1} others: "
            f"{first_line(error)}"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; rank 0 writes files and messages."""
    return dist.get_rank() if dist.is_initialized() else 0


def shard_rows(rows: Tensor) -> Tensor:
    """Return the part of rows [n_rows] of this rank; parts differ in length by at most one."""
    return rows if world_size() == 1 else rows.tensor_split(world_size())[rank()]


def gather(own: Tensor, n_rows: int) -> Tensor:
    """Concatenate the results that the ranks computed for their shards.

    The gradient flows to the part of this rank only, so that the sum of the gradients of all ranks
    is the gradient of one process.

    Args:
        own: Result of this rank [n_rows of its shard, ...].
        n_rows: Rows of all shards.

    Returns:
        Results of all ranks [n_rows, ...].
    """
    if world_size() == 1:
        return own
    lengths = [len(part) for part in torch.empty(n_rows).tensor_split(world_size())]
    padded = own.new_zeros(max(lengths), *own.shape[1:])
    padded[: len(own)] = own.detach()
    parts = [part[:length] for part, length in zip(all_gather(padded), lengths, strict=True)]
    parts[rank()] = own
    return torch.cat(parts)


def all_gather(tensor: Tensor) -> Tensor:
    """Return the tensors of all ranks, of the same shape: [world_size, ...]."""
    if world_size() == 1:
        return tensor.unsqueeze(0)
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    with _connected():
        dist.all_gather(parts, tensor.contiguous())
    return torch.stack(parts)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum over the ranks."""
    if world_size() > 1:
        with _connected():
            dist.all_reduce(tensor := tensor.clone())
    return tensor


def max_over_ranks(value: int) -> int:
    """Return the largest value of the ranks."""
    return int(all_gather(torch.tensor(value)).max())


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their sums over the ranks."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if world_size() > 1 and gradients:
        summed = sum_over_ranks(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = summed.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def broadcast_tensor(tensor: Tensor) -> Tensor:
    """Return the tensor of rank 0, which has the same shape on all ranks."""
    if world_size() > 1:
        with _connected():
            dist.broadcast(tensor := tensor.clone(), 0)
    return tensor


def broadcast_text(text: str = "") -> str:
    """Return the text of rank 0."""
    if world_size() == 1:
        return text
    box = [text]
    with _connected():
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
    return box[0]


def run_on_all_ranks(function: Callable[[], T]) -> T:
    """Return the result of a function that may fail on any rank.

    Args:
        function: Function without collective operations.

    Raises:
        CollectiveError: It raised a UserError on at least one rank.
    """
    if world_size() == 1:
        return function()
    result, failure = None, None
    try:
        result = function()
    except UserError as error:
        failure = error
    failures: list[tuple[str, int] | None] = [None] * world_size()
    with _connected():
        dist.all_gather_object(failures, failure and (str(failure), failure.exit_code))
    for source, found in enumerate(failures):
        if found:
            message, exit_code = found
            message = f"process {source}: {message}" if source else message
            raise CollectiveError(message, exit_code) from failure
    return result  # type: ignore[return-value]


def check_equal_on_all_ranks(text: str, advice: str) -> None:
    """Check that a text is the same on all ranks.

    Args:
        text: The text of this rank.
        advice: End of the error message.

    Raises:
        CollectiveError: It is not.
    """
    first = broadcast_text(text)

    def check() -> None:
        if text != first:
            raise UserError(f"it has {text}, but process 0 has {first}; {advice}")

    run_on_all_ranks(check)


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RankLostError(
            "another process of this run ended or does not answer; csgcnn train resume=DIR "
            f"continues from the last checkpoint ({first_line(error)})"
        ) from error
