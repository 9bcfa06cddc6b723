"""Graphs of records that are not kept, such as structures to predict."""

from collections.abc import Iterable, Iterator, Sequence

import torch

from csgcnn.crystals.graph_builder import GraphChunk, GraphPlan, build_graphs
from csgcnn.crystals.records import Record
from csgcnn.data.store import GraphStore


def stores_of(
    records: Iterable[Record], plan: GraphPlan, columns: Sequence[str], device: torch.device
) -> Iterator[tuple[GraphChunk, GraphStore | None]]:
    """Yield the graphs of records in chunks, in order; memory does not grow with their number.

    Args:
        records: Records with structures.
        plan: How their graphs are built.
        columns: Names of the columns of the records to keep.
        device: Device of the graphs.

    Yields:
        A chunk, and a store of its graphs; None if no record of it is usable.
    """
    for chunk in build_graphs(records, plan):
        store = None
        if chunk.graphs is not None:
            ids = [record.id for record in chunk.records]
            kept = {name: [one.columns.get(name) for one in chunk.records] for name in columns}
            store = GraphStore(chunk.graphs, ids, kept, plan.settings).to(device)
        yield chunk, store
