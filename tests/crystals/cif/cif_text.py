"""CIFs of simple crystals as text, from their parts."""

CUBIC = (4.0, 4.0, 4.0, 90, 90, 90)
_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")


def cell(parameters: tuple[float | str, ...] = CUBIC) -> str:
    return "".join(f"_cell_{name} {v}\n" for name, v in zip(_CELL, parameters, strict=True))


def atoms(rows: str, columns: str = "label type_symbol fract_x fract_y fract_z") -> str:
    """A loop of atoms; rows are separated by semicolons."""
    header = "".join(f"_atom_site_{column}\n" for column in columns.split())
    return f"loop_\n{header}" + "".join(f"{row.strip()}\n" for row in rows.split(";"))


def cif(*parts: str, parameters: tuple[float | str, ...] = CUBIC, name: str = "a") -> str:
    return f"data_{name}\n{cell(parameters)}" + "".join(f"{part.rstrip()}\n" for part in parts)


def operations(*triplets: str) -> str:
    quoted = "".join(f"'{triplet}'\n" for triplet in triplets)
    return f"loop_\n_space_group_symop_operation_xyz\n{quoted}"


def named(symbol: str) -> str:
    return f'_space_group_name_H-M_alt "{symbol}"'
