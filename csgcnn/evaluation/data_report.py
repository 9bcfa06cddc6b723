"""The content of a data report: what a data set holds, and what to check."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.graph_builder import Rejected
from csgcnn.crystals.structure_warnings import StructureNote
from csgcnn.evaluation.data_findings import CompositionFit, Conflict, Outlier

N_BINS = 10


@dataclass(frozen=True, slots=True)
class Distribution:
    """Statistics of numbers.

    Attributes:
        n: Number of values.
        mean: Mean.
        std: Standard deviation.
        quartiles: Minimum, first quartile, median, third quartile, maximum.
        histogram: Number of values in bins of equal width from minimum to maximum.
    """

    n: int
    mean: float
    std: float
    quartiles: tuple[float, float, float, float, float]
    histogram: list[int]

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Distribution | None":
        """Return the distribution of finite numbers; None if there are none."""
        if not len(values):
            return None
        numbers = values.astype(np.float64)
        low, first, median, third, high = np.percentile(numbers, [0, 25, 50, 75, 100]).tolist()
        count = np.histogram(numbers, N_BINS)[0].tolist()
        quartiles = (low, first, median, third, high)
        return cls(len(numbers), numbers.mean().item(), numbers.std().item(), quartiles, count)


class ElementShare(NamedTuple):
    """How frequent an element is."""

    symbol: str
    n_crystals: int
    share_of_atoms: float  # mean over the crystals


@dataclass(frozen=True, slots=True)
class TargetReport:
    """A target.

    Attributes:
        name: Name of the column.
        unit: Its unit.
        n_missing: Number of crystals without a value.
        distribution: Its values; None for classes.
        classes: Number of crystals of each class.
        outliers: Values far from the median.
        composition: Fit to the compositions; None for classes and for few rows.
    """

    name: str
    unit: str
    n_missing: int
    distribution: Distribution | None
    classes: dict[str, int]
    outliers: list[Outlier]
    composition: CompositionFit | None


@dataclass(frozen=True, slots=True)
class SplitReport:
    """The parts into which the data would be split.

    Attributes:
        method: The method.
        sizes: Number of rows of each part.
        duplicates_across_splits: Number of pairs of equal crystals in different parts.
        shared_compositions: Rows of val and test with the composition of a training row.
        problem: Why the data cannot be split, or empty.
    """

    method: str
    sizes: dict[str, int]
    duplicates_across_splits: int = 0
    shared_compositions: dict[str, int] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DataReport:
    """What a data set holds, and what to check.

    Attributes:
        source: Path of the data.
        n_records: Number of records.
        n_usable: Number of records with a structure and, if there are targets, a value.
        rejected: The other records.
        warnings: Warnings about the structures.
        columns: Names of the columns.
        n_compositions: Number of reduced compositions.
        elements: The elements, the most frequent first.
        cells: Distributions of sizes, volume per atom and density.
        targets: The targets.
        duplicates: Groups of equal crystals.
        similar: Pairs of crystals of one composition with nearly the same geometry.
        conflicts: Equal and similar crystals with different labels.
        max_difference: Difference beyond which they are listed, in standard deviations.
        split: The split of the configuration.
    """

    source: str
    n_records: int
    n_usable: int
    rejected: list[Rejected]
    warnings: list[StructureNote]
    columns: list[str]
    n_compositions: int
    elements: list[ElementShare]
    cells: dict[str, Distribution]
    targets: list[TargetReport]
    duplicates: list[list[str]]
    similar: list[tuple[str, str]]
    conflicts: list[Conflict]
    max_difference: float
    split: SplitReport

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data; numbers have seven digits."""
        rows = {
            name: [entry._asdict() for entry in getattr(self, name)]
            for name in ("rejected", "warnings", "elements")
        }
        return dict(_rounded(asdict(self) | rows))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value
