"""Predictions for the rows of a store, batch by batch: the one prediction loop."""

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
    """Predict values in physical units and probabilities of classes.

    Args:
        model: The model.
        store: Graphs, on the device of the model.
        rows: Rows to predict [n_rows] int64, on the host.
        batch_size: Crystals per forward pass.

    Returns:
        Predictions [n_rows, sum of n_outputs], on the device.
    """
    return in_batches(model, model, store, rows, batch_size)


def predict_with_std(
    model: CrystalGraphNetwork | Ensemble, store: GraphStore, rows: Tensor, batch_size: int
) -> tuple[Tensor, Tensor | None]:
    """Predict as `predict_rows`, with standard deviations if the model predicts them.

    Args:
        model: The model.
        store: Graphs, on the device of the model.
        rows: Rows to predict [n_rows] int64, on the host.
        batch_size: Crystals per forward pass.

    Returns:
        Predictions and standard deviations, both [n_rows, sum of n_outputs], on the device.
    """
    if not model.has_std:
        return predict_rows(model, store, rows, batch_size), None

    def with_std(graph: GraphBatch) -> Tensor:
        return torch.stack(model.with_std(graph), 1)

    both = in_batches(model, with_std, store, rows, batch_size)
    return both[:, 0], both[:, 1]


def predict_with_pooled(
    model: CrystalGraphNetwork | Ensemble, store: GraphStore, rows: Tensor, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Predict as `predict_with_std`, and return the embeddings of the crystals.

    Args:
        model: The model.
        store: Graphs, on the device of the model.
        rows: Rows to predict [n_rows] int64, on the host.
        batch_size: Crystals per forward pass.

    Returns:
        Predictions and standard deviations, NaN if the model predicts none, both [n_rows, sum of
        n_outputs], and embeddings [n_rows, n_features], on the device.
    """
    widths: list[int] = []

    def compute(graph: GraphBatch) -> Tensor:
        pooled = model.pooled(graph)
        parts = [*model.with_std(graph, pooled), pooled]
        widths[:] = [part.shape[1] for part in parts]
        return torch.cat(parts, 1)

    values, std, pooled = in_batches(model, compute, store, rows, batch_size).split(widths, 1)
    return values, std, pooled


def embed_rows(
    model: CrystalGraphNetwork | Ensemble, store: GraphStore, rows: Tensor, batch_size: int
) -> Tensor:
    """Return the embeddings of crystals, see `CrystalGraphNetwork.pooled`.

    Args:
        model: The model.
        store: Graphs, on the device of the model.
        rows: Rows [n_rows] int64, on the host.
        batch_size: Crystals per forward pass.

    Returns:
        [n_rows, n_features], on the device.
    """
    return in_batches(model, model.pooled, store, rows, batch_size)


@torch.inference_mode()
def in_batches(
    model: nn.Module,
    compute: Callable[[GraphBatch], Tensor],
    store: GraphStore,
    rows: Tensor,
    batch_size: int,
) -> Tensor:
    """Apply a function to the rows of a store while a model is in evaluation mode.

    The rows are divided among the ranks, and every rank returns all results.

    Args:
        model: The model that the function uses.
        compute: Maps a batch to results [n_graphs, ...].
        store: Graphs, on the device of the model.
        rows: Rows [n_rows] int64, on the host.
        batch_size: Crystals per batch.

    Returns:
        The results [n_rows, ...], on the device.
    """
    was_training = model.training
    model.eval()
    parts = distributed.shard_rows(rows).split(batch_size)
    results = [compute(batch) for batch in store.batches(parts)]
    model.train(was_training)
    return distributed.gather(torch.cat(results), len(rows))
