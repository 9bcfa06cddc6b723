"""Augmentation: random changes of a training batch, on its device.

Random rotations and translations are not among them, because a graph of distances does not depend
on orientation and origin (`csgcnn evaluate check_invariance=true` verifies this). Augmentations
change distances, and act during training only.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Protocol

import torch
from torch import Tensor

from csgcnn.config.settings import Setting
from csgcnn.data.batch import GraphBatch

# Å: smallest distance that noise may lead to.
SHORTEST = 0.1
SMALLEST_STRETCH = 0.1
# Å: distances that differ by less are equal to rounding.
SAME_DISTANCE = 1e-3
Decay = Annotated[
    float,
    Setting(
        "Fraction of the training over which the noise fades to zero; 0 keeps it constant.",
        at_least=0,
        at_most=1,
    ),
]


class Augmentation(Protocol):
    """Change a training batch; a class of a plugin needs this method only."""

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        """Return a changed batch.

        Args:
            batch: The batch, which must not be changed in place. Padding nodes and edges must stay
                finite. Shapes must not change, and values must not be read on the host.
            progress: Completed fraction of the training, a scalar from 0 to 1 on the device of the
                batch.
        """


class DistanceNoise:
    """Add Gaussian noise to every distance between two atoms, the same in both directions.

    distance' = max(distance + sigma / sqrt(n) * N(0, 1), 0.1 Å) for an edge that stands for n equal
    distances. It gets the mean of n draws: to first order, the noise of compressed and full graphs
    has the same effect.

    Displaced atoms would change the distances to all their neighbors together; here each distance
    has a draw of its own.
    """

    def __init__(
        self,
        sigma: Annotated[
            float, Setting("Standard deviation of the noise.", unit="Å", at_least=0)
        ] = 0.02,
        decay: Decay = 0.0,
    ) -> None:
        self.sigma = sigma
        self.decay = decay

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        sigma = self.sigma * fading(progress, self.decay)
        neighbor, center = batch.edge_index
        # An edge between equivalent sites stands for both directions of its distances. Padding
        # edges have count 0.
        n_distances = batch.edge_count / torch.where(neighbor == center, 2, 1)
        deviation = sigma * n_distances.clamp(min=1).rsqrt()
        draws = torch.randn_like(batch.distance).index_select(0, _first_of_pair(batch))
        noisy = batch.distance + draws * deviation
        return replace(batch, distance=noisy.clamp(min=SHORTEST))


class Strain:
    """Scale all distances of a crystal by one random factor: an isotropic strain.

    distance' = max(distance * s, 0.1 Å), s = max(1 + sigma * N(0, 1), 0.1), with one draw per
    crystal. Lengths among the global features are multiplied by s, the volume per atom by s³, and
    the density by s⁻³.
    """

    def __init__(
        self,
        sigma: Annotated[float, Setting("Standard deviation of the strain.", at_least=0)] = 0.01,
        decay: Decay = 0.0,
    ) -> None:
        self.sigma = sigma
        self.decay = decay

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        sigma = self.sigma * fading(progress, self.decay)
        strain = torch.randn(batch.n_graphs, device=batch.distance.device) * sigma
        stretch = (1 + strain).clamp(min=SMALLEST_STRETCH)
        graph_of_edge = batch.graph_index.index_select(0, batch.edge_index[1])
        distance = batch.distance * stretch.index_select(0, graph_of_edge)
        return replace(
            batch,
            distance=distance.clamp(min=SHORTEST),
            global_features=batch.scaled_features(stretch),
        )


def _first_of_pair(batch: GraphBatch) -> Tensor:
    """Return, for each edge, one of the edges that are its distance in the two directions.

    Edges i <- j and j <- i are matched in the order of their distances: atoms may have several
    images of each other as neighbors. An edge without an opposite is its own. Shapes are fixed and
    nothing is read on the host, as a CUDA graph demands. Returns numbers of edges [n_edges] int64.
    """
    neighbor, center = batch.edge_index
    low, high = torch.minimum(neighbor, center), torch.maximum(neighbor, center)
    key = 2 * (low * len(batch.atomic_number) + high) + (neighbor > center)
    order = batch.distance.argsort(stable=True)
    order = order[key[order].argsort(stable=True)]
    key, distance = key[order], batch.distance[order]
    place = torch.arange(len(key), device=key.device)
    rank = place - torch.searchsorted(key, key)
    # Images of an atom come in opposite pairs, one after the other.
    is_self = low[order] == high[order]
    opposite = torch.searchsorted(key, key - key % 2) + rank
    opposite = torch.where(is_self, place - rank % 2, opposite).clamp(max=len(key) - 1)
    is_pair = key[opposite] == key - key % 2
    is_pair &= (distance[opposite] - distance).abs() < SAME_DISTANCE
    first = torch.empty_like(order)
    first[order] = order[torch.where(is_pair, opposite, place)]
    return first


def fading(progress: Tensor, decay: float) -> Tensor:
    """Return a factor that falls linearly from 1 to 0, or a constant 1.

    Args:
        progress: Completed fraction of the training, a scalar.
        decay: Fraction of the training at which the factor reaches 0; 0 keeps it constant.
    """
    return (1 - progress / decay).clamp(min=0) if decay else torch.ones_like(progress)


class Augmentations:
    """Apply several augmentations, one after the other."""

    def __init__(self, parts: Mapping[str, Augmentation]) -> None:
        self.parts = parts

    def __call__(self, batch: GraphBatch, progress: Tensor) -> GraphBatch:
        for part in self.parts.values():
            batch = part(batch, progress)
        return batch
