"""What the sites, elements and edges of crystals contribute to predictions."""

import warnings as python_warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from csgcnn.crystals.checks import FormulaMismatch
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.graph_builder import GraphPlan, Rejected
from csgcnn.crystals.graphs import find_neighbors, to_graphs
from csgcnn.crystals.records import Record
from csgcnn.crystals.structure_warnings import StructureNote, summary_lines
from csgcnn.data.given_inputs import NO_INPUTS, NOTHING_GIVEN, Given, Inputs, points, records_of
from csgcnn.data.inputs import Input, usable_rows
from csgcnn.data.record_stores import stores_of
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError, DataWarning, StructureError, UserError
from csgcnn.nn.attribution import EdgeWeights, check_explainable, contributions, edge_weights
from csgcnn.nn.ensemble import Ensemble
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.predictor import Predictor, load
from csgcnn.runs.explanations import CRYSTAL, REFERENCE, SITE, Explanation, Explanations
from csgcnn.runs.predictions import Prediction, concatenate, warning_lines

BATCH_SIZE = 32  # crystals that are explained at once


class Explained(NamedTuple):
    """Explanations of a chunk of records.

    Attributes:
        explanations: Those of the records that could be predicted.
        prediction: Their predictions; None if there are none.
        rejected: The other records.
        warnings: Warnings about structures.
    """

    explanations: list[Explanation]
    prediction: Prediction | None
    rejected: list[Rejected]
    warnings: list[StructureNote]


def explain(
    model: Predictor | str | Path, structures: Any, inputs: Inputs = NO_INPUTS
) -> Explanations:
    """Explain predictions, as `csgcnn explain` does.

    Args:
        model: A model that `csgcnn.load` returned, or its checkpoint.
        structures: Structures, as for `Predictor.predict`. Their ids are `structure 0`, ...
        inputs: Columns that the model reads beside the structures, by name.

    Returns:
        Tables of contributions, elements and edges, and the crystals with the contributions.

    Raises:
        StructureError: A structure cannot be used; the message gives position and reason.
        UserError: The model has a pooling or a head whose predictions are not sums over sites.

    Warns:
        DataWarning: A structure may be wrong, or is outside the domain of the training set.

    Examples:
        >>> model = csgcnn.load("best.ckpt")
        >>> csgcnn.explain(model, structures).contributions
    """
    predictor = model if isinstance(model, Predictor) else load(model)
    records, given = records_of(structures, inputs, predictor.input_columns)
    if not records:
        raise UserError("no structures given")
    chunks = list(explain_records(predictor, records, given))
    for id_, reason in (entry for chunk in chunks for entry in chunk.rejected):
        raise StructureError(f"{id_}: {reason}")
    notes = summary_lines([note for chunk in chunks for note in chunk.warnings])
    for line in [*notes, *domain_lines(chunks)]:
        python_warnings.warn(line, DataWarning, stacklevel=2)
    return Explanations.of(
        [one for chunk in chunks for one in chunk.explanations], predictor.targets
    )


def explain_records(
    predictor: Predictor,
    records: Iterable[Record],
    given: Given = NOTHING_GIVEN,
    batch_size: int = BATCH_SIZE,
    formula_mismatch: FormulaMismatch = "refuse",
) -> Iterator[Explained]:
    """Explain predictions for records in chunks, in order.

    Args:
        predictor: The model.
        records: Records with structures.
        given: A value of each input that is the same for all records, from `given_values`.
        batch_size: Crystals that are explained at once.
        formula_mismatch: What happens to a crystal that differs from the formula in its file.

    Raises:
        UserError: The model has a pooling or a head whose predictions are not sums over sites.
        ConfigError: An input is given several values.
    """
    if several := [name for name, values in given.items() if len(values) > 1]:
        raise ConfigError(f"inputs.{several[0]}: expected one value to explain predictions for")
    (point,) = points(given)
    records = (replace(record, columns=record.columns | point) for record in records)
    network = predictor.network
    members = network.members if isinstance(network, Ensemble) else [network]
    networks = [cast(CrystalGraphNetwork, member) for member in members]
    for member in networks:
        check_explainable(member)
    if grids := [target.name for target in predictor.targets if target.grid]:
        raise UserError(f"{grids[0]} has a grid: contributions to many points are not supported")
    plan = GraphPlan(
        predictor.graph, 1, formula_mismatch, chunk_size=batch_size, keep_crystals=True
    )
    for chunk, store in stores_of(records, plan, predictor.inputs, predictor.device):
        if store is None:
            yield Explained([], None, chunk.rejected, chunk.warnings)
            continue
        prediction = predictor.predict_rows(store, range(len(store)), batch_size)
        crystals = [cast(Crystal, record.source) for record in chunk.records]
        explanations = [*_explain_store(networks, store, crystals, predictor.input_columns)]
        rejected = [*chunk.rejected, *prediction.rejected]
        yield Explained(explanations, prediction, rejected, chunk.warnings)


def domain_lines(chunks: Iterable[Explained]) -> list[str]:
    """Return warnings about predictions outside the domain of the model."""
    found = [chunk.prediction for chunk in chunks if chunk.prediction]
    return warning_lines(concatenate(found)) if found else []


def _explain_store(
    networks: Sequence[CrystalGraphNetwork],
    store: GraphStore,
    crystals: Sequence[Crystal],
    inputs: Sequence[Input],
) -> Iterator[Explanation]:
    """Yield the explanations of the usable rows of a store, with edges between all sites."""
    rows, _ = usable_rows(store, range(len(store)), inputs)
    if not len(rows):
        return
    full = _uncompressed(store, crystals)
    usable_rows(full, range(len(full)), inputs)
    batch, of_sites = store.batch(rows), full.batch(rows)
    found = [contributions(network, batch) for network in networks]
    weights = [edge_weights(network, of_sites) for network in networks]
    nodes = torch.stack([one.sites for one in found], dim=1)
    others = {REFERENCE: torch.stack([one.reference for one in found])}
    of_crystal = [one.crystal for one in found if one.crystal is not None]
    others = {CRYSTAL: torch.stack(of_crystal), **others} if of_crystal else others
    importance, attention = torch.stack([one.importance for one in weights]), _attention(weights)
    graph_of_edge = of_sites.graph_index[of_sites.edge_index[1]]
    first_site = of_sites.n_sites.cumsum(0).long() - of_sites.n_sites.long()
    for i, row in enumerate(rows.tolist()):
        is_own = graph_of_edge == i
        sites = store.site_values(nodes[batch.graph_index == i], row).transpose(0, 1)
        values = torch.cat([sites, *(of_part[:, [i]] for of_part in others.values())], dim=1)
        yield Explanation(
            store.ids[row],
            crystals[row],
            [*[SITE] * sites.shape[1], *others],
            values.cpu().numpy(),
            (of_sites.edge_index[:, is_own] - first_site[i]).cpu().numpy(),
            of_sites.distance[is_own].cpu().numpy(),
            importance[:, is_own].cpu().numpy(),
            None if attention is None else attention[is_own].cpu().numpy(),
        )


def _attention(weights: Sequence[EdgeWeights]) -> Tensor | None:
    """Return the mean attention weights of the members, if all have as many blocks."""
    found = [one.attention for one in weights if one.attention is not None]
    if len(found) < len(weights) or len({one.shape for one in found}) > 1:
        return None
    return torch.stack(found).mean(0)


def _uncompressed(store: GraphStore, crystals: Sequence[Crystal]) -> GraphStore:
    """Return the graphs with a node for each site, whose edges join sites of the file."""
    settings = replace(store.settings, compress=False)
    neighbors = [find_neighbors(crystal, settings) for crystal in crystals]
    nodes = torch.from_numpy(store.graphs.site_features).split(store.graphs.n_atoms.tolist())
    features = [store.site_values(values, i).numpy() for i, values in enumerate(nodes)]
    graphs = to_graphs(crystals, neighbors, settings, features)
    return GraphStore(graphs, store.ids, store.columns, settings).to(store.device)
