"""A crystal as traces of a 3-D chart: atoms of the cell, bonds and edges."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from csgcnn.crystals.crystal import Crystal
from csgcnn.crystals.elements import SYMBOLS, element_colors, radii

Array = NDArray[Any]
Trace = dict[str, Any]

MAX_ATOMS = 400  # of a cell; larger ones are drawn without repeated atoms and without bonds
# Fractions of the cell within which an atom lies on a face, and is repeated on the opposite one.
ON_FACE = 1e-3
# Two atoms are bonded up to this multiple of the sum of their atomic radii, and of the distance of
# the nearest neighbor of both, so that cations are not bonded with cations.
BOND, NEAREST = 1.15, 1.2
MARKER = 12.0  # size of an atom with a radius of 1 Å, in pixels
CORNERS = np.array([*product((0, 1), repeat=3)])


def structure_traces(crystal: Crystal, site_values: Sequence[float] | None = None) -> list[Trace]:
    """Return the traces of a crystal; atoms on a face, edge or corner of the cell are repeated.

    Args:
        crystal: The crystal.
        site_values: Contributions of the sites, which color the atoms; None: by element.
    """
    sites, frac = _repeated(crystal)
    position = frac @ crystal.lattice
    atoms = [*_atoms(crystal, sites, position, site_values)]
    is_small = len(crystal.atomic_number) <= MAX_ATOMS
    bonds = _bonds(crystal.atomic_number[sites], position) if is_small else []
    return [_edges(crystal.lattice), *bonds, *atoms]


def _repeated(crystal: Crystal) -> tuple[Array, Array]:
    """Return the site and the fractional coordinates of each atom that is drawn."""
    frac = crystal.frac_coords - np.floor(crystal.frac_coords)
    frac = np.where(frac > 1 - ON_FACE, 0.0, frac)
    sites = np.arange(len(frac))
    if len(frac) > MAX_ATOMS:
        return sites, frac
    for axis in np.eye(3):
        on_face = (frac @ axis) < ON_FACE
        sites = np.concatenate([sites, sites[on_face]])
        frac = np.concatenate([frac, frac[on_face] + axis])
    return sites, frac


def _atoms(
    crystal: Crystal, sites: Array, position: Array, site_values: Sequence[float] | None
) -> Iterator[Trace]:
    """Yield the atoms, a trace for each element, the most frequent first."""
    numbers = crystal.atomic_number
    for z in sorted(set(numbers.tolist()), key=lambda z: -int((numbers == z).sum())):
        drawn = numbers[sites] == z
        names = [crystal.site_name(site) for site in sites[drawn]]
        marker: Trace = {"size": round(MARKER * float(radii()[z]) ** 0.5, 1), "opacity": 1}
        if site_values is None:
            marker["color"] = element_colors()[z]
        else:
            values = np.asarray(site_values)[sites[drawn]]
            marker |= {"color": values.tolist(), "coloraxis": "coloraxis"}
            names = [f"{n}: {v:.3g}" for n, v in zip(names, values, strict=True)]
        x, y, w = position[drawn].round(4).T.tolist()
        yield {
            "type": "scatter3d", "mode": "markers", "name": SYMBOLS[z], "x": x, "y": y, "z": w,
            "text": names, "hovertemplate": "%{text}<extra></extra>", "marker": marker,
        }  # fmt: skip


def _bonds(numbers: Array, position: Array) -> list[Trace]:
    radius, tree = radii()[numbers], cKDTree(position)
    pairs = tree.query_pairs(2 * BOND * float(radius.max()), output_type="ndarray")
    if not len(pairs):
        return []
    length = np.linalg.norm(position[pairs[:, 0]] - position[pairs[:, 1]], axis=1)
    nearest = tree.query(position, 2)[0][:, 1]
    longest = np.minimum(BOND * radius[pairs].sum(1), NEAREST * nearest[pairs].min(1))
    near = pairs[length <= longest]
    return [_lines(position[near], "bonds", 5, "--muted")] if len(near) else []


def _edges(lattice: Array) -> Trace:
    ends = [(a, b) for a in CORNERS for b in CORNERS if (b - a).min() == 0 and (b - a).sum() == 1]
    return _lines(np.array(ends) @ lattice, "cell", 2, "--line")


def _lines(ends: Array, name: str, width: float, color: str) -> Trace:
    """Return lines between pairs of points [n_lines, 2, 3]."""
    x, y, z = (
        [value for pair in ends[:, :, axis].round(4).tolist() for value in (*pair, None)]
        for axis in range(3)
    )
    return {
        "type": "scatter3d", "mode": "lines", "name": name, "x": x, "y": y, "z": z,
        "hoverinfo": "skip", "line": {"width": width, "color": color}, "showlegend": False,
    }  # fmt: skip
