"""Keys of the section `graph`: how a crystal becomes a graph."""

from dataclasses import dataclass
from typing import Any

from csgcnn.config.settings.setting import setting
from csgcnn.errors import ConfigError

GLOBAL_FEATURES = ("density", "lattice", "symmetry", "composition")


@dataclass(slots=True)
class GraphSettings:
    """Describe how a crystal becomes a graph; part of the cache key and of every checkpoint.

    With `shells="complete"` the graph does not depend on the choice of the cell. With
    `shells="truncate"` neighbors at equal distance are cut in the order in which pymatgen lists
    them, as CGCNN does (Xie & Grossman, PRL 120, 145301, 2018).

    Raises:
        ConfigError: A value has the wrong type or is out of range.
    """

    cutoff: float = setting(8.0, "Radius of the neighbor search.", unit="Å", above=0, at_most=50)
    max_neighbors: int = setting(
        12, "Neighbors per atom, before the last shell is completed.", at_least=1, at_most=10_000
    )
    shells: str = setting(
        "complete",
        "Last shell of neighbors: complete keeps all of it, truncate cuts it at max_neighbors.",
        choices=("complete", "truncate"),
    )
    compress: bool = setting(True, "Merge symmetry-equivalent atoms and edges (lossless).")
    global_features: Any = setting(
        ["density"],
        "Descriptors of the whole crystal, one or a list.",
        choices=("none", *GLOBAL_FEATURES),
    )
    site_features: Any = setting(
        [],
        "Pretrained potentials whose features of each site are stored with the graphs, one or "
        "a list: sevennet, chgnet, or that of a plugin; node_features that need one add it.",
    )
    site_layers: list[int] | None = setting(
        None, "Layers of the potentials whose features are stored, from 1.", null="all"
    )

    def __post_init__(self) -> None:
        self.global_features = tuple(sorted({*_names(self.global_features)} - {"none"}))
        self.site_features = _names(self.site_features)
        self.site_layers = self.site_layers and sorted(set(self.site_layers))
        for name, is_right, expected in (
            ("cutoff", type(self.cutoff) in (int, float), "a number"),
            ("max_neighbors", type(self.max_neighbors) is int, "an integer"),
            ("compress", type(self.compress) is bool, "true or false"),
        ):
            if not is_right:
                raise ConfigError(
                    f"graph.{name} is {getattr(self, name)!r:.60}, expected {expected}"
                )
        if self.site_layers and not all(type(n) is int and n > 0 for n in self.site_layers):
            raise ConfigError(f"graph.site_layers={self.site_layers}: expected integers from 1")


def _names(given: Any) -> tuple[str, ...]:
    return tuple(map(str, (given,) if isinstance(given, str) else given or ()))
