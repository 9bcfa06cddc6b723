"""Compute the site features of crystals, from the cache where they are known."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.limits import groups_within
from csgcnn.crystals.site_features.cache import SiteFeatureCache, crystal_key
from csgcnn.crystals.site_features.potential import (
    Array,
    Potential,
    chosen_layers,
    pinned,
    potential_of,
)

# Sites that are computed at once, which bounds memory: some 100 kB per site.
_SITES_AT_ONCE = 128
_SITES_AT_ONCE_ON_GPU = 4096


def check_elements(crystal: Crystal, settings: GraphSettings) -> None:
    """Check that all potentials know the elements of a crystal.

    Args:
        crystal: The crystal.
        settings: Settings of the graphs.

    Raises:
        StructureError: One does not.
    """
    for name in settings.site_features:
        potential_of(name).check_elements(crystal)


def site_features(
    crystals: Sequence[Crystal],
    settings: GraphSettings,
    cache_folder: Path | None = None,
    device: str = "cpu",
) -> list[Array]:
    """Return the site features of crystals.

    Args:
        crystals: Crystals of elements that the potentials know.
        settings: Settings of the graphs: potentials and layers.
        cache_folder: Folder of known features; None: nothing is stored.
        device: Device that computes.

    Returns:
        Features [n_sites, n_site_features] float16 of each crystal.
    """
    parts = []
    for name in pinned(settings.site_features):
        potential = potential_of(name)
        layers = chosen_layers(potential, settings)
        cache = SiteFeatureCache(cache_folder, name) if cache_folder else None
        found = _of_one_potential(crystals, potential, cache, device)
        parts.append([values[:, layers].reshape(len(values), -1) for values in found])
    if not parts:
        return [np.empty((len(crystal.atomic_number), 0), np.float16) for crystal in crystals]
    return [np.concatenate(of_crystal, axis=1) for of_crystal in zip(*parts, strict=True)]


def best_device() -> str:
    """Return the device that computes site features: the GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def use_one_thread() -> None:
    """Let torch use one thread in this process, one of several on as many cores."""
    import torch

    torch.set_num_threads(1)


def _of_one_potential(
    crystals: Sequence[Crystal], potential: Potential, cache: SiteFeatureCache | None, device: str
) -> list[Array]:
    """Return all features [n_sites, n_layers, n_channels] float16 of each crystal."""
    keys = [crystal_key(crystal) for crystal in crystals]
    known = cache.read(keys) if cache else {}
    new = {key: one for key, one in zip(keys, crystals, strict=True) if key not in known}
    computed = dict(zip(new, _computed([*new.values()], potential, device), strict=True))
    if cache and computed:
        cache.write(computed)
    known |= computed
    return [known[key].reshape(-1, potential.n_layers, potential.n_channels) for key in keys]


def _computed(crystals: Sequence[Crystal], potential: Potential, device: str) -> Iterator[Array]:
    limit = _SITES_AT_ONCE_ON_GPU if device.startswith("cuda") else _SITES_AT_ONCE
    for group in groups_within(crystals, (lambda crystal: len(crystal.atomic_number), limit)):
        with warnings.catch_warnings():
            # what the packages warn of concerns their developers
            warnings.simplefilter("ignore")
            features = potential.compute(group, device).astype(np.float16)
        ends = np.cumsum([len(crystal.atomic_number) for crystal in group])
        yield from np.split(features, ends[:-1])
