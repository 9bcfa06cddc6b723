"""Replayed steps with a CUDA graph emulated on the CPU; test_cuda.py uses a GPU."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.augment import DistanceNoise
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError
from csgcnn.training.cuda_graphs import WARM_UP, RecordedStep
from csgcnn.training.trainer import Trainer

Make = Callable[..., Trainer]
SGD = partial(torch.optim.SGD, lr=0.05)


class EmulatedGraph(TorchDispatchMode):
    """Record the operations of a step with their tensors, and repeat them on the same memory.

    As in a CUDA graph, numbers and sizes of the recorded step are constants, and recording changes
    neither the buffers of the model nor the random numbers.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = aliases((args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, *arguments, aliases(result)))
        return result

    def record(self, work: Callable[[], Tensor]) -> Tensor:
        buffers, random = deepcopy(dict(self.model.named_buffers())), torch.get_rng_state()
        with self:
            loss = work()
        for name, buffer in self.model.named_buffers():
            buffer.copy_(buffers[name])
        torch.set_rng_state(random)
        return loss

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.operations:
            args, kwargs = aliases((args, kwargs))
            for old, new in zip(tensors(result), tensors(func(*args, **kwargs)), strict=True):
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


def aliases(tree: Any) -> Any:
    """The same memory in other tensors, whose shapes no later operation changes."""
    return tree_map(lambda item: item.detach() if isinstance(item, Tensor) else item, tree)


def tensors(result: Any) -> list[Tensor]:
    items = result if isinstance(result, tuple | list) else [result]
    return [item for item in items if isinstance(item, Tensor)]


def with_replay(trainer: Trainer) -> Trainer:
    """The trainer with replayed steps on the CPU."""
    trainer.replay = RecordedStep(
        trainer.store,
        trainer.settings.batch_size,
        trainer.compute_gradients,
        trainer.trained,
        partial(EmulatedGraph, trainer.model),
    )
    return trainer


@pytest.fixture(scope="module")
def large_store(dielectric_records: list[Record]) -> GraphStore:
    records = dielectric_records[:200]
    graphs = connect([to_crystal(record.source) for record in records], GraphSettings())
    return GraphStore(graphs, [record.id for record in records], {}, GraphSettings())


def recorded_step(store: GraphStore, batch_size: int) -> RecordedStep:
    """A step that has seen its first batches."""
    step = RecordedStep(
        store, batch_size, lambda rows, batch: torch.zeros(()), [], partial(EmulatedGraph, None)
    )
    first = [step.accepts(torch.arange(batch_size)) for _ in range(WARM_UP)]
    assert first == [False] * WARM_UP
    return step


def test_batches_of_another_length_are_not_replayed(large_store: GraphStore) -> None:
    step = recorded_step(large_store, 32)
    assert [step.accepts(torch.arange(n)) for n in (31, 32, 33)] == [False, True, False]


def test_a_batch_too_large_to_pad_is_not_replayed(large_store: GraphStore) -> None:
    step = recorded_step(large_store, 200)
    assert not step.accepts(torch.arange(200))


def test_few_padded_sizes_hold_every_batch(large_store: GraphStore) -> None:
    step, sizes = recorded_step(large_store, 32), set()
    torch.manual_seed(0)
    for _ in range(200):
        rows = torch.randperm(200)[:32]
        padded, size = step.padded_size(rows), large_store.size(rows)
        assert all(big > small for big, small in zip(padded, size, strict=True))
        mean = [32 * total / 200 for total in large_store.size()]
        # a step of the sizes is 1/16 of the mean; atoms and edges share the larger of their steps
        excess = min((big - small) / m for big, small, m in zip(padded, size, mean, strict=True))
        assert excess <= 1 / 16 + 2 / min(mean)
        sizes.add(padded)
    assert len(sizes) < 25


@pytest.mark.parametrize(
    "settings",
    [{"grad_clip": 0.1}, {"augment": DistanceNoise(0.3, decay=0.8)}],
    ids=["clipped", "augmented"],
)
def test_a_replayed_step_equals_the_padded_step(settings: dict[str, Any], trainer: Make) -> None:
    """To the bit, for a batch other than the recorded one, later in the training."""
    replayed, direct = with_replay(trainer(**settings)), trainer(**settings)
    recorded = torch.arange(16)
    size = replayed.replay.padded_size(recorded)
    shifted = (torch.arange(start, start + 16) for start in range(1, 24))
    other = next(rows for rows in shifted if replayed.replay.padded_size(rows) == size)
    for rows, progress in ((recorded, 0.0), (other, 0.5)):
        replayed.progress.fill_(progress)
        torch.manual_seed(1)
        loss = replayed.replay(rows)
        direct.progress.fill_(progress)
        direct.optimizer.zero_grad()
        torch.manual_seed(1)
        expected = direct.compute_gradients(rows, direct.store.padded(rows, *size))
        assert torch.equal(loss, expected)
        for weight, its in zip(replayed.trained, direct.trained, strict=True):
            assert torch.equal(weight.grad, its.grad)
    assert len(replayed.replay.recordings) == 1
    buffers = zip(replayed.model.buffers(), direct.model.buffers(), strict=True)
    assert all(torch.equal(buffer, its) for buffer, its in buffers)


def test_a_replayed_training_equals_a_plain_one(trainer: Make) -> None:
    settings = {"make_optimizer": SGD, "max_epochs": 2, "batch_size": 8, "grad_clip": 0.5}
    plain = trainer(**settings)
    plain.fit(lambda: None)
    made, steps = with_replay(trainer(**settings)), list[bool]()
    train_step = made.train_step

    def count(rows: Tensor, batch: Any) -> Tensor:
        steps.append(batch is None)
        return train_step(rows, batch)

    made.train_step = count  # type: ignore[method-assign]
    made.fit(lambda: None)
    assert sum(steps) == len(steps) - WARM_UP, "all other steps are replayed"
    for row, its in zip(made.history, plain.history, strict=True):
        for name in ("train_loss", "val_loss", "val_mae_band_gap"):
            assert row[name] == pytest.approx(its[name], rel=1e-5), name
    for model, other in ((made.model, plain.model), (made.evaluated, plain.evaluated)):
        torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=1e-4, atol=1e-5)


def test_a_step_that_cannot_be_recorded_names_the_key(trainer: Make) -> None:
    made = with_replay(trainer())

    class FailingGraph(EmulatedGraph):
        def record(self, work: Callable[[], Tensor]) -> Tensor:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    made.replay.make_graph = partial(FailingGraph, made.model)
    with pytest.raises(UserError, match=r"stream is capturing; set trainer\.cuda_graphs=false"):
        made.replay(torch.arange(16))
