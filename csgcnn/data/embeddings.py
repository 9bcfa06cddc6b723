"""Embeddings of training crystals in a checkpoint, and how far other crystals are from them.

Features of an embedding are divided by their standard deviations on the training rows, because
their widths are arbitrary: the layer behind them can compensate any factor. Distances are
Euclidean. Validation crystals are new to the network and ordinary, so the percentile of a distance
is that among their distances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from csgcnn.errors import one_line

# Limits of what a checkpoint stores, and rows among which the stored ones are chosen.
MAX_ROWS, MAX_BYTES, MAX_CANDIDATES = 5000, 2_000_000, 20_000
# Crystals beyond this percentile of the validation distances are far from the training set.
FAR_PERCENTILE = 99
FAR = "far_from_training"
LARGEST = 60_000.0  # of float16
NEGLIGIBLE_STD = 1e-6  # relative to 1 + |mean|
ROUNDING = 1e-6  # of a squared distance, relative to the largest norm
CRYSTALS_AT_ONCE = 1024


class Nearest(NamedTuple):
    """The nearest stored training crystal of each crystal.

    Attributes:
        ids: Its id.
        distance: Standardized distance [n_crystals].
        percentile: Percentile of the distance among validation crystals [n_crystals], 0 to 100;
            NaN if there were none.
        reasons: Why a crystal is far from the training set; empty if it is not.
    """

    ids: list[str]
    distance: list[float]
    percentile: list[float]
    reasons: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Embeddings of training crystals.

    Attributes:
        ids: Ids of the stored crystals.
        vectors: Their standardized embeddings [n_ids, n_features] float16.
        mean: Mean of each feature on the training rows [n_features].
        scale: Its standard deviation [n_features].
        percentiles: Percentiles 0 to 100 of the distances of validation crystals to the stored
            ones [101]; empty without validation rows.
    """

    ids: list[str]
    vectors: Tensor
    mean: Tensor
    scale: Tensor
    percentiles: Tensor

    @classmethod
    def of(cls, ids: Sequence[str], train: Tensor, val: Tensor) -> "Embeddings":
        """Choose the training crystals to store, and measure the distances of validation crystals.

        Args:
            ids: Ids of training crystals.
            train: Their embeddings [n_ids, n_features].
            val: Embeddings of validation crystals [n_val, n_features].
        """
        std, mean = torch.std_mean(train.double(), dim=0, correction=0)
        std = torch.where(std > NEGLIGIBLE_STD * (1 + mean.abs()), std, 1.0)
        found = cls([], train[:0].half(), mean.float(), std.float(), train.new_empty(0))
        vectors = found.standardize(train)
        rows = spread_rows(vectors, max(1, min(MAX_ROWS, MAX_BYTES // (2 * train.shape[1]))))
        chosen = [ids[row] for row in rows.tolist()]
        found = cls(chosen, vectors[rows].half(), found.mean, found.scale, found.percentiles)
        if not len(val):
            return found
        distance = torch.tensor(found.nearest(val).distance, dtype=torch.float64)
        percentiles = distance.quantile(torch.linspace(0, 1, 101, dtype=torch.float64)).float()
        return cls(chosen, found.vectors, found.mean, found.scale, percentiles)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any] | None) -> "Embeddings | None":
        """Return the embeddings that a checkpoint holds, if it holds some."""
        if plain is None:
            return None
        return cls(ids=[one_line(id_) for id_ in plain["ids"]], **{k: plain[k] for k in TENSORS})

    def plain(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        tensors = {name: getattr(self, name).cpu().contiguous() for name in TENSORS}
        return {"ids": self.ids, **tensors}

    def standardize(self, vectors: Tensor) -> Tensor:
        """Return embeddings as distances compare them [n_crystals, n_features] float32.

        They are rounded as the stored ones, so that the distance of equal crystals is 0.
        """
        mean, scale = self.mean.to(vectors.device), self.scale.to(vectors.device)
        x = ((vectors - mean) / scale).nan_to_num(LARGEST).clamp(-LARGEST, LARGEST)
        return x.half().float()

    def nearest(self, vectors: Tensor) -> Nearest:
        """Return the nearest stored crystal of each crystal.

        Args:
            vectors: Embeddings [n_crystals, n_features].
        """
        stored = self.vectors.to(vectors.device).float()
        index, distance = [vectors.new_empty(0).long()], [vectors.new_empty(0).float()]
        for part in self.standardize(vectors).split(CRYSTALS_AT_ONCE):
            if len(part):
                index.append(torch.cdist(part, stored).argmin(1))
                # cdist rounds small distances
                distance.append((part - stored[index[-1]]).norm(dim=1))
        distances = torch.cat(distance).double().cpu().numpy()
        if not len(self.percentiles):
            percentile, limit = np.full(len(distances), np.nan), np.inf
        else:
            known = self.percentiles.double().cpu().numpy()
            percentile = np.interp(distances, known, np.arange(101.0))
            limit = known[FAR_PERCENTILE]
        return Nearest(
            [self.ids[i] for i in torch.cat(index).tolist()],
            distances.tolist(),
            percentile.tolist(),
            [f"{FAR}:{d:.4g} (0 to {limit:.4g})" * bool(d > limit) for d in distances.tolist()],
        )


TENSORS = ("vectors", "mean", "scale", "percentiles")


def spread_rows(vectors: Tensor, n_rows: int) -> Tensor:
    """Choose rows that are far from each other, by farthest-point selection.

    The first row is the one farthest from 0, each further row the one farthest from those chosen
    (Gonzalez, Theor. Comput. Sci. 38, 293, 1985): no row is farther from the chosen rows than twice
    the smallest possible distance. Copies of chosen rows are left out.

    Args:
        vectors: [n, n_features].
        n_rows: Largest number of rows to choose; if there are no more, all are chosen.

    Returns:
        Chosen rows in ascending order, at most n_rows, int64.
    """
    if len(vectors) <= n_rows:
        return torch.arange(len(vectors))
    norms = vectors.square().sum(1)
    squared, chosen = norms.clone(), list[int]()
    while len(chosen) < n_rows and squared.max() > ROUNDING * norms.max():
        row = int(squared.argmax())
        # |a - b|² by one product of a matrix and a vector
        to_row = norms + norms[row] - 2 * (vectors @ vectors[row])
        squared = torch.minimum(squared, to_row) if chosen else to_row
        chosen.append(row)
    return torch.tensor(chosen).sort().values


def is_plain(value: Any) -> bool:
    """Return whether a value of an untrusted checkpoint is one of `Embeddings.plain`."""
    if value is None:
        return True
    ids = value.get("ids") if isinstance(value, dict) else None
    if not isinstance(ids, list) or not all(isinstance(id_, str) for id_ in ids):
        return False
    tensors = [t for name in TENSORS if isinstance(t := value.get(name), Tensor)]
    if len(tensors) < len(TENSORS) or not all(bool(t.isfinite().all()) for t in tensors):
        return False
    vectors, mean, scale, percentiles = tensors
    return (
        vectors.dtype == torch.float16
        and vectors.ndim == 2
        and 0 < len(ids) == len(vectors)
        and mean.shape == scale.shape == vectors.shape[1:]
        and tuple(percentiles.shape) in ((0,), (101,))
        and all(tensor.dtype == torch.float32 for tensor in (mean, scale, percentiles))
    )
