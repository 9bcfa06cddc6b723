"""Embeddings of crystals: the vectors that a model compares."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.crystals.graph_builder import GraphPlan, Rejected
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.data.batch import GraphBatch
from csgcnn.data.given_inputs import NO_INPUTS, NOTHING_GIVEN, Given, Inputs, records_of, set_point
from csgcnn.data.given_inputs import points as points_of
from csgcnn.data.inputs import usable_rows
from csgcnn.data.record_stores import stores_of
from csgcnn.data.store import GraphStore, Scalar
from csgcnn.errors import ConfigError, StructureError
from csgcnn.evaluation.inference import in_batches
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.predictor import Predictor
from csgcnn.runs.predictions import Prediction, concatenate
from csgcnn.runs.row_predictor import STORE_ROWS

Array = NDArray[Any]
# Graphs of consecutive crystals, with those that have none and warnings about the others.
Chunk = tuple[GraphStore | None, Sequence[Rejected], Sequence[StructureNote]]


@dataclass(frozen=True, slots=True)
class Embedding:
    """Vectors of crystals, in the order of the structures.

    Attributes:
        prediction: Ids, predictions, the nearest training crystals, and what was rejected.
        vectors: Vectors of the crystals [n_ids, n_features].
        standardized: The same as distances compare them, if the checkpoint holds embeddings of
            training crystals: divided by their standard deviations; otherwise `vectors`.
        elements: Atomic numbers of each crystal.
        known: Values of columns of the data, by name of the target; None where missing.
        sites: Vectors of the sites of each crystal [n_sites, n_features], in the order in which
            they were read; empty if they were not asked for.
        site_elements: Atomic numbers of the sites of each crystal [n_sites].
    """

    prediction: Prediction
    vectors: Array
    standardized: Array
    elements: list[set[int]]
    known: dict[str, list[Scalar]]
    sites: list[Array] = field(default_factory=list)
    site_elements: list[Array] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Ids of the crystals."""
        return self.prediction.ids


def embed(
    model: str | Path | Sequence[str | Path] | Predictor,
    structures: Any,
    inputs: Inputs = NO_INPUTS,
    sites: bool = False,
) -> Embedding:
    """Return the vectors of structures, as `csgcnn embed` writes them.

    Args:
        model: Checkpoint, several of an ensemble, of which the first one embeds, or a loaded model.
        structures: As for `Predictor.predict`.
        inputs: As for `Predictor.predict`.
        sites: Whether to return the vectors of the sites, too.

    Raises:
        StructureError: A structure cannot be used.
        UserError: The checkpoint cannot be used.

    Examples:
        >>> embedding = csgcnn.embed("best.ckpt", structures)
        >>> embedding.vectors  # [n_structures, n_features]
    """
    predictor = model if isinstance(model, Predictor) else Predictor.load(model)
    records, given = records_of(structures, inputs, predictor.input_columns)
    plan = GraphPlan(predictor.graph, workers=1)
    chunks = (
        (store, chunk.rejected, chunk.warnings)
        for chunk, store in stores_of(records, plan, predictor.inputs, predictor.device)
    )
    found = embed_chunks(predictor, chunks, sites=sites, given=given)
    for id_, reason in found.prediction.rejected:
        raise StructureError(f"{id_}: {reason}")
    return found


def embed_chunks(
    predictor: Predictor,
    chunks: Iterable[Chunk],
    batch_size: int = 256,
    sites: bool = False,
    given: Given = NOTHING_GIVEN,
) -> Embedding:
    """Embed the crystals of chunks; all results are in memory.

    Args:
        predictor: The model.
        chunks: Graphs with the settings of the model, on its device.
        batch_size: Crystals per forward pass.
        sites: Whether to return the vectors of the sites, too.
        given: A value of inputs for all crystals, from `given_values`.

    Raises:
        ConfigError: Several values of an input are given.
    """
    point, *others = points_of(given)
    if others:
        raise ConfigError(f"inputs.{next(iter(given))}: expected one value, not several")
    network = predictor.network
    parts, rejected, warnings = list[Prediction](), list[Rejected](), list[StructureNote]()
    vectors, elements = list[Tensor](), list[set[int]]()
    known: dict[str, list[Scalar]] = {name: [] for name in predictor.names}
    of_sites = list[tuple[Array, Array]]()
    for store, of_chunk, notes in chunks:
        rejected += of_chunk
        warnings += notes
        if store is None:
            continue
        for start in range(0, len(store), STORE_ROWS):
            rows = range(start, min(start + STORE_ROWS, len(store)))
            index, lacking = usable_rows(store, rows, predictor.input_columns, [*given])
            rejected += lacking
            if not len(index):
                continue
            set_point(store, predictor.input_columns, point)
            parts.append(predictor.predict_rows(store, rows, batch_size, given))
            vectors.append(in_batches(network, network.pooled, store, index, batch_size).cpu())
            elements += [store.elements[row] for row in index.tolist()]
            for name, column in known.items():
                values = store.columns.get(name, [None] * len(store))
                column += [values[row] for row in index.tolist()]
            of_sites += _sites(network, store, index, batch_size) if sites else ()
    prediction = concatenate([predictor.empty(), *parts])
    prediction = replace(prediction, rejected=rejected, warnings=warnings)
    joined = torch.cat(vectors) if vectors else torch.empty(0, 0)
    trained = predictor.embeddings
    standardized = trained.standardize(joined) if trained and len(joined) else joined
    return Embedding(
        prediction,
        joined.numpy(),
        standardized.numpy(),
        elements,
        known,
        [values for values, _ in of_sites],
        [z for _, z in of_sites],
    )


@torch.inference_mode()
def _sites(
    network: CrystalGraphNetwork | Ensemble, store: GraphStore, rows: Tensor, batch_size: int
) -> Iterator[tuple[Array, Array]]:
    """Yield vectors and atomic numbers of the sites of each crystal."""
    first = network.members[0] if isinstance(network, Ensemble) else network
    for part in rows.split(batch_size):
        batch = store.batch(part)
        vectors = _atom_vectors(cast(CrystalGraphNetwork, first), batch)
        sizes = batch.graph_index.bincount(minlength=len(part)).tolist()
        of_crystals = zip(vectors.split(sizes), batch.atomic_number.split(sizes), strict=True)
        for row, (values, z) in zip(part.tolist(), of_crystals, strict=True):
            expanded = (store.site_values(nodes, row).cpu().numpy() for nodes in (values, z))
            yield tuple(expanded)  # type: ignore[misc]


def _atom_vectors(network: CrystalGraphNetwork, batch: GraphBatch) -> Tensor:
    """Return what is pooled: features behind the last block, or those that a kernel head pools."""
    head = network.fitted_kernel_head
    if head and "crystal" not in head.inputs and "sites" in head.inputs:
        return batch.site_features.float()
    return network.atom_features(batch)[-1]
