"""Tables of what the sites, elements and edges of crystals contribute to predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.site_values import atoms_with_values
from csgcnn.data.targets import Target, with_unit
from csgcnn.errors import one_line

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]
Columns = Sequence[tuple[str, str]]
# Values of the column `part`.
SITE, CRYSTAL, REFERENCE = "site", "crystal", "reference"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What contributes to the predictions for one crystal, by each member of an ensemble.

    Attributes:
        id: Id of the crystal.
        crystal: The crystal; its sites are in the order in which they were read.
        parts: What each row contributes: `site` for each site, `crystal` for the global features if
            the model has some, `reference`.
        values: Contributions [n_members, n_rows, n_outputs], whose sum over the rows is the
            prediction on the scale that is trained.
        edges: Neighbor and center of each edge [2, n_edges], as positions of sites.
        distance: [n_edges], in Å.
        importance: Importance of each edge [n_members, n_edges, n_outputs].
        attention: Attention weights, the mean over heads and members [n_edges, n_blocks]; None
            without attention.
    """

    id: str
    crystal: Crystal
    parts: list[str]
    values: Array
    edges: Array
    distance: Array
    importance: Array
    attention: Array | None

    @property
    def symbols(self) -> list[str]:
        """Element of each site."""
        return [SYMBOLS[z] for z in self.crystal.atomic_number]

    def of_elements(self) -> dict[str, Array]:
        """Return the sum over the sites of each element [n_members, n_outputs], by symbol."""
        symbols = np.array(self.symbols)
        of_sites = self.values[:, : len(symbols)]
        return {name: of_sites[:, symbols == name].sum(1) for name in dict.fromkeys(self.symbols)}

    def lines(self, targets: Sequence[Target]) -> list[str]:
        """Return a line for each output: the prediction as a sum."""
        rows = {part: self.values[:, i] for i, part in enumerate(self.parts) if part != SITE}
        reference = rows.pop(REFERENCE)
        terms = self.of_elements() | rows
        lines = []
        for j, (name, unit) in enumerate(_trained_columns(targets)):
            means = {term: value[:, j].mean() for term, value in terms.items()}
            first = reference[:, j].mean()
            parts = [f"{'-' if x < 0 else '+'} {abs(x):.4g} ({term})" for term, x in means.items()]
            total = f"{name} {first + sum(means.values()):.4g} {unit}".rstrip()
            id_ = one_line(self.id)
            lines.append(f"{id_}: {total} = {first:.4g} (reference) {' '.join(parts)}")
        return lines


@dataclass(frozen=True)
class Explanations:
    """Tables of what contributes to predictions; numbers are on the scale that is trained.

    Of an ensemble, numbers are means over the members, and columns `NAME_std` follow them.

    Attributes:
        contributions: A row for each site (`part` = `site`), for the global features (`crystal`)
            and for the reference (`reference`). The rows of a crystal add up to its prediction.
        elements: Sums over the sites of each element.
        edges: Importance and attention weights of each pair of neighbors.
        atoms: The crystals, as `Atoms` of ASE with the contributions of their sites as arrays.
    """

    contributions: "pd.DataFrame"
    elements: "pd.DataFrame"
    edges: "pd.DataFrame"
    atoms: list[Any]

    @classmethod
    def of(cls, found: Sequence[Explanation], targets: Sequence[Target]) -> "Explanations":
        """Tabulate explanations.

        Args:
            found: At least one explanation.
            targets: Targets of the model.
        """
        import pandas as pd

        columns = _trained_columns(targets)
        contributions, elements, edges = (
            pd.concat([pd.DataFrame(cells(one, columns)) for one in found], ignore_index=True)
            for cells in (_contributions, _elements, _edges)
        )
        return cls(contributions, elements, edges, [_atoms(one, columns) for one in found])


def _trained_columns(targets: Sequence[Target]) -> list[tuple[str, str]]:
    """Return name and unit of each output on the trained scale: log10(modulus), log10(GPa)."""
    return [
        (name, "")
        if target.classes
        else (
            name if target.transform == "none" else f"{target.transform}({name})",
            target.trained_unit,
        )
        for target in targets
        for name in target.outputs
    ]


def _numbers(values: Array, columns: Columns, ending: str = "") -> dict[str, Array]:
    """Return the columns of values [n_members, n_rows, n_outputs]: mean, and std of an ensemble."""
    found = {}
    for j, (name, unit) in enumerate(columns):
        found[with_unit(f"{name}{ending}", unit)] = values[..., j].mean(0)
        if len(values) > 1:
            found[with_unit(f"{name}{ending}_std", unit)] = values[..., j].std(0, ddof=1)
    return found


def _contributions(one: Explanation, columns: Columns) -> dict[str, Any]:
    import pandas as pd

    n_sites, n_others = len(one.symbols), len(one.parts) - len(one.symbols)
    return {
        "id": one.id,
        "part": one.parts,
        "site": pd.array([*range(n_sites), *[None] * n_others], "Int64"),
        "element": [*one.symbols, *[""] * n_others],
        **_numbers(one.values, columns),
    }


def _elements(one: Explanation, columns: Columns) -> dict[str, Any]:
    sums = one.of_elements()
    counts = [one.symbols.count(symbol) for symbol in sums]
    values = np.stack([*sums.values()], axis=1)
    own = {"id": one.id, "element": [*sums], "n_sites": counts}
    return {**own, **_numbers(values, columns)}


def _edges(one: Explanation, columns: Columns) -> dict[str, Any]:
    symbols = np.array(one.symbols)
    neighbor, center = one.edges
    weights = () if one.attention is None else enumerate(one.attention.T, 1)
    return {
        "id": one.id,
        "center": center,
        "neighbor": neighbor,
        "center_element": symbols[center],
        "neighbor_element": symbols[neighbor],
        "distance [Å]": one.distance,
        **_numbers(one.importance, columns, "_importance"),
        **{f"attention_{block}": of_block for block, of_block in weights},
    }


def _atoms(one: Explanation, columns: Columns) -> Any:
    """Return the crystal with its contributions; names have no units, which info holds."""
    n_sites = len(one.symbols)
    names = [(name, "") for name, _ in columns]
    values = _numbers(one.values[:, :n_sites], names, "_contribution")
    info: dict[str, Any] = {"id": one.id}
    for j, (name, unit) in enumerate(columns):
        mean = one.values[..., j].mean(0)
        info[f"{name}_prediction"] = mean.sum()
        info |= {f"{name}_{part}": mean[i] for i, part in enumerate(one.parts) if part != SITE}
        info |= {f"{name}_unit": unit} if unit else {}
    return atoms_with_values(one.crystal, values, info)
