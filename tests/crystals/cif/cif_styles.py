"""Random crystals in any setting of a space group, written as CIF in the style of programs.

The atoms are made with the operations of spglib, so that they do not depend on gemmi.
"""

from dataclasses import dataclass
from typing import Any

import gemmi
import numpy as np
import spglib
from numpy.typing import NDArray

from csgcnn.crystals.elements import SYMBOLS

Array = NDArray[Any]

# Å³ per atom: loose, so that random positions rarely clash.
VOLUME_PER_ATOM = 60.0
CHARGES = {"Na": "1+", "Fe": "3+", "Cl": "1-", "S": "2-", "Ti": "4+", "F": "1-"}


@dataclass(frozen=True)
class Truth:
    """A crystal in a setting of a space group.

    Attributes:
        group: The setting.
        parameters: a, b, c, alpha, beta, gamma.
        rows: Symbol and coordinates of each independent atom.
        symbols: Element of each atom of the cell.
        frac_coords: [n_atoms, 3].
    """

    group: gemmi.SpaceGroup
    parameters: tuple[float, ...]
    rows: list[tuple[str, Array]]
    symbols: list[str]
    frac_coords: Array


def random_crystal(group: gemmi.SpaceGroup, rng: np.random.Generator) -> Truth:
    """Return a crystal with atoms on general and special positions and no short distances."""
    operations = list(group.operations())
    rotation = np.array([op.rot for op in operations]) / 24
    translation = np.array([op.tran for op in operations]) / 24
    shape = _cell_shape(group, rng)
    while True:
        rows, parts = [], []
        symbols = list(rng.permutation(list(CHARGES)))
        for symbol in symbols[: int(rng.integers(1, 4))]:
            x = rng.random(3).round(5)
            if rng.random() < 0.7:
                x = _special(x, rotation, translation, rng)
            rows.append((str(symbol), x))
            parts.append(_orbit(x, rotation, translation))
        n_atoms = sum(map(len, parts))
        scale = (VOLUME_PER_ATOM * n_atoms / gemmi.UnitCell(*shape).volume) ** (1 / 3)
        parameters = tuple(round(scale * v, 4) for v in shape[:3]) + tuple(shape[3:])
        frac_coords = np.concatenate(parts)
        if _shortest(frac_coords, parameters) > 1.9:
            break
    found = [s for (s, _), part in zip(rows, parts, strict=True) for s in [s] * len(part)]
    return Truth(group, parameters, rows, found, frac_coords)


def spglib_atoms(truth: Truth, hall_number: int) -> Array:
    """Return the atoms that the operations of spglib make of the rows: [n_atoms, 3]."""
    operations: Any = spglib.get_symmetry_from_database(hall_number)
    parts = [_orbit(x, operations["rotations"], operations["translations"]) for _, x in truth.rows]
    return np.concatenate(parts)


def matches(truth: Truth, atomic_number: Array, frac_coords: Array, tolerance: float) -> bool:
    """Return whether a crystal has just the atoms of the truth, each within a distance in Å."""
    if len(atomic_number) != len(truth.symbols):
        return False
    lattice = np.array(gemmi.UnitCell(*truth.parameters).orth.mat.tolist()).T
    shift = frac_coords[:, None] - truth.frac_coords
    distance = np.linalg.norm((shift - np.round(shift)) @ lattice, axis=2)
    nearest = distance.argmin(axis=1)
    is_same = [truth.symbols[i] == SYMBOLS[z] for i, z in zip(nearest, atomic_number, strict=True)]
    return (
        len(set(nearest.tolist())) == len(nearest)
        and all(is_same)
        and bool(distance.min(axis=1).max() < tolerance)
    )


def write(truth: Truth, symmetry: str, style: str, decimals: int) -> str:
    """Return the crystal as CIF.

    Args:
        truth: The crystal.
        symmetry: How the space group is given: listed, hall, name, full, icsd, number or all.
        style: Layout: plain, icsd, shelx, vesta, cod.
        decimals: Digits of the coordinates.
    """
    lines = ["data_" + style]
    if style == "cod":
        lines += ["_chemical_name_systematic", ";", "Some name, x, y, z", ";"]
    uncertain = "(3)" if style in ("shelx", "cod") else ""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    for name, value in zip(names, truth.parameters, strict=True):
        digits = (
            f"{value:.4f}{uncertain}"
            if "length" in name or value not in (90, 120)
            else f"{value:g}"
        )
        lines.append(f"_cell_{name}   {digits}")
    lines += _formula(truth) if style in ("cod", "icsd", "shelx") else []
    lines += _symmetry(truth, symmetry, style)
    return "\n".join([*lines, *_atoms(truth, style, decimals, every=symmetry == "all"), ""])


def _formula(truth: Truth) -> list[str]:
    counts = {symbol: truth.symbols.count(symbol) for symbol in sorted(set(truth.symbols))}
    divisor = np.gcd.reduce(list(counts.values()))
    text = " ".join(
        f"{symbol}{n // divisor if n > divisor else ''}" for symbol, n in counts.items()
    )
    return [f"_chemical_formula_sum '{text}'", f"_cell_formula_units_Z {divisor}"]


def _symmetry(truth: Truth, symmetry: str, style: str) -> list[str]:
    group = truth.group
    if symmetry == "all":
        return ["_symmetry_space_group_name_H-M 'P 1'", "_symmetry_Int_Tables_number 1"]
    if symmetry == "hall":
        return [f"_space_group_name_Hall '{group.hall}'"]
    if symmetry == "number":
        return [f"_space_group_IT_number {group.number}"]
    if symmetry == "name":
        return [
            f"_space_group_name_H-M_alt '{group.xhm()}'",
            f"_space_group_IT_number {group.number}",
        ]
    if symmetry == "icsd":
        code = {"1": " S", "2": " Z", "H": " H", "R": " R"}.get(group.ext.strip("\0 "), "")
        return [f"_symmetry_space_group_name_H-M '{group.hm}{code}'"]
    triplets = [op.triplet() for op in group.operations()]
    if style == "icsd":
        lines = ["loop_", "_symmetry_equiv_pos_site_id", "_symmetry_equiv_pos_as_xyz"]
        return [*lines, *(f"{n} '{t.replace(',', ', ')}'" for n, t in enumerate(triplets, 1))]
    name = "_space_group_symop_operation_xyz" if style == "cod" else "_symmetry_equiv_pos_as_xyz"
    quote = "'" if style in ("shelx", "vesta") else ""
    return [f"_symmetry_space_group_name_H-M '{group.hm}'", "loop_", name] + [
        f"  {quote}{t.upper() if style == 'shelx' else t}{quote}" for t in triplets
    ]


def _atoms(truth: Truth, style: str, decimals: int, every: bool) -> list[str]:
    columns = ["label", "type_symbol", "fract_x", "fract_y", "fract_z"]
    if style == "vesta":
        columns = ["label", "occupancy", "fract_x", "fract_y", "fract_z", "type_symbol"]
    elif style == "icsd":
        columns = ["label", "type_symbol", "attached_hydrogens", "fract_x", "fract_y", "fract_z"]
    elif style == "shelx":
        columns = [*columns, "U_iso_or_equiv", "occupancy", "calc_flag"]
    rows = truth.rows
    if every:
        rows = list(zip(truth.symbols, truth.frac_coords, strict=True))
    lines = ["loop_", *(f"_atom_site_{column}" for column in columns)]
    for number, (symbol, x) in enumerate(rows, 1):
        uncertain = "(2)" if style in ("shelx", "cod") else ""
        values = {
            "label": f"{symbol.upper() if style == 'shelx' else symbol}{number}",
            "type_symbol": symbol + (CHARGES[symbol] if style == "icsd" else ""),
            "occupancy": "1.0",
            "attached_hydrogens": "0",
            "U_iso_or_equiv": "0.0213(5)",
            "calc_flag": "d",
        }
        for axis, value in zip("xyz", x, strict=True):
            text = f"{value:.{decimals}f}"
            values[f"fract_{axis}"] = text + (uncertain if float(text) else "")
        lines.append(" ".join(values[column] for column in columns))
    return lines


def _cell_shape(group: gemmi.SpaceGroup, rng: np.random.Generator) -> tuple[float, ...]:
    """Return lengths and angles that a setting allows, by averaging a metric over its rotations."""
    lengths = rng.uniform(0.8, 1.25, 3)
    angles = np.cos(np.radians(rng.uniform(75, 105, 3)))
    metric = np.outer(lengths, lengths) * np.array(
        [[1, angles[2], angles[1]], [angles[2], 1, angles[0]], [angles[1], angles[0], 1]]
    )
    rotation = np.array([op.rot for op in group.operations()]) / 24
    metric = (rotation.transpose(0, 2, 1) @ metric @ rotation).mean(axis=0)
    a, b, c = np.sqrt(np.diag(metric))
    cosines = (metric[1, 2] / b / c, metric[0, 2] / a / c, metric[0, 1] / a / b)
    return (a, b, c, *np.degrees(np.arccos(cosines)).round(4).tolist())


def _special(x: Array, rotation: Array, translation: Array, rng: np.random.Generator) -> Array:
    """Return a position near x that a random operation leaves in place, or x if there is none."""
    chosen = int(rng.integers(len(rotation)))
    images = [x]
    for _ in range(5):
        images.append(rotation[chosen] @ images[-1] + translation[chosen])
        if np.allclose(images[-1], x):
            mean = np.mean(images[:-1], axis=0)
            return mean % 1
    return x


def _orbit(x: Array, rotation: Array, translation: Array) -> Array:
    images = (rotation @ x + translation) % 1 % 1
    shift = images[:, None] - images
    is_same = (abs(shift - np.round(shift)) < 1e-6).all(axis=2)
    return images[np.unique(is_same.argmax(axis=1))]


def _shortest(frac_coords: Array, parameters: tuple[float, ...]) -> float:
    lattice = np.array(gemmi.UnitCell(*parameters).orth.mat.tolist()).T
    shift = frac_coords[:, None] - frac_coords
    distance = np.linalg.norm((shift - np.round(shift)) @ lattice, axis=2)
    np.fill_diagonal(distance, np.inf)
    return min(float(distance.min()), float(np.linalg.norm(lattice, axis=1).min()))
