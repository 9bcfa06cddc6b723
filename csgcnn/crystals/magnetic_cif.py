"""CIF files of magnetic structures, read by pymatgen within bounds on the time that they take.

The time of pymatgen's parser grows with the square of the positions that the symmetry operations
generate, of the quotes in a line and of consecutive blank lines, and with the cube of a number in
an operation. The bounds below are far beyond usual files.
"""

import re
import warnings
from typing import TYPE_CHECKING, Any

from csgcnn.crystals.limits import MAX_FRAC_COORD
from csgcnn.errors import StructureError

if TYPE_CHECKING:
    from pymatgen.core import Structure

# Blocks with atoms that are tried until one gives a structure.
_MAX_BLOCKS = 8
# Comparisons of generated positions; about four seconds.
_MAX_COMPARISONS = 6e7
# Rows of atoms for which every space group takes little time.
_FEW_ROWS = 16
# Sum over the lines of quotes times length; one or two seconds.
_MAX_QUOTES = 1e8
# Sites shared by several elements; such a structure is disordered and refused anyway.
_MAX_SHARED_SITES = 5_000
_FORMULAS = ("_chemical_formula_sum", "_chemical_formula_structural", "_atom_site_type_symbol")
_MAX_FORMULA_LENGTH = 30_000
# Part of the names of items that hold symmetry operations.
_SYMMETRY = re.compile("symop|equiv_pos")
_MAX_OPERATION_LENGTH, _LONG_NUMBER = 200, re.compile(r"[\d.]{24}")
# Setting of a magnetic space group, which pymatgen evaluates; without powers.
_SETTING = re.compile(r"(?!.*\*\*)[-+/*.,;()0-9abc]{1,200}")


def read_magnetic_cif(text: str) -> "Structure":
    """Return the first structure of a CIF and warn of what pymatgen corrected in it.

    Raises:
        StructureError: Reading it would take minutes.
        ValueError: It is malformed; pymatgen raises errors of other types, too.
    """
    from pymatgen.io.cif import CifParser

    _check_text(text)
    parser: Any = CifParser.from_str("\n".join(line for line in text.split("\n") if line.strip()))
    blocks = {
        name: block for name, block in parser._cif.data.items() if "_atom_site_label" in block.data
    }
    reason = "there is no _atom_site_label in it"
    for number, (name, block) in enumerate(list(blocks.items())[:_MAX_BLOCKS]):
        _check_items(block.data)
        _check_expansion(parser, block)
        parser._cif.data = {name: block}
        try:
            (structure,) = parser.parse_structures(primitive=False, on_error="ignore")
        except ValueError as error:
            if number == 0:
                reason = _reason(parser, error)
            continue
        for message in parser.warnings:
            warnings.warn(message, stacklevel=2)
        return structure
    raise ValueError(reason)


def _reason(parser: Any, error: ValueError) -> str:
    """Return why pymatgen found no structure, which it puts among its warnings."""
    found = (text for text in parser.warnings if text.startswith("No structure"))
    return next(found, str(error))


def _check_text(text: str) -> None:
    quotes = sum((line.count("'") + line.count('"')) * len(line) for line in text.split("\n"))
    if quotes > _MAX_QUOTES + 100 * len(text):
        raise StructureError("its lines hold more quotes than a CIF can; is it one?")
    if text.count(" + ") > _MAX_SHARED_SITES:
        raise StructureError(
            "thousands of its sites are shared by several elements (' + '); "
            "give an ordered structure"
        )


def _check_items(data: dict[str, Any]) -> None:
    """Refuse values that are not a symmetry operation, setting, formula or coordinate."""
    for name, value in data.items():
        texts = value if isinstance(value, list) else [value]
        if _SYMMETRY.search(name):
            refused = next(filter(_is_long_operation, texts), None)
        elif "transform_BNS" in name:
            # pymatgen evaluates it after removing spaces.
            refused = next((t for t in texts if not _SETTING.fullmatch("".join(t.split()))), None)
        elif name.startswith("_atom_site_fract"):
            # pymatgen wraps coordinates into the cell, which hides lost digits.
            refused = next(filter(_is_far, texts), None)
        else:
            is_long = name in _FORMULAS and sum(map(len, texts)) > _MAX_FORMULA_LENGTH
            refused = value if is_long else None
        if refused is not None:
            raise StructureError(
                f"{name} holds {str(refused)[:40]!r}; this is not a valid value, correct the file"
            )


def _is_long_operation(operation: str) -> bool:
    if len(operation) > _MAX_OPERATION_LENGTH:
        return True
    return _LONG_NUMBER.search(operation.replace(" ", "")) is not None


def _is_far(coordinate: str) -> bool:
    try:
        return abs(float(coordinate.partition("(")[0])) > MAX_FRAC_COORD
    except ValueError:
        # pymatgen reports it.
        return False


def _check_expansion(parser: Any, block: Any) -> None:
    """Refuse more generated positions than pymatgen compares in some seconds."""
    n_rows = len(block.data["_atom_site_label"])
    lists = {
        name: len(value)
        for name, value in block.data.items()
        if _SYMMETRY.search(name) and isinstance(value, list)
    }
    n_centerings = max([1, *(n for name, n in lists.items() if "centering" in name)])
    n_operations = max([1, *(n for name, n in lists.items() if "centering" not in name)])
    _check_positions(n_rows, n_centerings * n_operations)
    if n_rows > _FEW_ROWS:
        # Without a list of operations, the name of the space group stands for them.
        is_magnetic = parser.feature_flags["magcif"]
        operations = parser.get_magsymops(block) if is_magnetic else parser.get_symops(block)
        _check_positions(n_rows, len(operations))


def _check_positions(n_rows: int, n_operations: int) -> None:
    if n_rows**2 * n_operations * (n_operations + 1) > _MAX_COMPARISONS:
        raise StructureError(
            f"its {n_rows} rows of atoms and {n_operations} symmetry operations make up to "
            f"{n_rows * n_operations} positions, too many for a CIF; give it as POSCAR or json"
        )
