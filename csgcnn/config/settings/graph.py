"""Keys of the section `graph`: how a crystal becomes a graph."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from csgcnn.config.settings.setting import Setting
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

    cutoff: Annotated[
        float, Setting("Radius of the neighbor search.", unit="Å", above=0, at_most=50)
    ] = 8.0
    max_neighbors: Annotated[
        int,
        Setting(
            "Neighbors per atom, before the last shell is completed.", at_least=1, at_most=10_000
        ),
    ] = 12
    shells: Annotated[
        str,
        Setting(
            "Last shell of neighbors: complete keeps all of it, truncate cuts it at max_neighbors.",
            choices=("complete", "truncate"),
        ),
    ] = "complete"
    compress: Annotated[bool, Setting("Merge symmetry-equivalent atoms and edges (lossless).")] = (
        True
    )
    global_features: Annotated[
        Any,
        Setting(
            "Descriptors of the whole crystal, one or a list.", choices=("none", *GLOBAL_FEATURES)
        ),
    ] = field(default_factory=lambda: ["density"])
    site_features: Annotated[
        Any,
        Setting(
            "Pretrained potentials whose features of each site are stored with the graphs, one or "
            "a list: sevennet, chgnet, or that of a plugin; node_features that need one add it."
        ),
    ] = field(default_factory=list)
    site_layers: Annotated[
        list[int] | None,
        Setting(
            "Layers of the potentials whose features are stored, from 1.",
            null="all",
        ),
    ] = None

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
