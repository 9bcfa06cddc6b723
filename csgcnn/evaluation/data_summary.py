"""Describe a data set without training."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.crystals.descriptors import GRAMS_PER_CM3
from csgcnn.crystals.elements import SYMBOLS, masses
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.data.composition_model import composition_features
from csgcnn.data.compositions import compositions
from csgcnn.data.dataset import Dataset
from csgcnn.data.leakage import count_duplicates, shared_compositions
from csgcnn.data.splits import split_dataset
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.errors import UserError
from csgcnn.evaluation.data_findings import (
    conflicts,
    duplicate_groups,
    fit_compositions,
    outliers,
    similar_pairs,
)
from csgcnn.evaluation.data_report import (
    DataReport,
    Distribution,
    ElementShare,
    SplitReport,
    TargetReport,
)

Array = NDArray[Any]


def report_data(
    dataset: Dataset,
    source: str,
    warnings: Sequence[StructureNote],
    split: SplitSettings,
    max_difference: float,
) -> DataReport:
    """Describe a data set.

    Args:
        dataset: The data set; it may have no targets.
        source: Path of the data.
        warnings: Warnings about its structures.
        split: How it would be split.
        max_difference: Difference of the labels of equal and similar crystals beyond which they
            are listed, in standard deviations.
    """
    store = dataset.store
    groups, similar = duplicate_groups(store), similar_pairs(store)
    n_unread = len(dataset.rejected) + len(dataset.rows) - len(store)
    return DataReport(
        source=source,
        n_records=len(store) + n_unread,
        n_usable=len(dataset.rows),
        rejected=list(dataset.rejected),
        warnings=list(warnings),
        columns=list(store.columns),
        n_compositions=len(set(compositions(store))),
        elements=_elements(store),
        cells=_cells(store),
        targets=_targets(dataset),
        duplicates=[_ids(store, rows) for rows in groups],
        similar=[(store.ids[one], store.ids[other]) for one, other in similar],
        conflicts=conflicts(dataset, groups, similar, max_difference),
        max_difference=max_difference,
        split=_split(dataset, split),
    )


def _ids(store: GraphStore, rows: Iterable[int]) -> list[str]:
    return [store.ids[row] for row in rows]


def _elements(store: GraphStore) -> list[ElementShare]:
    n_crystals, shares = np.zeros(len(SYMBOLS), dtype=np.int64), np.zeros(len(SYMBOLS))
    for block in store.blocks():
        graph = np.repeat(np.arange(len(block)), block.n_atoms)
        pairs = np.unique(graph * len(SYMBOLS) + block.atomic_number)
        n_crystals += np.bincount(pairs % len(SYMBOLS), minlength=len(SYMBOLS))
        share = block.atom_multiplicity / block.n_sites[graph]
        shares += np.bincount(block.atomic_number, share, minlength=len(SYMBOLS))
    found = np.flatnonzero(n_crystals).tolist()
    found.sort(key=lambda z: (-n_crystals[z], z))
    return [ElementShare(SYMBOLS[z], int(n_crystals[z]), shares[z] / len(store)) for z in found]


def _cells(store: GraphStore) -> dict[str, Distribution]:
    parts: dict[str, list[Array]] = {}
    for block in store.blocks():
        graph = np.repeat(np.arange(len(block)), block.n_atoms)
        mass = masses()[block.atomic_number] * block.atom_multiplicity
        volume = np.abs(np.linalg.det(block.lattice.astype(np.float64)))
        density = np.bincount(graph, mass, minlength=len(block)) / volume * GRAMS_PER_CM3
        sizes = {"sites": block.n_sites, "distinct sites": block.n_atoms}
        if not store.settings.compress:
            del sizes["distinct sites"]
        columns = {"volume per atom [Å3]": volume / block.n_sites, "density [g/cm3]": density}
        for name, values in {**sizes, **columns}.items():
            parts.setdefault(name, []).append(values)
    found = {name: Distribution.of(np.concatenate(values)) for name, values in parts.items()}
    return {name: distribution for name, distribution in found.items() if distribution}


def _targets(dataset: Dataset) -> list[TargetReport]:
    is_regression = any(not target.classes for target in dataset.targets)
    features = composition_features(dataset.store) if is_regression else None
    columns = dataset.values.double().unbind(1)
    return [
        _target(dataset.store, target, column, features)
        for target, column in zip(dataset.targets, columns, strict=True)
    ]


def _target(
    store: GraphStore, target: Target, column: Tensor, features: Tensor | None
) -> TargetReport:
    rows = column.isfinite().nonzero().squeeze(1)
    values, n_missing = column[rows], len(column) - len(rows)
    if features is None or target.classes:
        counts = torch.bincount(values.long(), minlength=len(target.classes)).tolist()
        classes = dict(zip(target.classes, counts, strict=True))
        return TargetReport(target.name, "", n_missing, None, classes, [], None)
    distribution, median = Distribution.of(values.numpy()), values.median().expand(len(values))
    return TargetReport(
        target.name,
        target.unit,
        n_missing,
        distribution,
        {},
        outliers(values, median, _ids(store, rows.tolist())) if distribution else [],
        fit_compositions(store, rows, values, features),
    )


def _split(dataset: Dataset, settings: SplitSettings) -> SplitReport:
    try:
        split = split_dataset(dataset, settings)
    except UserError as error:
        return SplitReport(settings.method, {}, problem=str(error))
    return SplitReport(
        settings.method,
        {part: len(rows) for part, rows in split.items()},
        count_duplicates(dataset.store, split)[0],
        shared_compositions(dataset.store, split),
    )
