"""Several processes that train one model together, through `torch.distributed`; alone, each function does nothing.

They take the same steps at the same time. What they tell each other are tensors and text, never pickles.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from csgcnn.errors import UserError, first_line
from csgcnn.hardware import Rank, meeting_point

PATIENCE = timedelta(
    minutes=10
)  # for a process that is alive but does not answer; a dead one is noticed at once
T = TypeVar("T")


class RankLostError(UserError):
    """Another process of the run ended, or answers no more."""


class CollectiveError(UserError):
    """What all processes raise, as one of them met it; the first one tells."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def process_group(place: Rank) -> Iterator[None]:
    """Meet the other processes, and part at the end.

    Raises:
        RankLostError: they do not come.
    """
    os.environ.update(meeting_point())
    try:
        dist.init_process_group(rank=place.rank, world_size=place.size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RankLostError(
            f"process {place.rank} cannot join the {place.size - 1} others: {first_line(error)}"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this one; the first, 0, writes and tells what all do."""
    return dist.get_rank() if dist.is_initialized() else 0


def shard_rows(rows: Tensor) -> Tensor:
    """The part of rows [n_rows] that is this process's; they differ in length by at most one."""
    return rows if world_size() == 1 else rows.tensor_split(world_size())[rank()]


def gather(own: Tensor, n_rows: int) -> Tensor:
    """Lay what the processes made of their shares of `n_rows` end to end: [n_rows, ...].

    The gradient flows to this process's own part alone, so that all gradients add up to that of one process.
    """
    if world_size() == 1:
        return own
    lengths = [len(part) for part in torch.empty(n_rows).tensor_split(world_size())]
    padded = own.new_zeros(max(lengths), *own.shape[1:])
    padded[: len(own)] = own.detach()
    parts = [part[:length] for part, length in zip(_exchange(padded), lengths, strict=True)]
    parts[rank()] = own
    return torch.cat(parts)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over the processes."""
    if world_size() > 1:
        with _connected():
            dist.all_reduce(tensor := tensor.clone())
    return tensor


def all_gather(tensor: Tensor) -> Tensor:
    """The tensors of all processes: [size, ...]."""
    return torch.stack(_exchange(tensor)) if world_size() > 1 else tensor.unsqueeze(0)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes."""
    _add_up([parameter.grad for parameter in parameters if parameter.grad is not None])


def average_tensors(tensors: Sequence[Tensor]) -> None:
    """Make tensors their means over the processes."""
    _add_up(tensors)
    for tensor in tensors:
        tensor.div_(world_size())


def max_over_ranks(value: int) -> int:
    """The largest of the processes' values."""
    return int(all_gather(torch.tensor(value)).max())


def broadcast_tensor(tensor: Tensor) -> Tensor:
    """The first process's tensor, of the same shape everywhere."""
    if world_size() > 1:
        with _connected():
            dist.broadcast(tensor := tensor.clone(), 0)
    return tensor


def broadcast_text(text: str = "") -> str:
    """The first process's text."""
    return _text(text, 0)


def run_on_all_ranks(make: Callable[[], T]) -> T:
    """What `make` gives, if it succeeds in all processes.

    Raises:
        CollectiveError: it failed in one, for the user's reason.
    """
    if world_size() == 1:
        return make()
    made, failure = None, None
    try:
        made = make()
    except UserError as error:
        failure = error
    codes = all_gather(torch.tensor(failure.exit_code if failure else 0)).tolist()
    for source, code in enumerate(codes):
        if code:
            told = _text(str(failure), source)
            raise CollectiveError(
                told if source == 0 else f"process {source}: {told}", code
            ) from failure
    return made  # type: ignore[return-value]


def check_agreed(text: str, advice: str) -> None:
    """Check that a text is the same in all processes.

    Raises:
        CollectiveError: it is not, with the advice.
    """
    if world_size() > 1:
        first = broadcast_text(text)
        run_on_all_ranks(lambda: _check_equal(text, first, advice))


def _check_equal(text: str, first: str, advice: str) -> None:
    if text != first:
        raise UserError(f"it has {text}, but the first has {first}; {advice}")


def _add_up(tensors: Sequence[Tensor]) -> None:
    if world_size() > 1 and tensors:
        summed = sum_over_ranks(torch.cat([tensor.flatten() for tensor in tensors]))
        for tensor, part in zip(
            tensors, summed.split([tensor.numel() for tensor in tensors]), strict=True
        ):
            tensor.copy_(part.view_as(tensor))


def _text(text: str, source: int) -> str:
    """The text of the process `source`."""
    content = torch.tensor(list(text.encode()), dtype=torch.uint8)
    with _connected():
        dist.broadcast(length := torch.tensor(len(content)), source)
        content = content if rank() == source else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(content, source)
    return bytes(content.tolist()).decode()


def _exchange(tensor: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    with _connected():
        dist.all_gather(parts, tensor.contiguous())
    return parts


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        told = "another process of this run ended or does not answer; resume= goes on from the last checkpoint"
        raise RankLostError(f"{told} ({first_line(error)})") from error
