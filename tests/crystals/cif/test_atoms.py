"""Atoms of a CIF: elements, occupancies and coordinates are read right, or refused by name."""

import numpy as np
import pytest
from cif_text import atoms, cif

from csgcnn.crystals.cif import read_cif
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.structure_warnings import StructureWarning
from csgcnn.errors import StructureError

NO_TYPES = "label fract_x fract_y fract_z"
# A file without space group is read with a warning.
pytestmark = pytest.mark.filterwarnings("ignore:the file names no space group")
OCCUPANCIES = "label type_symbol occupancy fract_x fract_y fract_z"
ORIGIN, CENTER = "0 0 0", "0.5 0.5 0.5"


def symbols(text: str) -> list[str]:
    return [SYMBOLS[z] for z in read_cif(text).atomic_number]


@pytest.mark.parametrize(
    ("type_symbol", "element"),
    [
        *[("Fe", "Fe"), ("FE", "Fe"), ("fe", "Fe"), ("Fe3+", "Fe"), ("Fe+3", "Fe"), ("O2-", "O")],
        *[("Mn2.5+", "Mn"), ("D", "H"), ("D1+", "H"), ("T", "H"), ("O-2", "O"), ("Na0+", "Na")],
        *[("Cval", "C"), ("Siva", "Si"), ("O-", "O"), ("'O 2-'", "O"), ("Wat", None)],
        *[("X", None), ("OH", None), ("Q1", None), ("Fe/Mg", None), ("Cent", None)],
        *[("CO3", None), ("PO4", None), ("NH4", None), ("HO", None), ("Co3", "Co"), ("PO2-", "Po")],
    ],
)
def test_type_symbol_is_an_element_or_refused(type_symbol: str, element: str | None) -> None:
    text = cif(atoms(f"A1 {type_symbol} {ORIGIN}"))
    if element is None:
        with pytest.raises(StructureError, match=r"atom A1: .*does not name an element"):
            read_cif(text)
    else:
        assert symbols(text) == [element]


@pytest.mark.parametrize("unknown", ["?", "."])
def test_label_stands_for_an_unknown_type_symbol(unknown: str) -> None:
    assert symbols(cif(atoms(f"Cl1 {unknown} {ORIGIN}"))) == ["Cl"]


@pytest.mark.parametrize(
    ("label", "element"),
    [("Fe", "Fe"), ("Fe1", "Fe"), ("O1W", "O"), ("C1'", "C"), ("Na(1)", "Na"), ("O-1", "O")],
)
def test_label_that_leaves_no_doubt_is_an_element(label: str, element: str) -> None:
    assert symbols(cif(atoms(f'"{label}" {ORIGIN}', NO_TYPES))) == [element]


@pytest.mark.parametrize(
    "label",
    [
        "OH1",
        "HO1",
        "Wat1",
        "Vac1",
        "Cent",
        "X1",
        "OW1",
        "CA1",
        "FE1",
        "Q",
        "Du1",
        "1",
        "AlT1",
        "T1",
        "T1o",
    ],
)
def test_unclear_label_is_refused_by_name(label: str) -> None:
    with pytest.raises(StructureError, match=f"atom {label}: .*does not name an element"):
        read_cif(cif(atoms(f"{label} {ORIGIN}", NO_TYPES)))


def test_formula_decides_what_an_unclear_label_means() -> None:
    rows = f"FE1 {ORIGIN}; OA1 {CENTER}"
    assert symbols(cif("_chemical_formula_sum 'Fe O'", atoms(rows, NO_TYPES))) == ["Fe", "O"]
    # The formula must agree with what was guessed.
    with pytest.raises(StructureError, match="atom FE1"):
        read_cif(cif("_chemical_formula_sum 'Fe2 O'", atoms(rows, NO_TYPES)))


def test_formula_decides_what_an_unclear_type_symbol_means() -> None:
    rows = atoms(f"CO1 CO {ORIGIN}; O1 O {CENTER}")
    assert symbols(cif("_chemical_formula_sum 'Co O'", rows)) == ["Co", "O"]
    with pytest.raises(StructureError, match="atom CO1: its type symbol 'CO'"):
        read_cif(cif("_chemical_formula_sum 'Co2 O'", rows))


def test_rows_without_label_are_named_by_number_and_symbol() -> None:
    columns = "type_symbol fract_x fract_y fract_z"
    assert symbols(cif(atoms(f"Na {ORIGIN}; Cl {CENTER}", columns))) == ["Na", "Cl"]
    with pytest.raises(StructureError, match=r"atom in row 2 \(Cl\): _atom_site_fract_z is '\?'"):
        read_cif(cif(atoms(f"Na {ORIGIN}; Cl 0.5 0.5 ?", columns)))


@pytest.mark.parametrize(
    "text", ["1", "1.", "1.000(3)", ".", "?", "1.000000001", "0.9995", "0.999"]
)
def test_occupancy_of_one_up_to_rounding(text: str) -> None:
    assert symbols(cif(atoms(f"Na1 Na {text} {ORIGIN}", OCCUPANCIES))) == ["Na"]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (f"Na1 Na 0.5 {ORIGIN}", r"site Na1 is disordered \(Na 0.5\)"),
        (f"Na1 Na 0.5 {ORIGIN}; K1 K 0.5 {ORIGIN}", r"Na1, K1 is disordered \(Na 0.5, K 0.5\)"),
        (f"Na1 Na 0.5 {ORIGIN}; Na2 Na 0.5 0.1 0 0", "site Na1 is disordered"),
        (f"Na1 Na 0.5 {ORIGIN}; Na2 Na 0.4 {ORIGIN}", "Na1, Na2 is disordered"),
        (f"Na1 Na 2 {ORIGIN}", "atom Na1 has the occupancy 2"),
        (f"Na1 Na 0,5 {ORIGIN}", "atom Na1: _atom_site_occupancy is '0,5'; it has a decimal comma"),
    ],
)
def test_disorder_is_refused_with_its_occupancies(rows: str, reason: str) -> None:
    with pytest.raises(StructureError, match=reason):
        read_cif(cif(atoms(rows, OCCUPANCIES)))


def test_charge_states_and_isotopes_share_a_site() -> None:
    rows = f"Fe1 Fe2+ 0.4 {ORIGIN}; Fe2 Fe3+ 0.6 {ORIGIN}; H1 H 0.25 {CENTER}; D1 D 0.75 {CENTER}"
    with pytest.warns(StructureWarning, match="Fe1, Fe2 share one site"):
        assert symbols(cif(atoms(rows, OCCUPANCIES))) == ["Fe", "H"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (".", "is not known"),
        ("?", "is not known"),
        ("0,5", "decimal comma"),
        ("1/2", "no"),
        ("abc", "is not a number"),
        ("0.5.1", "is not a number"),
        ("--1", "is not a number"),
    ],
)
def test_bad_coordinate_is_refused_by_atom_and_key(value: str, reason: str) -> None:
    text = cif(atoms(f"Na1 Na {ORIGIN}; Cl1 Cl 0.5 {value} 0.5"))
    with pytest.raises(StructureError, match=rf"atom Cl1: _atom_site_fract_y is .*{reason}"):
        read_cif(text)


@pytest.mark.parametrize("minus", ["\u2212", "\u2013", "\u2010"])
def test_typographic_signs_and_blanks_are_those_of_ascii(minus: str) -> None:
    text = cif(atoms(f"Na1 Na {ORIGIN}; Cl1\u00a0Cl {minus}0.25 0.5\u20090.5"))
    assert np.allclose(read_cif(text).frac_coords[1], [0.75, 0.5, 0.5])


def test_thirds_are_exact_where_their_digits_allow_it() -> None:
    crystal = read_cif(cif(atoms("Na1 Na 0.333 0.6667 0.1667; Cl1 Cl 0.33 0.5 0.3340")))
    assert crystal.frac_coords.tolist() == [[1 / 3, 2 / 3, 1 / 6], [0.33, 0.5, 0.334]]


def test_dummy_and_empty_sites_are_left_out_with_a_warning() -> None:
    columns = "label type_symbol occupancy calc_flag fract_x fract_y fract_z"
    rows = f"Na1 Na 1 d {ORIGIN}; Cg1 C 1 dum 0.2 0.2 0.2; Vac1 Cl 0 d {CENTER}"
    with pytest.warns(StructureWarning) as caught:
        assert symbols(cif(atoms(rows, columns))) == ["Na"]
    omitted = [str(w.message) for w in caught if getattr(w.message, "code", "") == "omitted_site"]
    assert omitted == [
        "site Cg1 is a dummy site and is left out",
        "site Vac1 is empty and is left out",
    ]


def test_hydrogen_without_a_row_is_refused_unless_the_formula_agrees() -> None:
    columns = "label type_symbol attached_hydrogens fract_x fract_y fract_z"
    rows = atoms(f"Na1 Na 0 {ORIGIN}; O1 O 1 {CENTER}", columns)
    with pytest.raises(StructureError, match="atom O1 has 1 attached hydrogen"):
        read_cif(cif(rows))
    assert symbols(cif("_chemical_formula_sum 'Na O'", rows)) == ["Na", "O"]


def test_cartesian_coordinates_of_a_rectangular_cell_are_converted() -> None:
    columns = "label type_symbol Cartn_x Cartn_y Cartn_z"
    rows = atoms("Na1 Na 0 0 0; Cl1 Cl 2 2.5 3", columns)
    crystal = read_cif(cif(rows, parameters=(4, 5, 6, 90, 90, 90)))
    assert np.allclose(crystal.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(StructureError, match="Cartesian"):
        read_cif(cif(rows, parameters=(4, 5, 6, 90, 100, 90)))
    with pytest.raises(StructureError, match="Cartesian"):
        read_cif(cif("_atom_sites_Cartn_tran_matrix_11 1", rows))


def test_rows_of_different_length_are_refused() -> None:
    other = "loop_\n_atom_site_occupancy\n1\n1\n1\n"
    text = cif(atoms(f"Na1 Na {ORIGIN}; Cl1 Cl {CENTER}"), other)
    with pytest.raises(StructureError, match="_atom_site_occupancy has 3 values for 2 rows"):
        read_cif(text)


@pytest.mark.parametrize("text", ["nan", "inf", "1_0"])
def test_words_that_python_reads_as_numbers_are_refused(text: str) -> None:
    with pytest.raises(StructureError, match=f"_atom_site_occupancy is '{text}'; it is not a num"):
        read_cif(cif(atoms(f"Na1 Na {text} {ORIGIN}", OCCUPANCIES)))
    with pytest.raises(StructureError, match=f"_atom_site_fract_x is '{text}'; it is not a number"):
        read_cif(cif(atoms(f"Na1 Na {text} 0 0")))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("Na1 Na 0 0", r"line \d+ .*: Wrong number of values in loop _atom_site_\*"),
        ("□ Na 0 0 0", r"line \d+ \('□ Na 0 0 0'\): parse error"),
    ],
)
def test_lines_that_are_no_cif_are_shown(rows: str, message: str) -> None:
    with pytest.raises(StructureError, match=f"not a readable cif file: {message}"):
        read_cif(cif(atoms(rows)))


def test_alternatives_without_occupancies_are_refused() -> None:
    columns = "label type_symbol fract_x fract_y fract_z disorder_assembly disorder_group"
    with pytest.raises(StructureError, match="atoms Na1 and Cl1 are disordered: alternatives by"):
        read_cif(cif(atoms(f"Na1 Na {ORIGIN} A 1; Cl1 Cl {CENTER} A 2", columns)))
    assert symbols(cif(atoms(f"Na1 Na {ORIGIN} . .; Cl1 Cl {CENTER} A 1", columns))) == ["Na", "Cl"]
