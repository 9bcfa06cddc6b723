"""Clusters of crystals by k-means."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csgcnn.config.settings.dataset import SplitSettings
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER, elemental
from csgcnn.data.composition_model import N_FEATURES, composition_features
from csgcnn.data.compositions import compositions
from csgcnn.data.store import GraphStore
from csgcnn.errors import ConfigError

# The clusters are those of the data, whatever `dataset.split.seed` is.
SEED, ITERATIONS = 0, 100
# Digits that do not depend on the description of a crystal: of float64, and of float16.
DIGITS = {"composition": 6, "site_features": 2}

# Ends of fractions and means among the features of a composition.
SECTIONS = (MAX_ATOMIC_NUMBER + 1, (MAX_ATOMIC_NUMBER + 1 + N_FEATURES) // 2)

Array = NDArray[Any]


def clusters(store: GraphStore, rows: Tensor, settings: SplitSettings) -> list[int]:
    """Return the cluster of each row, by k-means of standardized features.

    The features are means and standard deviations of elemental properties over the atoms, or means
    of the site features. The rows are sorted by composition and features, so that the clusters do
    not depend on the order of the rows.

    Args:
        store: The data set.
        rows: [n] int64.
        settings: Reads clusters and cluster_by.

    Raises:
        ConfigError: There are no site features, or fewer different rows than clusters.
    """
    from scipy.cluster.vq import kmeans2

    if settings.cluster_by == "site_features" and not store.settings.site_features:
        raise ConfigError(
            "dataset.split.cluster_by=site_features needs the features of a potential, such as "
            "graph.site_features=[sevennet]"
        )
    by_composition = settings.cluster_by == "composition"
    values = (_properties(store) if by_composition else _site_features(store))[rows.numpy()]
    values = values.round(DIGITS[settings.cluster_by])
    formula = compositions(store)
    names = [formula[row] for row in rows.tolist()]
    order = sorted(range(len(rows)), key=lambda i: (names[i], *values[i].tolist()))
    values = values[order]
    n_different = len(np.unique(values, axis=0))
    if n_different < settings.clusters:
        raise ConfigError(
            f"dataset.split.clusters={settings.clusters}: expected at most {n_different}, the "
            "number of different crystals"
        )
    width = values.std(0)
    standardized = (values - values.mean(0)) / np.where(width > 1e-9, width, np.inf)
    with warnings.catch_warnings():
        # An empty cluster leaves fewer of them.
        warnings.simplefilter("ignore")
        _, found = kmeans2(standardized, settings.clusters, ITERATIONS, minit="++", seed=SEED)
    labels = np.empty(len(rows), dtype=np.int64)
    labels[order] = found
    return labels.tolist()


def _properties(store: GraphStore) -> Array:
    """Return means and deviations of elemental properties [n_graphs, 16]."""
    width, features = elemental().shape[1], composition_features(store)
    _, mean, deviation = features.tensor_split(SECTIONS, dim=1)
    return torch.cat([mean[:, :width], deviation[:, :width]], dim=1).numpy()


def _site_features(store: GraphStore) -> Array:
    """Return the means of the site features [n_graphs, n_site_features]."""
    means = []
    for graphs in store.blocks():
        first_atom = np.cumsum(graphs.n_atoms) - graphs.n_atoms
        weighted = graphs.site_features.astype(np.float64) * graphs.atom_multiplicity[:, None]
        means.append(np.add.reduceat(weighted, first_atom) / graphs.n_sites[:, None])
    return np.concatenate(means)
