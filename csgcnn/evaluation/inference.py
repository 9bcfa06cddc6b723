"""Predictions for many rows of a store, batch by batch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from csgcnn import distributed
from csgcnn.data.batch import GraphBatch
from csgcnn.data.store import GraphStore
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork


def predict_rows(
    model: CrystalGraphNetwork | Ensemble, store: GraphStore, rows: Tensor, batch_size: int
) -> Tensor:
    """Values in physical units and probabilities of classes: [n_rows, sum of n_outputs] on the store's device."""
    return in_batches(model, model, store, rows, batch_size)


def predict_with_std(
    model: CrystalGraphNetwork | Ensemble, store: GraphStore, rows: Tensor, batch_size: int
) -> tuple[Tensor, Tensor | None]:
    """Predictions as of `predict_rows`, and their standard deviations if the model tells any, of the same shape."""
    if not model.has_std:
        return predict_rows(model, store, rows, batch_size), None
    both = in_batches(
        model, lambda graph: torch.stack(model.with_std(graph), 1), store, rows, batch_size
    )
    return both[:, 0], both[:, 1]


@torch.inference_mode()
def in_batches(
    model: nn.Module,
    answer: Callable[[GraphBatch], Tensor],
    store: GraphStore,
    rows: Tensor,
    batch_size: int,
) -> Tensor:
    """What `answer` says of the rows while `model` is in evaluation mode; each of several processes does a share."""
    was_training = model.training
    model.eval()
    parts = [
        answer(batch) for batch in store.batches(distributed.shard_rows(rows).split(batch_size))
    ]
    model.train(was_training)
    return distributed.gather(torch.cat(parts), len(rows))
