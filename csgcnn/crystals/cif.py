"""CIF files, read by pymatgen; what would keep its parser busy for minutes is refused before.

pymatgen's time grows with the square of the positions that the symmetry operations make, of the quotes in a line and of
the blank lines in a row, and with the cube of a number in an operation. The bounds are far from any usual file.
"""

import re
import warnings
from typing import TYPE_CHECKING, Any

from csgcnn.crystals.structure_files import FARTHEST_CELL
from csgcnn.errors import StructureError

if TYPE_CHECKING:
    from pymatgen.core import Structure

_MOST_BLOCKS = 8  # with atoms, that are tried
_MOST_COMPARISONS = 6e7  # of positions: some four seconds
_FEW_ROWS = 16  # whose positions are few, whatever the space group
_MOST_QUOTES = 1e8  # times the length of their line: a second or two
_MOST_SHARED = 5_000  # sites that several elements share: these are disordered anyway
_FORMULAS = ("_chemical_formula_sum", "_chemical_formula_structural", "_atom_site_type_symbol")
_LONGEST_FORMULA = 30_000  # characters
_SYMMETRY = re.compile("symop|equiv_pos")  # in names of items that hold symmetry operations
_LONGEST_OPERATION, _LONG_NUMBER = 200, re.compile(r"[\d.]{24}")
_SETTING = re.compile(r"(?!.*\*\*)[-+/*.,;()0-9abc]{1,200}")  # of a magnetic space group; no power


def parse_cif(text: str) -> "Structure":
    """The first structure of a CIF; what pymatgen mends in it is warned of.

    Raises: StructureError if reading it would take minutes; ValueError and others if it is malformed.
    """
    from pymatgen.io.cif import CifParser

    _check_text(text)
    parser: Any = CifParser.from_str("\n".join(line for line in text.split("\n") if line.strip()))
    blocks = {
        name: block for name, block in parser._cif.data.items() if "_atom_site_label" in block.data
    }
    reason = "there is no _atom_site_label in it"
    for number, (name, block) in enumerate(list(blocks.items())[:_MOST_BLOCKS]):
        _check_items(block.data)
        _check_expansion(parser, block)
        parser._cif.data = {name: block}
        try:
            (structure,) = parser.parse_structures(primitive=False, on_error="ignore")
        except ValueError as error:
            if number == 0:  # pymatgen keeps the reason proper among its warnings
                reason = next(
                    (text for text in parser.warnings if text.startswith("No structure")),
                    str(error),
                )
            continue
        for message in parser.warnings:
            warnings.warn(message, stacklevel=2)
        return structure
    raise ValueError(reason)


def _check_text(text: str) -> None:
    """Refuse what would keep the parser busy before it knows the items of the file."""
    quotes = sum((line.count("'") + line.count('"')) * len(line) for line in text.split("\n"))
    if quotes > _MOST_QUOTES + 100 * len(text):
        raise StructureError("its lines hold more quotes than a CIF can; is it one?")
    if text.count(" + ") > _MOST_SHARED:
        raise StructureError(
            "thousands of its sites are shared by several elements (' + '); give an ordered structure"
        )


def _check_items(data: dict[str, Any]) -> None:
    """Refuse items of a block that are no symmetry operation, setting, formula or coordinate, but a trap."""
    for name, value in data.items():
        texts = value if isinstance(value, list) else [value]
        if _SYMMETRY.search(name):
            trap = next((t for t in texts if _is_long(t)), None)
        elif "transform_BNS" in name:  # pymatgen evaluates it, without its spaces
            trap = next((t for t in texts if not _SETTING.fullmatch("".join(t.split()))), None)
        elif name.startswith(
            "_atom_site_fract"
        ):  # pymatgen takes the remainder, of which no digit is left
            trap = next((t for t in texts if _is_far(t)), None)
        else:
            trap = value if name in _FORMULAS and sum(map(len, texts)) > _LONGEST_FORMULA else None
        if trap is not None:
            raise StructureError(f"{name} holds {str(trap)[:40]!r}, which no {name} is")


def _is_long(operation: str) -> bool:
    return (
        len(operation) > _LONGEST_OPERATION
        or _LONG_NUMBER.search(operation.replace(" ", "")) is not None
    )


def _is_far(coordinate: str) -> bool:
    try:
        return abs(float(coordinate.partition("(")[0])) > FARTHEST_CELL
    except ValueError:  # pymatgen will say so
        return False


def _check_expansion(parser: Any, block: Any) -> None:
    """Refuse more positions, made of the rows by the symmetry operations, than pymatgen compares in some seconds."""
    n_rows = len(block.data["_atom_site_label"])
    lists = {
        name: len(v)
        for name, v in block.data.items()
        if _SYMMETRY.search(name) and isinstance(v, list)
    }
    centerings = max([1, *(n for name, n in lists.items() if "centering" in name)])
    _check_positions(
        n_rows, centerings * max([1, *(n for name, n in lists.items() if "centering" not in name)])
    )
    if n_rows > _FEW_ROWS:  # what the name of the space group stands for
        is_magnetic = parser.feature_flags["magcif"]
        _check_positions(
            n_rows, len(parser.get_magsymops(block) if is_magnetic else parser.get_symops(block))
        )


def _check_positions(n_rows: int, n_operations: int) -> None:
    if n_rows**2 * n_operations * (n_operations + 1) > _MOST_COMPARISONS:
        raise StructureError(
            f"its {n_rows} rows of atoms and {n_operations} symmetry operations make up to {n_rows * n_operations} "
            "positions, too many for a CIF; give it as POSCAR or json"
        )
