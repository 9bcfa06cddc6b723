"""Steps read nothing from the device, so the host never waits for a GPU within an epoch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from csgcnn.data.store import GraphStore
from csgcnn.nn.convolutions import AttentionConvolution, GatedConvolution, IsomorphismConvolution
from csgcnn.training.trainer import Trainer

READS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "unique_dim", "_unique2"}


FUSED = partial(torch.optim.AdamW, lr=0.01, fused=True)  # as conf/optimizer/adamw.yaml has it


class Reads(TorchDispatchMode):
    """Record what makes the host wait: `item`, `bool(tensor)`, sizes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        masks = name == "index" and any(t is not None and t.dtype == torch.bool for t in args[1])
        sizes = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in READS or masks or sizes:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "convolution", [GatedConvolution, AttentionConvolution, IsomorphismConvolution]
)
def test_a_step_reads_nothing_from_the_device(
    convolution: type[nn.Module],
    precision: str,
    trainer: Callable[..., Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {
        "precision": precision,
        "grad_clip": 1.0,
        # the counter of the average is on the host
        "ema": None,
    }
    made = trainer(convolution=convolution, make_optimizer=FUSED, **settings)
    rows = made.split["train"][:16]
    batch = made.store.batch(rows)
    monkeypatch.setattr(made.store, "batch", lambda _: batch)
    with Reads() as reads:
        made.train_step(rows, made.store.batch(rows))
    assert reads.found == []
    with reads:
        assert made.losses.isfinite().all()
        batch.distance[batch.distance > 3]
    assert len(reads.found) == 2, "the test itself works"


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_an_epoch_reads_twice_at_its_end(
    n_epochs: int, trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(make_optimizer=FUSED, batch_size=20, grad_clip=1.0, ema=None)
    batch = made.store.batch(made.split["train"][:20])
    monkeypatch.setattr(made.store, "batch", lambda _: batch)
    with Reads() as reads:
        for _ in range(n_epochs):
            made.train_epoch(lambda: None)
            made.n_done = 0
    assert len(reads.found) == 2 * n_epochs, "whether all numbers are finite, and the mean loss"


def test_a_batch_is_collated_from_sizes_on_the_host(store: GraphStore) -> None:
    rows = torch.arange(16)
    expected = store.batch(rows)
    meta = GraphStore(store.graphs, store.ids, {}, store.settings).to("meta").batch(rows)
    for name in ("atomic_number", "edge_index", "distance", "global_features", "edge_count"):
        assert getattr(meta, name).shape == getattr(expected, name).shape
