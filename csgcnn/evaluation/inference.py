"""Predictions for the rows of a store, batch by batch: the one prediction loop."""

import math
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
    model: CrystalGraphNetwork | Ensemble,
    store: GraphStore,
    rows: Tensor,
    batch_size: int,
    by_member: bool = False,
) -> tuple[Tensor, Tensor]:
    """Predict as `predict_with_std`, and return the embeddings of the crystals.

    Args:
        model: The model.
        store: Graphs, on the device of the model.
        rows: Rows to predict [n_rows] int64, on the host.
        batch_size: Crystals per forward pass.
        by_member: Whether to return what each member of an ensemble predicts.

    Returns:
        Predictions and standard deviations, NaN if there are none, [n_rows, 2, n_networks, sum of
        n_outputs], and embeddings [n_rows, n_features], on the device. There is one network
        without `by_member`; `predicted` combines several.
    """
    shape: list[int] = []

    def compute(graph: GraphBatch) -> Tensor:
        pooled = model.pooled(graph)
        if by_member and isinstance(model, Ensemble):
            found = torch.stack(model.by_member(graph, pooled), 0).movedim(2, 0)
        else:
            found = torch.stack(model.with_std(graph, pooled), 1).unsqueeze(2)
        shape[:] = found.shape[1:]
        return torch.cat([found.flatten(1), pooled], 1)

    both = in_batches(model, compute, store, rows, batch_size)
    n_columns = math.prod(shape)
    return both[:, :n_columns].unflatten(1, shape), both[:, n_columns:]


def predicted(model: CrystalGraphNetwork | Ensemble, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictions and standard deviations of a model from outputs of its networks.

    Args:
        model: The model.
        outputs: What `predict_with_pooled` returns [n_rows, 2, n_networks, sum of n_outputs].

    Returns:
        Both [n_rows, sum of n_outputs].
    """
    if outputs.shape[2] > 1:
        assert isinstance(model, Ensemble), "only an ensemble has several networks"
        return model.combine(*outputs.permute(1, 2, 0, 3))
    return outputs[:, 0, 0], outputs[:, 1, 0]


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
