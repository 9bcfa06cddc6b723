"""Symmetry of a CIF: operations before symbols before the number, or a refusal that names it."""

import warnings

import numpy as np
import pytest
from cif_text import CUBIC, atoms, cif, named, operations

from csgcnn.crystals.cif import read_cif
from csgcnn.errors import StructureError

SALT = atoms("Na1 Na 0 0 0; Cl1 Cl 0.5 0.5 0.5")
SPINEL = {
    1: "Mg1 Mg 0 0 0; Al1 Al 0.625 0.625 0.625; O1 O 0.387 0.387 0.387",
    2: "Mg1 Mg 0.125 0.125 0.125; Al1 Al 0.5 0.5 0.5; O1 O 0.262 0.262 0.262",
}
BIG = (8.08, 8.08, 8.08, 90, 90, 90)
RHOMBOHEDRAL = (5.13, 5.13, 5.13, 55.29, 55.29, 55.29)
HEXAGONAL = (4.76, 4.76, 12.99, 90, 90, 120)


def codes(text: str) -> tuple[int, list[str]]:
    """Number of atoms and codes of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        crystal = read_cif(text)
    return len(crystal.atomic_number), [getattr(w.message, "code", "") for w in caught]


@pytest.mark.parametrize(
    "symbol",
    [
        *["F m -3 m", "Fm-3m", "F m 3 m", "Fm3m", "fm-3m", "F_m_-3_m", "F 4/m -3 2/m", "F4/m-32/m"],
        *["F M -3 M", "  F m -3 m  "],
    ],
)
def test_spellings_of_one_symbol(symbol: str) -> None:
    assert codes(cif(named(symbol), SALT, parameters=(5.6, 5.6, 5.6, 90, 90, 90))) == (8, [])


@pytest.mark.parametrize(
    "symbol", ["P 21/c", "P21/c", "P 2(1)/c", "P 2_1/c", "P 1 21/c 1", "P2sub1/c", "P2~1~/c"]
)
def test_spellings_of_a_screw_axis(symbol: str) -> None:
    text = cif(named(symbol), atoms("Na1 Na 0.1 0.2 0.3"), parameters=(6, 7, 8, 90, 105, 90))
    crystal = read_cif(text)
    expected = [[0.1, 0.2, 0.3], [0.9, 0.8, 0.7], [0.9, 0.7, 0.2], [0.1, 0.3, 0.8]]
    assert np.allclose(sorted(crystal.frac_coords.tolist()), sorted(expected))


@pytest.mark.parametrize(
    ("origin", "suffix"), [(1, ":1"), (2, ":2"), (1, " S"), (2, " Z"), (2, "Z")]
)
def test_origin_choice_of_the_symbol(origin: int, suffix: str) -> None:
    text = cif(named(f"F d -3 m{suffix}"), atoms(SPINEL[origin]), parameters=BIG)
    assert codes(text) == (56, [])


def test_atoms_and_formula_decide_an_origin_that_is_not_named() -> None:
    formula = "_chemical_formula_sum 'Mg Al2 O4'"
    assert codes(cif(formula, named("F d -3 m"), atoms(SPINEL[1]), parameters=BIG)) == (56, [])
    text = cif(formula, named("F d -3 m"), atoms(SPINEL[2]), parameters=BIG)
    assert codes(text) == (56, ["inferred_setting"])


def test_first_origin_is_assumed_with_a_warning_where_both_fit() -> None:
    text = cif(named("P n -3 m"), atoms("Cu1 Cu 0.25 0.25 0.25; O1 O 0 0 0"), parameters=BIG)
    assert codes(text)[1] == ["assumed_setting"]


@pytest.mark.parametrize("symbol", ["R -3 c", "R-3c:R", "R -3 c R"])
def test_rhombohedral_axes_follow_the_cell(symbol: str) -> None:
    rows = atoms("Al1 Al 0.355 0.355 0.355; O1 O 0.552 0.948 0.25")
    assert codes(cif(named(symbol), rows, parameters=RHOMBOHEDRAL)) == (10, [])


@pytest.mark.parametrize("symbol", ["R -3 c", "R-3c:H", "R -3 c H"])
def test_hexagonal_axes_follow_the_cell(symbol: str) -> None:
    rows = atoms("Al1 Al 0 0 0.355; O1 O 0.306 0 0.25")
    assert codes(cif(named(symbol), rows, parameters=HEXAGONAL)) == (30, [])


@pytest.mark.parametrize(
    ("symbol", "parameters"),
    [
        ("R -3 c:H", RHOMBOHEDRAL),
        ("R -3 c:R", HEXAGONAL),
        ("F m -3 m", (4, 5, 6, 90, 90, 90)),
        ("P 21/c", (6, 7, 8, 90, 90, 105)),
    ],
)
def test_space_group_that_does_not_fit_the_cell_is_refused(
    symbol: str, parameters: tuple[float, ...]
) -> None:
    with pytest.raises(StructureError, match=f"space group {symbol} does not fit the cell"):
        read_cif(cif(named(symbol), SALT, parameters=parameters))


@pytest.mark.parametrize("symbol", ["X 21/c", "P 99", "unknown", "F d -3 q"])
@pytest.mark.parametrize("number", ["", "_space_group_IT_number 225"])
def test_unknown_symbol_is_refused_even_beside_a_number(symbol: str, number: str) -> None:
    with pytest.raises(StructureError, match=f"space group {symbol} is not known"):
        read_cif(cif(named(symbol), number, SALT))


def test_unknown_hall_symbol_gives_way_to_a_known_name() -> None:
    hall = "_space_group_name_Hall 'no symbol'"
    assert codes(cif(hall, named("P -1"), SALT)) == (2, [])
    with pytest.raises(StructureError, match="no symbol is not known"):
        read_cif(cif(hall, SALT))


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (["x,y,z", "2*x,y,z"], "operation"),
        (["x,y,z", "x,x,z"], "determinant"),
        (["x,y,z", "x,y"], "is no symmetry operation"),
        (["x,y,z", "x,y,foo"], "is no symmetry operation"),
        (["x,y,z", "a,b,c"], "is no symmetry operation"),
        (["x,y,z", "y,z,x"], "are no group"),
        (["-x,-y,-z"], "are no group"),
        (["x,y,z", "x+0.123,y,z"], "translation 0.123"),
        (["x,y,z", "x+1/5,y,z"], "is no symmetry operation"),
    ],
)
def test_operations_that_are_no_group_are_refused_with_their_key(
    listed: list[str], reason: str
) -> None:
    with pytest.raises(StructureError, match=f"_space_group_symop_operation_xyz: .*{reason}"):
        read_cif(cif(operations(*listed), SALT))


@pytest.mark.parametrize(
    "lines", ["x, y, z\n-x, -y, -z", "1 x, y, z\n2 -x, -y, -z", "x , y, z\n'-x,-y,-z'"]
)
def test_operations_without_quotes(lines: str) -> None:
    numbered = "_symmetry_equiv_pos_site_id\n" if lines[0] == "1" else ""
    loop = f"loop_\n{numbered}_symmetry_equiv_pos_as_xyz\n{lines}\n"
    assert codes(cif(loop, atoms("Na1 Na 0.1 0.2 0.3"))) == (2, ["unquoted_operation"])


def test_operations_that_are_partly_without_quotes_are_not_guessed() -> None:
    loop = "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n-x, -y, -z\n"
    with pytest.raises(StructureError, match="_symmetry_equiv_pos_as_xyz: '-x,' is no symmetry"):
        read_cif(cif(loop, SALT))


def test_named_group_with_other_operations_is_warned_of() -> None:
    text = cif(operations("x,y,z", "-x,-y,-z"), named("F m -3 m"), SALT)
    assert codes(text) == (2, ["symmetry_mismatch"])
    assert codes(cif(operations("x,y,z", "-x,-y,-z"), named("P -1"), SALT)) == (2, [])


def test_no_symmetry_at_all_is_warned_of() -> None:
    assert codes(cif(SALT)) == (2, ["no_symmetry"])
    assert codes(cif(named("P 1"), SALT)) == (2, [])


@pytest.mark.parametrize("decimals", [3, 4, 5])
@pytest.mark.parametrize("symbol", ["P 3 m 1", "P 63/m m c", "R -3 m:H"])
def test_rounded_special_positions_merge(symbol: str, decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    parameters = (12.0, 12.0, 15.0, 90, 90, 120)
    for x in rng.uniform(0.05, 0.15, 20):
        exact = f"Pt1 Pt {x:.9f} {2 * x:.9f} 0.1234"
        rounded = f"Pt1 Pt {x:.{decimals}f} {2 * x:.{decimals}f} 0.1234"
        counts = [
            codes(cif(named(symbol), atoms(row), parameters=parameters))[0]
            for row in (exact, rounded)
        ]
        assert counts[0] == counts[1]


def test_merged_position_is_exactly_special() -> None:
    text = cif(named("P 3 m 1"), atoms("Pt1 Pt 0.080 0.161 0.5"), parameters=(9, 9, 9, 90, 90, 120))
    x, y, _ = read_cif(text).frac_coords[0]
    assert abs(y - 2 * x) < 1e-12
    assert abs(x - 0.0803) < 3e-4


@pytest.mark.parametrize("key", ["_cell_length_b", "_cell_angle_gamma"])
def test_impossible_or_missing_cell_is_refused_by_key(key: str) -> None:
    text = cif(SALT)
    line = next(line for line in text.split("\n") if line.startswith(key))
    for value in ("-4", "0", "?", "4,0", "x"):
        with pytest.raises(StructureError, match=key):
            read_cif(text.replace(line, f"{key} {value}"))
    with pytest.raises(StructureError, match=f"no {key}"):
        read_cif(text.replace(line, ""))


def test_cell_without_volume_is_refused() -> None:
    with pytest.raises(StructureError, match="lattice"):
        read_cif(cif(SALT, parameters=(4, 4, 4, 60, 60, 150)))


def test_volume_that_differs_from_the_cell_is_warned_of() -> None:
    assert codes(cif("_cell_volume 64.0(2)", named("P 1"), SALT)) == (2, [])
    assert codes(cif("_cell_volume 46", named("P 1"), SALT)) == (2, ["cell_volume"])


def test_other_number_of_formula_units_is_warned_of() -> None:
    formula = "_chemical_formula_sum 'Na Cl'"
    assert codes(cif(formula, "_cell_formula_units_Z 1", named("P 1"), SALT)) == (2, [])
    assert codes(cif(formula, "_cell_formula_units_Z 4", named("P 1"), SALT)) == (
        2,
        ["formula_units"],
    )


def test_formula_of_the_whole_cell_may_be_declared() -> None:
    """As pymatgen does."""
    formula = "_chemical_formula_sum 'Fe2'"
    iron = atoms("Fe1 Fe 0 0 0; Fe2 Fe 0.5 0.5 0.5")
    assert codes(cif(formula, "_cell_formula_units_Z 2", named("P 1"), iron)) == (2, [])
    assert codes(cif(formula, "_cell_formula_units_Z 3", named("P 1"), iron)) == (
        2,
        ["formula_units"],
    )


def test_first_block_with_atoms_is_used_and_the_others_are_reported() -> None:
    salt, oxide = (
        cif(named("P 1"), SALT, name="A"),
        cif(named("P 1"), atoms("Mg1 Mg 0 0 0; O1 O 0.5 0.5 0.5"), name="A"),
    )
    with pytest.warns(UserWarning, match="2 structures; A is used"):
        crystal = read_cif("data_global\n_a b\n" + salt + oxide)
    assert crystal.labels == ("Na1", "Cl1")


def test_repeated_items_with_different_values_are_refused() -> None:
    assert codes(cif("_cell_length_a 4.0", named("P 1"), SALT, parameters=CUBIC)) == (2, [])
    with pytest.raises(StructureError, match="_cell_length_a is given more than once"):
        read_cif(cif("_cell_length_a 5", named("P 1"), SALT))


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (f"{named('P 1')}\n_space_group_IT_number 225", "P 1 and 225"),
        (f"{named('F m -3 m')}\n_space_group_name_Hall 'P 1'", "P 1 and F m -3 m"),
        (f"{named('F m -3 m')}\n_symmetry_space_group_name_H-M Pm-3m", "F m -3 m and Pm-3m"),
        ("_space_group_name_Hall '-F 4 2 3'\n_space_group_IT_number 221", "-F 4 2 3 and 221"),
    ],
)
def test_names_of_different_space_groups_are_refused(names: str, groups: str) -> None:
    with pytest.raises(StructureError, match=f"names two space groups, {groups}"):
        read_cif(cif(names, SALT))
    # Listed operations leave no doubt.
    assert len(read_cif(cif(names, operations("x,y,z"), SALT)).atomic_number) == 2


@pytest.mark.parametrize(
    "symmetry", ["", f"{named('F m -3 m')}\n{operations('x,y,z')}"], ids=["none", "too few"]
)
def test_fewer_formula_units_without_all_operations_are_refused(symmetry: str) -> None:
    formula = "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 4"
    with pytest.raises(StructureError, match=r"units_Z is 4, but the cell has 1 .* list all symm"):
        read_cif(cif(formula, symmetry, SALT))


@pytest.mark.parametrize("symbol", ["F m -3 m (225)", "Fm-3m(225)", "Fm-3m (No. 225)"])
def test_number_behind_a_symbol_is_left_out(symbol: str) -> None:
    assert codes(cif(named(symbol), SALT)) == (8, [])


def test_modulated_structure_is_refused() -> None:
    ssg = "loop_\n_space_group_symop_ssg_operation_algebraic\nx1,x2,x3,x4\n-x1,-x2,-x3,-x4"
    for modulation in (ssg, "_cell_modulation_dimension 1", "_cell_subsystems_number 2"):
        with pytest.raises(StructureError, match=r"is modulated \(_"):
            read_cif(cif(modulation, named("P 1"), SALT))
    assert codes(cif("_cell_modulation_dimension 0", named("P 1"), SALT)) == (2, [])


def test_angles_that_form_no_lattice_are_refused_by_name() -> None:
    for angles in ((60, 60, 130), (60, 60, 120), (130, 120, 110)):
        with pytest.raises(
            StructureError, match=r"_cell_angle_alpha.* no lattice has these angles"
        ):
            read_cif(cif(named("P 1"), SALT, parameters=(4, 4, 4, *angles)))
