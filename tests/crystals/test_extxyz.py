from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write as write_ase
from record_lists import read_records
from structure_text import Write

from csgcnn.crystals.datasets import source_files
from csgcnn.crystals.records import ReadOptions
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import StructureError, UserError

LATTICE = 'Lattice="4 0 0 0 4 0 0 0 4"'
FRAME = f"2\n{LATTICE} Properties=species:S:1:pos:R:3 gap=1.5 tag=x\nCs 0 0 0\nCl 2 2 2\n"


@pytest.mark.parametrize(
    "text",
    [
        FRAME,
        f"\n{FRAME}\n\n",
        FRAME.replace(" Properties=species:S:1:pos:R:3", ""),
        FRAME.replace("\n", "\r\n"),
        FRAME.replace("species:S:1:pos:R:3", "forces:R:3:pos:R:3:species:S:1")
        .replace("Cs 0 0 0", "9 9 9 0 0 0 Cs")
        .replace("Cl 2 2 2", "9 9 9 2 2 2 Cl"),
        FRAME.replace("species:S:1", "Z:I:1").replace("Cs 0", "55 0").replace("Cl 2", "17 2"),
        FRAME.replace("tag=x", "pbc=T"),
    ],
)
@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.XYZ.gz"])
def test_a_frame_is_a_structure(write: Write, name: str, text: str) -> None:
    crystal = to_crystal(write(name, text))
    assert crystal.atomic_number.tolist() == [55, 17]
    np.testing.assert_allclose(crystal.lattice, np.eye(3) * 4)
    np.testing.assert_allclose(crystal.frac_coords, [[0] * 3, [0.5] * 3])


def test_files_of_ase_are_read_with_all_columns(tmp_path: Path) -> None:
    cells = [[[5, 0, 0], [1, 4, 0], [2, 1, 6]], [[4, 0, 0], [0, 4, 0], [0, 0, 4]]]
    images = [Atoms("CsCl", [[0, 0, 0], [2, 1, 2]], cell=cell, pbc=True) for cell in cells]
    for number, image in enumerate(images):
        image.info |= {"gap": 0.5 * number, "ok": True, "vector": [1.0, 2.0], "name": "a b"}
        image.info["nested"] = {"pbe": {"gap": 2.5}}
    write_ase(tmp_path / "a.extxyz", images)
    records = read_records(tmp_path / "a.extxyz")
    assert [record.id for record in records] == ["a:0", "a:1"]
    assert records[1].columns == {"gap": 0.5, "ok": True, "name": "a b", "nested.pbe.gap": 2.5}
    for record, image in zip(records, images, strict=True):
        crystal = to_crystal(record.source)
        np.testing.assert_allclose(crystal.lattice, image.cell)
        positions = crystal.frac_coords @ crystal.lattice
        np.testing.assert_allclose(positions, image.positions, atol=1e-7)
    assert list(source_files(tmp_path / "a.extxyz")) == [tmp_path / "a.extxyz"]


def test_ids_of_frames(write: Write) -> None:
    one, two = write("one.xyz", FRAME), write("two.xyz", FRAME * 2)
    assert [record.id for record in read_records(one)] == ["one"]
    assert [record.id for record in iter_structures([one, two])] == ["one", "two:0", "two:1"]
    named = FRAME.replace("tag=x", "material_id=mp-1") + FRAME.replace("tag=x", "material_id=mp-2")
    assert [record.id for record in read_records(write("a.xyz", named))] == ["mp-1", "mp-2"]
    named = named.replace("material_id", "key")
    records = read_records(write("a.xyz", named), ReadOptions(id_column="key"))
    assert [record.id for record in records] == ["mp-1", "mp-2"]


def test_files_with_the_same_name_have_different_ids(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.xyz", "b/x.xyz"):
        write(name, FRAME)
    assert [record.id for record in iter_structures(["a/x.xyz", "b/x.xyz"])] == [
        "a/x.xyz",
        "b/x.xyz",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FRAME.replace(LATTICE, ""), "no cell; put it into a cell with 10 Å of vacuum"),
        ("2\na molecule\nCs 0 0 0\nCl 2 2 2\n", "no cell"),
        (FRAME.replace("tag=x", 'pbc="T T F"'), "not periodic along c"),
        (FRAME.replace("tag=x", "pbc=F"), "not periodic along a and b and c"),
        (FRAME.replace("Cs 0 0 0", "Cs 0 0 x"), "line 3 is 'Cs 0 0 x'; expected element and pos"),
        (FRAME.replace("Cs 0 0 0", "Cs 0 0"), "line 3 is 'Cs 0 0'; expected element and position"),
        (FRAME.replace("Cs 0", "X 0"), r"site 1 \(X\) is a ghost or dummy atom"),
        (FRAME.replace("Cs 0", "Qq 0"), "site 1: unknown element 'Qq'"),
        (FRAME.replace("0 0 4", "0 0"), "line 2 does not hold properties of a frame"),
        (FRAME.replace("pos:R:3", "move:R:3"), "names no species and pos"),
        (
            FRAME.replace("tag=x", r'occupancy="_JSON {\"0\": {\"Cs\": 0.5}}"'),
            r"disordered \(Cs 0.5\)",
        ),
    ],
)
def test_an_unusable_frame_is_refused_when_it_is_read(
    write: Write, text: str, message: str
) -> None:
    path = write("a.xyz", text + FRAME)
    bad, good = read_records(path)
    with pytest.raises(StructureError, match=message):
        to_crystal(bad.source)
    assert len(to_crystal(good.source).atomic_number) == 2
    with pytest.raises(StructureError, match=message):
        to_crystal(write("b.xyz", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3" + FRAME[1:], r"the frame in line 1 declares 3 atoms but has 2 lines of atoms"),
        (FRAME + "Cs 1 1 1\n", "line 5 is 'Cs 1 1 1.*expected the number of atoms"),
        ("999999999" + FRAME[1:], "line 1 declares 999999999 atoms; up to"),
        ("hello\n", "line 1 is 'hello"),
    ],
)
def test_a_malformed_file_is_refused(write: Write, text: str, message: str) -> None:
    path = write("a.xyz", text)
    with pytest.raises(UserError, match=rf"a\.xyz: .*{message}"):
        read_records(path)
    with pytest.raises(StructureError, match=message):
        to_crystal(path)


def test_a_declared_number_of_columns_allocates_nothing(write: Write) -> None:
    path = write("a.xyz", FRAME.replace("pos:R:3", "pos:R:3:x:R:999999999999"))
    assert len(to_crystal(path).atomic_number) == 2


def test_several_frames_are_not_one_structure(write: Write) -> None:
    with pytest.raises(StructureError, match="several frames, not one structure"):
        to_crystal(write("a.xyz", FRAME * 2))
