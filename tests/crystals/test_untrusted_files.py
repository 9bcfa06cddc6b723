"""Files of strangers: each trap is refused with the reason, and what only looks like it is read."""

import gzip
import json
import os
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.crystal import to_crystal
from csgcnn.crystals.datasets import read_records
from csgcnn.crystals.graph_builder import GraphChunk, Rejected, build_graphs
from csgcnn.crystals.records import Record
from csgcnn.crystals.structure_files import read_structure_file
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.crystals.text_files import TextLimits
from csgcnn.errors import StructureError, UserError

Write = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what pymatgen mends

AXES = [("a", "alpha"), ("b", "beta"), ("c", "gamma")]
CELL = "".join(f"_cell_length_{edge} 4\n_cell_angle_{angle} 90\n" for edge, angle in AXES)
CIF = f"data_CsCl\n{CELL}loop_\n_atom_site_label\n_atom_site_type_symbol\n" + (
    "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nCs1 Cs 0 0 0\nCl1 Cl 0.5 0.5 0.5\n"
)
POSCAR = "CsCl\n1.0\n4 0 0\n0 4 0\n0 0 4\nCs Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
CSCL = {
    "lattice": (np.eye(3) * 4).tolist(),
    "species": ["Cs", "Cl"],
    "frac_coords": [[0] * 3, [0.5] * 3],
}
XSF, CSSR = (
    Structure(CSCL["lattice"], CSCL["species"], CSCL["frac_coords"]).to(fmt=kind)
    for kind in ("xsf", "cssr")
)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(StructureError, match=reason) as caught:
        to_crystal(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def accepted(path: Path) -> None:
    assert {55, 17} == set(to_crystal(path).atomic_number.tolist())


# --- one structure ---


def cif(item: str = "", end: str = "") -> str:
    """The CIF with another item before the atoms and another end."""
    return CIF.replace("loop_", item + "\nloop_") + end


def operations(*operations: str) -> str:
    return cif(
        "loop_\n_symmetry_equiv_pos_as_xyz\n"
        + "".join(f"'{operation}'\n" for operation in operations)
    )


def magnetic(setting: str) -> str:
    return cif(
        f"_space_group_magn.number_BNS 1.1\n_space_group_magn.transform_BNS_Pp_abc '{setting}'"
    )


def centered(n: int) -> str:
    once = "loop_\n_space_group_symop_magn_operation.xyz\nx,y,z,+1\nloop_\n_space_group_symop_magn_centering.xyz\n"
    return cif(once + "x,y,z,+1\n" * n)


def many_rows(space_group: str) -> str:
    rows = "".join(f"Cs{i} Cs 0 0 {i / 200}\n" for i in range(1, 100))
    return cif(f"_symmetry_space_group_name_H-M '{space_group}'", rows)


def after_blocks_without_coordinates(n: int) -> str:
    return "".join(f"data_{i}\nloop_\n_atom_site_label\nCs\n" for i in range(n)) + CIF


LAST = "0.5 0.5 0.5"
GRID = "BEGIN_BLOCK_DATAGRID_3D\nx\nBEGIN_DATAGRID_3D_x\n9000 9000 9000\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n0.5\n"
TRAPS: dict[
    str, tuple[str, str, str, str]
] = {  # name of the file, the trap, what is none, the reason
    "quotes": (
        "a.cif",
        cif(end="# " + "'" * 12_000),
        cif(end="# " + "'" * 2000),
        "more quotes than a CIF can",
    ),
    "shared sites": (
        "a.cif",
        cif(end="# " + " + " * 6000),
        cif(end="# " + " + " * 600),
        "shared by several elements",
    ),
    "long operation": (
        "a.cif",
        operations("x, y, z" + "+0" * 100),
        operations("x, y, z" + "+0" * 9),
        "as_xyz holds",
    ),
    "long number": (
        "a.cif",
        operations("x, y, z+0.0" + "0 0" * 12),
        operations("x, y, z+0.000"),
        "as_xyz holds",
    ),
    "many operations": (
        "a.cif",
        operations(*["x, y, z"] * 4000),
        operations(*["x, y, z"] * 192),
        "8000 positions",
    ),
    "many centerings": (
        "a.cif",
        centered(4000),
        centered(4),
        "4000 symmetry operations make up to 8000 positions",
    ),
    "many positions": (
        "a.cif",
        many_rows("F m -3 m"),
        many_rows("P 1"),
        "101 rows of atoms and 192 symmetry",
    ),
    "power": (
        "a.cif",
        magnetic("9**9**9**9,b,c;0,0,0"),
        magnetic("2*a+b,b,c;0,0,0"),
        "transform_BNS_Pp_abc holds",
    ),
    "spaced power": (
        "a.cif",
        magnetic("9* *9* *9,b,c;0,0,0"),
        magnetic("b, c, a; 0, 1/4, 0"),
        "BNS_Pp_abc holds",
    ),
    "code": (
        "a.cif",
        magnetic('__import__("os").getcwd(),b,c;0,0,0'),
        magnetic("a,b,c;0,0,0"),
        "BNS_Pp_abc holds",
    ),
    "long setting": (
        "a.cif",
        magnetic("a" + "+0" * 99 + ",b,c;0,0,0"),
        magnetic("a+0,b,c;0,0,0"),
        "BNS_Pp_abc holds",
    ),
    "far": (
        "a.cif",
        CIF.replace(LAST, "0.5 0.5 -2e6(3)"),
        CIF.replace(LAST, "0.5 0.5 -20.5(3)"),
        "fract_z holds '-2e6",
    ),
    "far, POSCAR": (
        "POSCAR",
        POSCAR.replace(LAST, "0.5 0.5 1e7"),
        POSCAR.replace(LAST, "0 0 1e5"),
        "a million cells",
    ),
    "formula": (
        "a.cif",
        cif("_chemical_formula_sum 'Cs1 Cl" + "1" * 30_000 + "'"),
        cif("_chemical_formula_sum 'Cs1 Cl1'"),
        "formula_sum holds 'Cs1 Cl1+'; this is not a valid",
    ),
    "many blocks": (
        "a.cif",
        after_blocks_without_coordinates(8),
        after_blocks_without_coordinates(7),
        "_atom_site_fract_x",
    ),
    "no atoms": (
        "a.cif",
        f"data_CsCl\n{CELL}",
        "data_empty\n" + CIF,
        "there is no _atom_site_label in it",
    ),
    "count, POSCAR": (
        "POSCAR",
        POSCAR.replace("1 1", "1 -999999"),
        POSCAR.replace("1 1", "+1 1 # 999999"),
        "declares",
    ),
    "count, XSF": (
        "a.xsf",
        XSF.replace("2 1", "999999999999 1"),
        "# 999999\n" + XSF,
        r"declares 1e\+12 sites; up to",
    ),
    "count, CSSR": (
        "a.cssr",
        CSSR.replace("2 0", "999999999 0"),
        CSSR,
        r"declares 1e\+09 sites; up to 100000",
    ),
    "grid, XSF": (
        "a.xsf",
        XSF.replace("2 1", "2 1\n9000 9000 90000"),
        GRID + "END_BLOCK_DATAGRID_3D\n" + XSF,
        "declares",
    ),
    "open grid, XSF": ("a.xsf", GRID + XSF, XSF + "\n" + GRID, "not a readable xsf"),
    "deep json": (
        "a.json",
        "[" * 100_000,
        json.dumps(CSCL | {"more": [[[[[]]]]]}),
        "not a readable json file: .*recurs",
    ),
    "long integer, json": (
        "a.json",
        "9" * 5000,
        json.dumps(CSCL | {"more": 10**4000}),
        "not a readable json file: .*digit",
    ),
    "large integer, json": (
        "a.json",
        json.dumps(CSCL | {"lattice": [[10**400, 0, 0], [0, 4, 0], [0, 0, 4]]}),
        json.dumps(CSCL | {"lattice": [[10**3, 0, 0], [0, 4, 0], [0, 0, 4]]}),
        "the lattice is not 3x3 numbers",
    ),
    "long cell, json": (
        "a.json",
        json.dumps(CSCL | {"lattice": [[20_000, 0, 0], [0, 4, 0], [0, 0, 4]]}),
        json.dumps(CSCL | {"lattice": [[9000, 0, 0], [0, 4, 0], [0, 0, 4]]}),
        r"a lattice vector is 2e\+04 Å long, expected at most 10000 Å",
    ),
    "many sites, json": (
        "a.json",
        json.dumps(CSCL | {"species": ["Cs"] * 100_001, "frac_coords": [[0, 0, 0]] * 100_001}),
        json.dumps(CSCL | {"species": ["Cs", "Cl"] * 500, "frac_coords": [[0, 0, 0]] * 1000}),
        "the structure has 100001 sites; up to 100000 are supported",
    ),
    "control characters": (
        "a.json",
        '"\\u001b[2J\\nup"',
        json.dumps(CSCL | {"\x1b[2J": "\n"}),
        "not a structure",
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_traps_are_refused_and_what_resembles_them_is_read(write: Write, trap: str) -> None:
    name, hostile, innocent, reason = TRAPS[trap]
    accepted(write(name, innocent))
    refused(write(name, hostile), reason)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "a device, pipe or socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, pipe or socket"),
        (Path.mkdir, "a folder"),
        (lambda path: path.symlink_to(path.parent), "a folder"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to(path.parent / "gone.cif"), "no such file"),
    ],
    ids=["pipe", "device", "folder", "link to a folder", "link to itself", "link to nothing"],
)
def test_only_regular_files_are_opened(
    write: Write, tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "a.cif"
    make(path)
    refused(path, reason)
    link = tmp_path / "link.cif"
    link.symlink_to(write("real.cif", CIF))
    accepted(link)


@pytest.mark.parametrize(
    ("name", "reason"), [("a\0.cif", "null byte"), ("a" * 300 + ".cif", "name too long")]
)
def test_impossible_names(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=rf"cannot be read \(.*{reason}"):
        to_crystal(tmp_path / name)


def test_a_file_may_have_the_largest_size_and_no_more(write: Write) -> None:
    packed, plain = write("a.cif.gz", gzip.compress(CIF.encode())), write("a.cif", CIF)
    for path in (packed, plain):
        read_structure_file(path, TextLimits(max_bytes=len(CIF)))
    too_small = TextLimits(max_bytes=len(CIF) - 1)
    with pytest.raises(StructureError, match="unpacks to more than"):
        read_structure_file(packed, too_small)
    with pytest.raises(StructureError, match="bytes; a structure file may have up to"):
        read_structure_file(plain, too_small)


def test_a_structure_file_above_the_default_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.cif"
    with open(path, "wb") as file:
        file.truncate(2**27 + 1)
    refused(path, r"the file has 1\.34e\+08 bytes; a structure file may have up to")


def test_a_decompression_bomb_is_not_unpacked(write: Write) -> None:
    limits = TextLimits(free_gzip_bytes=2**20)
    read_structure_file(write("a.cif.gz", gzip.compress(CIF.encode() + b"\n" * 2**19)), limits)
    bomb = gzip.compress(b"\n" * 2**25)
    path = write("a.cif.gz", gzip.compress(CIF.encode()) + bomb)
    reason = f"gzip file of {path.stat().st_size} bytes unpacks to more than"
    tracemalloc.start()
    with pytest.raises(StructureError, match=reason):
        read_structure_file(path, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_data_set_that_is_a_decompression_bomb_is_refused(write: Write) -> None:
    bomb = write("set.json.gz", gzip.compress(b"\n" * 2**24) * 8)
    with pytest.raises(UserError, match=r"set\.json\.gz: the gzip file of .* unpacks to more than"):
        read_records(bomb)


# --- data sets ---


@pytest.mark.parametrize("name", ["../x.cif", "/etc/x.cif", "a/../../x.cif", "./.././x.cif"])
def test_tables_name_no_file_elsewhere(write: Write, tmp_path: Path, name: str) -> None:
    for table in (
        write("table.csv", f"id,file\na,{name}\n"),
        write("id_prop.csv", f"{name.removesuffix('.cif')},1\n"),
    ):
        with pytest.raises(
            UserError, match=r"names the file .* which is not in the folder of the table"
        ) as caught:
            read_records(table if table.name == "table.csv" else tmp_path)
        assert str(caught.value).isprintable()
    (record,) = read_records(write("table.csv", "id,file\na,b/../..x/./a.cif\n"))
    assert record.source == tmp_path / "..x" / "a.cif"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "id,file\na,a\0.cif\n", "binary data"),
        ("a.csv", "id,file\na,b\n\nc\n", "line 4 has 1 fields, expected 2"),
        (
            "a.csv",
            'id,"x\n\x1b[2J","x\n\x1b[2J"\na,b,c\n',
            r"several columns are called x \[2J; give",
        ),
        ("a.csv", "id,file\na," + "b" * 200_000, "line 2 is not csv .field larger"),
        ("a.json", {"columns": ["a", "a"], "data": []}, "several columns are called a"),
        ("a.json", {"columns": [1, "1"], "data": []}, "several columns are called 1"),
        ("a.json", {"columns": [["a"]], "data": []}, "not a list of names"),
        ("a.json", {"columns": ["a"], "data": [[1]], "index": 7}, "index is 7, not a list"),
        ("a.json", "[" * 100_000, "not valid JSON .*recursion"),
        ("a.json", "[" + "9" * 5000 + "]", "not valid JSON .*digits"),
        ("a.json", {"a\n\x1b[2J": 1}, r"keys a \[2J; expected"),
        ("a.json", ["\n\x1b[2J"], r"entry 1 is '\\n\\x1b"),
        (
            "a.json",
            [{"id": [1], "structure": CSCL}],
            r"the id of record 1 is \[1\]; expected text or a number",
        ),
        (
            "a.json",
            [{"id": "\n\x1b[2J", "structure": CSCL}] * 2,
            r"1 id occurs more than once \(\[2J\)",
        ),
    ],
)
def test_hostile_tables_are_refused_in_a_printable_line(
    write: Write, name: str, content: object, reason: str
) -> None:
    path = write(name, content)
    with pytest.raises(UserError, match=reason) as caught:
        read_records(path)
    assert str(caught.value).isprintable()
    assert str(path) in str(caught.value)


def test_values_that_are_unusual_but_harmless_are_kept(write: Write) -> None:
    deep = json.loads("[" * 100 + "]" * 100)
    values = {"large": 10**400, "small": -(10**400), "most": 10**300, "deep": deep}
    text = json.dumps([{"id": "a", "structure": CSCL} | values])
    (record,) = read_records(write("set.json", text.replace('"a"', r'"\ud800 \ud83d\ude00"')))
    assert record.id == "? 😀"
    assert record.columns == {"large": np.inf, "small": -np.inf, "most": 10**300}


def test_patterns_go_through_no_link_twice(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one/x.vasp", "one/two/x.vasp", ".hidden/x.vasp"):
        write(name)
    (tmp_path / "one" / "again").symlink_to(tmp_path)
    (tmp_path / "itself.vasp").symlink_to(tmp_path / "itself.vasp")
    expected = [Path("one/two/x.vasp"), Path("one/x.vasp")]
    for pattern in ("**/x.vasp", "**/**/x.vas?", "one/**/x.vasp", "**/one/**/x.vasp"):
        assert sorted(record.source for record in iter_structures([pattern])) == expected, pattern
    assert [record.id for record in iter_structures(["one/**"])] == ["x", "two/x"]
    (record,) = iter_structures(["itself.vasp"])
    with pytest.raises(StructureError, match=r"itself\.vasp: cannot be read .Too many levels"):
        to_crystal(record.source)


def test_reasons_are_one_printable_line(write: Write, tmp_path: Path) -> None:
    names = ["two\nlines.cif", "\x1b[2J.cif", os.fsdecode(b"\xff.cif"), "x" * 200 + ".cif"]
    sources = [write(name, CIF.replace("Cs1 Cs", "Qq1 Qq")) for name in names]
    records = [
        Record("a", source, {})
        for source in [*sources, Path("y" * 3000), CSCL | {"species": ["\n", "\ud800"]}]
    ]
    (built,) = build_graphs(records, GraphSettings(), workers=1)
    assert len(built.rejected) == len(records)
    for entry in built.rejected:
        assert entry.reason.isprintable()
        assert len(entry.reason) <= 1000
    assert r"\udcff.cif: " in built.rejected[2].reason


# --- anything ---

WORD = re.compile(rb"[\w.+-]+|[^\w.+-]+")
ODD = [b"", b"\n", b"\0", b"\xff\xfe", "\ud800".encode(errors="surrogatepass"), b"\x1b[2J"]
ODD += b"NaN -inf 1e308 1e-300 -1 0 0.5 99999 Fe null loop_ data_x # \" '".split()
ODD += [b"9" * 40, b"[" * 5000, b"(" * 500, b'{"a":' * 500, b"' " * 500]
UNFORESEEN = re.compile(
    r"[A-Z]\w*(Error|Warning|Exception|Iteration|Exit): "
)  # a fault of ours, as a reason


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file, of which words are replaced, inserted or cut, or from somewhere on all."""
    words = WORD.findall(content)
    for _ in range(draw(st.integers(1, 3))):
        at, n_lost = (
            draw(st.integers(0, len(words))),
            draw(st.sampled_from([1, 1, 1, 0, 20, len(words)])),
        )
        words[at : at + n_lost] = [draw(st.sampled_from(ODD))]
    return b"".join(words)


@pytest.mark.parametrize(
    "name", ["a.cif", "a.mcif", "POSCAR", "a.xsf", "a.cssr", "a.json", "set.json", "frame.json"]
)
def test_damaged_files_become_finite_graphs_or_reasons(
    name: str, dielectric_records: list[Record], tmp_path: Path
) -> None:
    record = dielectric_records[9]
    lattice, z, frac_coords = to_crystal(record.source)
    structure = Structure(lattice, z.tolist(), frac_coords)
    frame = {"index": ["a"], "columns": ["structure", "gap"], "data": [[record.source, 1.5]]}
    contents = {
        "a.cif": lambda: CifWriter(structure, symprec=0.01),
        "a.mcif": lambda: magnetic("a,b,c;0,0,0"),
        "POSCAR": lambda: structure.to(fmt="poscar"),
        "a.xsf": lambda: GRID + "END_BLOCK_DATAGRID_3D\n" + structure.to(fmt="xsf"),
        "a.cssr": lambda: structure.to(fmt="cssr"),
        "a.json": lambda: json.dumps(structure.as_dict()),
        "set.json": lambda: json.dumps([{"id": record.id, "structure": record.source, "gap": 1.5}]),
        "frame.json": lambda: json.dumps(frame),
    }
    path = tmp_path / name
    seen = Counter[str]()

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(damaged(str(contents[name]()).encode()))
    def try_one(content: bytes) -> None:
        path.write_bytes(content)
        try:
            (built,) = build_graphs(iter_structures([path]), GraphSettings(), workers=1)
        except UserError as error:
            built = GraphChunk([], None, [Rejected(path.name, str(error))], {})
        for entry in built.rejected:
            assert not UNFORESEEN.match(entry.reason), entry
            assert entry.reason.isprintable()
        seen["rejected"] += len(built.rejected)
        if built.graphs is not None:
            seen["kept"] += len(built.graphs)
            for values in (
                built.graphs.lattice,
                built.graphs.distance,
                built.graphs.edge_multiplicity,
            ):
                assert np.isfinite(values).all()

    try_one()
    assert min(seen["kept"], seen["rejected"]) > 2
