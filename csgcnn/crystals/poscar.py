"""POSCAR files of VASP in every form that VASP reads.

pymatgen's reader lacks three scale factors and comments behind `!`, and invents elements where
symbols are missing.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csgcnn.crystals.crystal import Crystal, checked_lattice, make_crystal
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.formulas import parse_formula
from csgcnn.crystals.limits import MAX_SITES
from csgcnn.crystals.structure_warnings import warn
from csgcnn.crystals.text_files import ONE_STRUCTURE, text_pieces
from csgcnn.errors import StructureError, one_line

_MODE = "Direct or Cartesian"
# Line of each part of a POTCAR that names the element: "VRHFIN =Fe: 3d7 4s1".
_POTCAR_ELEMENT = re.compile(r"^\s*VRHFIN\s*=\s*([A-Z][a-z]?)\s*:", re.MULTILINE)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+)?")
_COUNT = re.compile(r"[-+]?\d{1,15}")
# Largest absolute scale factor, or volume in Å³.
_MAX_SCALE = 1e15


def parse_poscar(text: str, folder: Path | None = None) -> Crystal:
    """Read the crystal of a POSCAR; velocities and what follows them are ignored.

    Args:
        text: The text.
        folder: Folder of the file. A POTCAR in it names the elements if the text does not.

    Raises:
        StructureError: The text is not a POSCAR; the message names the line.
    """
    lines = _Lines(text)
    scale = lines.numbers("one or three scale factors", (1, 3))
    vectors = checked_lattice([lines.numbers("a lattice vector") for _ in range(3)])
    factors = _factors(scale, vectors)
    lattice = checked_lattice(vectors * factors)
    symbols, counts = _species(lines)
    mode = lines.words(f"Selective dynamics, {_MODE}")
    if mode[0][0] in "sS":
        mode = lines.words(_MODE)
    if not mode[0][0].isalpha():
        raise lines.malformed(_MODE)
    coords, labels = _coordinates(lines, sum(counts))
    if mode[0][0] in "cCkK":
        coords = coords * factors @ np.linalg.inv(lattice)
    if symbols is None:
        symbols = _missing_symbols(lines.title, counts, labels, folder)
    species = [symbol for symbol, n in zip(symbols, counts, strict=True) for _ in range(n)]
    return make_crystal(lattice, species, coords)


class _Lines:
    """The lines of a POSCAR one after the other, without comments."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self.title = self._lines[0].strip() if self._lines else ""
        # Number of lines that were read.
        self.n_read = 1

    def peek(self) -> list[str]:
        """Return the words of the next line; none if it is blank or there is none."""
        if self.n_read >= len(self._lines):
            return []
        return re.split("[!#]", self._lines[self.n_read], maxsplit=1)[0].split()

    def words(self, expected: str) -> list[str]:
        """Return the words of the next line, of which there must be some."""
        words = self.peek()
        self.n_read += 1
        if not words:
            raise self.malformed(expected)
        return words

    def numbers(self, expected: str, lengths: Sequence[int] = (3,)) -> list[float]:
        """Return the numbers at the start of the next line, at most as many as expected."""
        found = _leading_numbers(self.words(expected))[: max(lengths)]
        if len(found) not in lengths:
            raise self.malformed(f"{expected} ({' or '.join(map(str, lengths))} numbers)")
        return found

    def malformed(self, expected: str) -> StructureError:
        """Return the error for the line that was read last."""
        found = "missing"
        if self.n_read <= len(self._lines):
            line = self._lines[self.n_read - 1]
            found = repr(one_line(line, 60)) if line.strip() else "blank"
        return StructureError(
            f"not a readable poscar file: line {self.n_read} is {found}, expected {expected}"
        )


def _leading_numbers(words: Sequence[str]) -> list[float]:
    numbers = []
    for word in words:
        if not _NUMBER.fullmatch(word):
            break
        numbers.append(float(word.replace("d", "e").replace("D", "e")))
    return numbers


def _factors(scale: Sequence[float], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the factors of x, y and z; a negative scale is the volume of the cell."""
    if len(scale) == 1 and -_MAX_SCALE < scale[0] < 0:
        return np.full(3, (-scale[0] / abs(np.linalg.det(vectors))) ** (1 / 3))
    if not (min(scale) > 0 and max(scale) < _MAX_SCALE):
        raise StructureError(
            f"not a readable poscar file: the scale in line 2 is {' '.join(map(str, scale))}; "
            "expected a positive number, three of them, or minus the volume in Å³"
        )
    return np.array(scale) * np.ones(3)


def _species(lines: _Lines) -> tuple[list[str] | None, list[int]]:
    """Return the element symbols, None in the form of VASP 4, and the numbers of atoms."""
    words, symbols = lines.words("element symbols or numbers of atoms"), None
    if not _COUNT.fullmatch(words[0]):
        # "Fe_pv" and "Fe/1a2b3c" name the potential, too.
        symbols = [re.split("[_/]", word)[0] for word in words]
        words = lines.words("numbers of atoms")
    if not all(map(_COUNT.fullmatch, words)):
        raise lines.malformed("numbers of atoms")
    counts = [int(word) for word in words]
    if sum(map(abs, counts)) > MAX_SITES:
        raise StructureError(
            f"it declares {sum(map(abs, counts)):.3g} sites; up to {MAX_SITES} are supported"
        )
    if min(counts) < 0:
        raise lines.malformed("numbers of atoms")
    if symbols is not None and len(symbols) != len(counts):
        found = f"{len(symbols)} elements ({one_line(' '.join(symbols), 60)})"
        raise StructureError(
            f"not a readable poscar file: {found} but {len(counts)} numbers of atoms in line "
            f"{lines.n_read}; expected a number for each element"
        )
    return symbols, counts


def _coordinates(lines: _Lines, n_atoms: int) -> tuple[NDArray[np.float64], list[str]]:
    """Return the coordinates, and the last word of each of their lines."""
    coords, labels = np.empty((n_atoms, 3)), list[str]()
    for site in range(n_atoms):
        if not (words := lines.peek()):
            raise StructureError(
                f"the file declares {n_atoms} atoms but has {site} coordinate lines: "
                f"line {lines.n_read + 1} is missing or blank"
            )
        coords[site] = lines.numbers(f"coordinates of atom {site + 1} of {n_atoms}")
        labels.append(words[-1])
    if len(_leading_numbers(lines.peek())) >= 3:
        raise StructureError(
            f"the file declares {n_atoms} atoms but has more coordinate lines: expected a blank "
            f"line or the end in line {lines.n_read + 1}"
        )
    return coords, labels


def _missing_symbols(
    title: str, counts: Sequence[int], labels: Sequence[str], folder: Path | None
) -> list[str]:
    """Return the elements of a POSCAR without symbols: from a POTCAR, labels or the title."""
    potcar = [] if folder is None else _potcar_elements(folder / "POTCAR")
    if potcar and len(potcar) != len(counts):
        raise StructureError(
            f"Elements in POSCAR cannot be determined: the POTCAR beside it has {len(potcar)} "
            f"({' '.join(potcar)}), but there are {len(counts)} numbers of atoms"
        )
    symbols = potcar or _label_elements(counts, labels)
    if symbols:
        return symbols
    symbols = _title_elements(title, counts)
    if not symbols:
        raise StructureError(
            "Elements in POSCAR cannot be determined: it has the form of VASP 4, without symbols; "
            f"add a line with {len(counts)} element symbols above the numbers of atoms "
            "(line 6), or put the POTCAR beside it"
        )
    warn(
        "elements_from_title",
        f"the POSCAR has no element symbols; {' '.join(symbols)} are those of its title",
    )
    return symbols


def _potcar_elements(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return _POTCAR_ELEMENT.findall("".join(text_pieces(path, ONE_STRUCTURE)))


def _label_elements(counts: Sequence[int], labels: Sequence[str]) -> list[str]:
    """Return the elements behind the coordinates, if every atom has one and each block is equal."""
    ends = np.cumsum(counts)
    blocks = [set(labels[end - n : end]) for n, end in zip(counts, ends.tolist(), strict=True)]
    firsts = [min(block, default="") for block in blocks]
    is_known = all(len(block) == 1 for block in blocks) and set(firsts) <= set(SYMBOLS[1:])
    # T and F are flags of selective dynamics.
    return firsts if is_known and not set(firsts) <= {"F"} else []


def _title_elements(title: str, counts: Sequence[int]) -> list[str]:
    """Return the elements of a title such as "Na Cl", "NaCl" or "Fe2 O3" that fits the counts."""
    words = title.split()
    if len(words) == len(counts) and set(words) <= set(SYMBOLS[1:]):
        return words
    formula = parse_formula(title) or {}
    if len(formula) != len(counts):
        return []
    amounts = [*formula.values()]
    fits = all(n * amounts[0] == counts[0] * k for n, k in zip(counts, amounts, strict=True))
    return [SYMBOLS[z] for z in formula] if fits else []
