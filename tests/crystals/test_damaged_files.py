"""Damaged files give finite graphs or a reason, and never an unforeseen error."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from structure_text import XSF_GRID, magnetic_cif

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graph_builder import GraphChunk, GraphPlan, Rejected, build_graphs
from csgcnn.crystals.records import Record
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.crystals.structures import to_crystal
from csgcnn.errors import UserError

# pymatgen warns of what it corrects.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

WORD = re.compile(rb"[\w.+-]+|[^\w.+-]+")
REPLACEMENTS = [b"", b"\n", b"\0", b"\xff\xfe", "\ud800".encode(errors="surrogatepass"), b"\x1b[2J"]
REPLACEMENTS += b"NaN -inf 1e308 1e-300 -1 0 0.5 99999 Fe null loop_ data_x # \" '".split()
REPLACEMENTS += [b"9" * 40, b"[" * 5000, b"(" * 500, b'{"a":' * 500, b"' " * 500]
# How the reason of an error starts that the package did not expect.
PLAN = GraphPlan(GraphSettings(), workers=1)
UNFORESEEN = re.compile(r"[A-Z]\w*(Error|Warning|Exception|Iteration|Exit): ")


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Replace, insert or remove words of a file, or all words from some position on."""
    words = WORD.findall(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(words)))
        n_removed = draw(st.sampled_from([1, 1, 1, 0, 20, len(words)]))
        words[start : start + n_removed] = [draw(st.sampled_from(REPLACEMENTS))]
    return b"".join(words)


@pytest.mark.parametrize(
    "name", ["a.cif", "a.mcif", "POSCAR", "a.xsf", "a.cssr", "a.json", "set.json", "frame.json"]
)
def test_damaged_files_become_finite_graphs_or_reasons(
    name: str, dielectric_records: list[Record], tmp_path: Path
) -> None:
    record = dielectric_records[9]
    lattice, z, frac_coords = to_crystal(record.source)[:3]
    structure = Structure(lattice, z.tolist(), frac_coords)
    frame = {"index": ["a"], "columns": ["structure", "gap"], "data": [[record.source, 1.5]]}
    contents = {
        "a.cif": lambda: CifWriter(structure, symprec=0.01),
        "a.mcif": lambda: magnetic_cif("a,b,c;0,0,0"),
        "POSCAR": lambda: structure.to(fmt="poscar"),
        "a.xsf": lambda: XSF_GRID + "END_BLOCK_DATAGRID_3D\n" + structure.to(fmt="xsf"),
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
            (built,) = build_graphs(iter_structures([path]), PLAN)
        except UserError as error:
            built = GraphChunk([], None, [Rejected(path.name, str(error))], {})
        for entry in built.rejected:
            assert not UNFORESEEN.match(entry.reason), entry
            assert entry.reason.isprintable()
        seen["rejected"] += len(built.rejected)
        if built.graphs is not None:
            seen["kept"] += len(built.graphs)
            for name in ("lattice", "distance", "edge_multiplicity"):
                assert np.isfinite(getattr(built.graphs, name)).all()

    try_one()
    assert min(seen["kept"], seen["rejected"]) > 2
