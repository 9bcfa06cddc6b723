"""Pretrained interatomic potentials, whose layers describe the surroundings of each site.

`graph.site_features` names potentials. Before graphs are built, each name is pinned: completed with
the installed version of its package and a hash of its weights, "sevennet 0.13.0 a7ff190d41ef". The
pinned name is a part of the graph settings, so that stores and checkpoints say whose features they
hold, and other ones are refused.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.errors import ConfigError, StructureError, nearest
from csgcnn.io import file_digest

Array = NDArray[Any]
HASH_LENGTH = 12


class Potential(ABC):
    """A pretrained potential whose weights lie in an installed package.

    A plugin derives its own class and registers it with `register_potential`. Class and instance
    are imported and made before anything is computed, so that heavy packages are imported by
    `compute` only.

    Attributes:
        name: Name in `graph.site_features`.
        package: Distribution that holds code and weights; its module has the same name.
        package_version: Its version, if features do not depend on the installed one.
        install: What to install: an extra of csgcnn, or the package.
        weights: File of the weights within the package.
        weights_hash: SHA-256 of the file of the weights; other files are refused.
        n_layers: Layers whose features can be chosen.
        n_channels: Features per site and layer, which rotations do not change.
        elements: Atomic numbers that the potential knows.
        trained_on: Properties and structures it was trained on, for model cards.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    package_version: ClassVar[str] = ""
    install: ClassVar[str]
    weights: ClassVar[str]
    weights_hash: ClassVar[str]
    n_layers: ClassVar[int]
    n_channels: ClassVar[int]
    elements: ClassVar[frozenset[int]]
    trained_on: ClassVar[str] = ""

    def weights_file(self) -> Path:
        """Return the file of the weights within the installed package."""
        spec = find_spec(self.package)
        assert spec is not None
        assert spec.origin is not None
        return Path(spec.origin).parent / self.weights

    @abstractmethod
    def compute(self, crystals: Sequence[Crystal], device: str) -> Array:
        """Compute the features of all sites of some crystals.

        Args:
            crystals: The crystals, of elements that the potential knows.
            device: Device that computes.

        Returns:
            Features [n_sites, n_layers, n_channels] float32, crystal after crystal.
        """

    def check_elements(self, crystal: Crystal) -> None:
        """Check that the potential knows all elements of a crystal.

        Raises:
            StructureError: It does not.
        """
        if unknown := sorted({*crystal.atomic_number.tolist()} - self.elements):
            symbols = ", ".join(SYMBOLS[z] for z in unknown)
            raise StructureError(f"{self.name} does not know {symbols}, so it has no site features")


class PotentialError(ConfigError):
    """A potential is unknown, not installed, or of another version than the one that is needed."""


_registered: dict[str, Potential] = {}


def register_potential(potential: type[Potential]) -> type[Potential]:
    """Make a potential known by its name; a decorator of its class.

    Args:
        potential: The class.

    Returns:
        The same class.
    """
    _registered[potential.name] = potential()
    return potential


def pinned(names: Sequence[str]) -> list[str]:
    """Return the names of potentials with the versions and the weights that are installed.

    Args:
        names: Names, which may be pinned already.

    Raises:
        PotentialError: One is unknown or not installed, or it is pinned to another version.
    """
    return [_installed(potential_of(name), name) for name in names]


def potential_of(name: str) -> Potential:
    """Return a potential.

    Args:
        name: Its name, which may be pinned.

    Raises:
        PotentialError: There is no such potential.
    """
    known, short = _known(), name.partition(" ")[0]
    if short not in known:
        hint = nearest(short, list(known)) or f"; expected {', '.join(sorted(known))}"
        raise PotentialError(
            f"graph.site_features: there is no potential {short}{hint}. Weights are loaded from "
            "installed packages only; a potential of a plugin needs plugins=[PACKAGE]"
        )
    return known[short]


def site_columns(settings: GraphSettings) -> dict[str, slice]:
    """Return which columns of the site features belong to which potential.

    Args:
        settings: Settings of the graphs.

    Returns:
        Columns by the names of the potentials.

    Raises:
        ConfigError: A potential is unknown, or has no such layer.
    """
    columns, start = {}, 0
    for name in settings.site_features:
        potential = potential_of(name)
        width = len(chosen_layers(potential, settings)) * potential.n_channels
        columns[potential.name] = slice(start, start + width)
        start += width
    return columns


def site_widths(settings: GraphSettings) -> list[int]:
    """Return the number of site features of each layer, potential after potential."""
    potentials = map(potential_of, settings.site_features)
    return [one.n_channels for one in potentials for _ in chosen_layers(one, settings)]


def n_site_features(settings: GraphSettings) -> int:
    """Return the number of site features of graphs."""
    return sum(site_widths(settings))


def chosen_layers(potential: Potential, settings: GraphSettings) -> list[int]:
    """Return the layers whose features are used, counted from 0.

    Args:
        potential: The potential.
        settings: Settings of the graphs.

    Raises:
        ConfigError: The potential has no such layer.
    """
    if settings.site_layers is None:
        return [*range(potential.n_layers)]
    if above := [layer for layer in settings.site_layers if layer > potential.n_layers]:
        raise ConfigError(
            f"graph.site_layers={list(settings.site_layers)}: {potential.name} has the layers 1 to "
            f"{potential.n_layers}, and no layer {above[0]}"
        )
    return [layer - 1 for layer in settings.site_layers]


def _known() -> dict[str, Potential]:
    return _built_in() | _registered


@cache
def _built_in() -> dict[str, Potential]:
    # They import this module.
    from csgcnn.crystals.site_features.chgnet import CHGNet
    from csgcnn.crystals.site_features.sevennet import SevenNet

    return {potential.name: potential() for potential in (SevenNet, CHGNet)}


@cache
def _pin(potential: Potential) -> str:
    """Return name, version of the package, and first digits of the SHA-256 of the weights."""
    try:
        installed = potential.package_version or version(potential.package)
    except PackageNotFoundError:
        raise PotentialError(
            f"graph.site_features={potential.name} needs the package {potential.package}: "
            f"pip install '{potential.install}'"
        ) from None
    found = file_digest(potential.weights_file())
    if found != potential.weights_hash:
        raise PotentialError(
            f"the weights of {potential.name} in {potential.package} {installed} are not those "
            f"that are known (SHA-256 {found[:HASH_LENGTH]}, expected "
            f"{potential.weights_hash[:HASH_LENGTH]}); install the package again"
        )
    return f"{potential.name} {installed} {found[:HASH_LENGTH]}"


def _installed(potential: Potential, name: str) -> str:
    """Return what is installed of a potential, if its name is not pinned to something else."""
    found = _pin(potential)
    if " " in name and name != found:
        wanted, wanted_version, weights = (
            name.split(" ") if name.count(" ") == 2 else (name, "?", "?")
        )
        _, own_version, own_weights = found.split(" ")
        raise PotentialError(
            f"site features of {wanted} {wanted_version} (weights {weights}) are needed, and "
            f"{own_version} (weights {own_weights}) is installed: "
            f"pip install {potential.package}=={wanted_version}"
        )
    return found
