"""Fingerprints of crystals: equal for every cell, origin, orientation and order of the sites.

A fingerprint is made of the reduced composition and of six numbers that change continuously with
the positions of the atoms: the logarithm of the length per atom, and the means over the sites of
five functions of their environments. Each function sums cos(k d + phase) over the neighbors, twice,
with phases that depend on the elements and, the second time, on the first sum. The weight of a
neighbor is 1 - (d / r)². The radius r holds 24 neighbors (twice `graph.max_neighbors`) at the
density of the crystal. The weight is zero there, so that neither the edge of a shell nor the order
of equally distant neighbors matters.

Numbers with rounding noise have no exact hash, because some lie at the border of two bins. So a
fingerprint is seven hashes, whose bins are shifted by a seventh of their width. A number that
changes by less than that crosses the border in at most one hash. With six numbers, one hash of two
descriptions of a crystal agrees if all six change by less than a seventh of a bin. Crystals of
which a number differs by more than a bin have no hash in common, except by a collision of 64 bits.

Crystals with equal distances up to r between equal elements have equal fingerprints: mirror images,
ideal close packings (fcc and hcp), and polytypes of layers farther apart than r (CuAlO2 in its
forms 2H and 3R).
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.compression import mix
from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.elements import MAX_ATOMIC_NUMBER
from csgcnn.crystals.neighbors import first_radius

# Raise it with every change of the hashes: checkpoints hold those of their training crystals.
FINGERPRINT_VERSION = 1
# 1/Å. An atom that moves by 0.05 Å changes the phases of its distances by a radian, so that the
# means change, too, where its neighbors are arranged symmetrically around it.
FIRST_WAVE, WAVE_STEP, N_WAVES = 12.0, 3.0, 5
# Radians by which one neighbor changes the phase of a site.
GAIN = 0.35
N_HASHES = 2 + N_WAVES
# Widths of the bins, of which a seventh is tolerated: 1e-4 of all lengths, and 1.7e-3 of the means,
# which covers moves of all atoms by 1e-4 Å.
LENGTH_BIN, ENVIRONMENT_BIN = 7e-4, 1.2e-2

Array = NDArray[Any]


def fingerprints(
    crystals: Sequence[Crystal], pairs: tuple[Array, Array, Array], settings: GraphSettings
) -> NDArray[np.uint64]:
    """Return the fingerprints of crystals; equal crystals agree in at least one column.

    Args:
        crystals: The crystals.
        pairs: Center, neighbor and distance of the pairs that `find_neighbors` found, with the
            sites numbered from crystal to crystal.
        settings: Largest distance and number of neighbors. Fingerprints of different settings
            cannot be compared.

    Returns:
        [n_graphs, N_HASHES].
    """
    n_sites = np.array([len(crystal.atomic_number) for crystal in crystals])
    atomic_number = np.concatenate([crystal.atomic_number for crystal in crystals])
    lattice = np.concatenate([crystal.lattice for crystal in crystals]).reshape(-1, 3, 3)
    volume = np.abs(np.linalg.det(lattice)) / n_sites
    radius = first_radius(volume, settings.cutoff, settings.max_neighbors)
    graph_of_site = np.repeat(np.arange(len(crystals)), n_sites)
    numbers = [np.log(volume) / (3 * LENGTH_BIN)]
    for of_site in _environments(atomic_number, pairs, radius[graph_of_site]):
        mean = np.bincount(graph_of_site, of_site, minlength=len(crystals)) / n_sites
        numbers.append(mean / ENVIRONMENT_BIN)
    composition = _composition_hashes(graph_of_site, atomic_number, len(crystals))
    hashes, shifts = np.repeat(composition[:, None], N_HASHES, 1), np.arange(N_HASHES) / N_HASHES
    for number in numbers:
        bins = np.floor(number[:, None] + shifts).astype(np.int64)
        hashes = mix(hashes ^ bins.astype(np.uint64))
    return hashes


def _environments(
    atomic_number: Array, pairs: tuple[Array, Array, Array], radius: Array
) -> Iterator[Array]:
    """Yield functions of the environment of each site, between -1 and 1: [n_sites] each."""
    center, neighbor, distance = pairs
    n_sites = len(atomic_number)
    weight = np.maximum(1 - (distance / radius[center]) ** 2, 0).astype(np.float32)
    # Multiplying by a complex number is faster than the cosine of each wave.
    wave, step = weight * _unit(FIRST_WAVE * distance), _unit(WAVE_STEP * distance)
    for channel in range(N_WAVES):
        own, first, second = _phases(channel).take(atomic_number, 1)
        near = _sum(wave * _unit(first)[neighbor], center, n_sites)
        message = _unit(second + GAIN * near)
        far = _sum(wave * message[neighbor], center, n_sites)
        yield np.cos(own + GAIN * (near + far))
        wave = wave * step


def _unit(phase: Array) -> Array:
    """Return exp(i phase) as complex64, faster than `np.exp`."""
    phase, wave = phase.astype(np.float32), np.empty(phase.shape, dtype=np.complex64)
    np.cos(phase, out=wave.real)
    np.sin(phase, out=wave.imag)
    return wave


def _sum(waves: Array, center: Array, n_sites: int) -> Array:
    return np.bincount(center, waves.real, minlength=n_sites)


@cache
def _phases(channel: int) -> Array:
    """Return three fixed random phases of each element: [3, 101]."""
    n_elements = MAX_ATOMIC_NUMBER + 1
    number = np.arange(3 * n_elements, dtype=np.uint64) + np.uint64(channel << 16)
    return 2 * np.pi * (mix(number).reshape(3, n_elements) / 2.0**64)


def _composition_hashes(graph_of_site: Array, atomic_number: Array, n_graphs: int) -> Array:
    """Return a hash of each reduced composition: [n_graphs] uint64."""
    pairs, count = np.unique(graph_of_site << 8 | atomic_number, return_counts=True)
    graph = pairs >> 8
    first = np.searchsorted(graph, np.arange(n_graphs))
    reduced = count // np.gcd.reduceat(count, first)[graph]
    # The sum of mixed numbers does not depend on their order, and wraps around on purpose.
    return np.add.reduceat(mix((reduced << 8 | pairs & 255).astype(np.uint64)), first)
