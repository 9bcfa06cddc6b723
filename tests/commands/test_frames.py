from pathlib import Path

import pandas as pd
import pytest
from structure_text import CIF, CSCL, POSCAR

from csgcnn.commands.frames import write_frame
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.records import ReadOptions
from csgcnn.data.cache import open_dataset
from csgcnn.errors import StructureError


def test_warnings_about_the_structures_of_a_frame_are_kept(tmp_path: Path) -> None:
    """The CIF names no symmetry, of which its reader warns."""
    for name, text in (("a.cif", CIF), ("c.vasp", POSCAR)):
        (tmp_path / name).write_text(text)
    structures = {"a": str(tmp_path / "a.cif"), "b": CIF, "c": tmp_path / "c.vasp", "d": CSCL}
    frame = pd.DataFrame({"structure": structures, "gap": dict.fromkeys(structures, 1.0)})
    keys = write_frame(frame, tmp_path / "set.jsonl.gz")
    store, rejected, warnings = open_dataset(
        Path(keys["dataset.path"]),
        GraphSettings(),
        ReadOptions(structure_column=keys["dataset.structure_column"]),
        tmp_path / "cache",
        workers=1,
    )
    assert (store.ids, rejected) == (["a", "b", "c", "d"], [])
    assert {note.id for note in warnings} == {"a", "b"}


def test_a_missing_file_of_a_frame_is_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"structure": [str(tmp_path / "gone.cif")], "gap": [1.0]}, index=["x"])
    with pytest.raises(StructureError, match=r"row x of the DataFrame: .*gone\.cif: no such file"):
        write_frame(frame, tmp_path / "set.jsonl.gz")
