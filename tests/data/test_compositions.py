from collections import Counter

from pymatgen.core import Composition

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.graphs import connect
from csgcnn.crystals.records import Record
from csgcnn.crystals.structures import to_crystal
from csgcnn.data.compositions import compositions
from csgcnn.data.store import GraphStore


def test_reduced_formulas_are_those_of_pymatgen(formation_energy_records: list[Record]) -> None:
    chosen = [to_crystal(record.source) for record in formation_energy_records[::20]]
    store = GraphStore(
        connect(chosen, GraphSettings()), [str(i) for i in range(len(chosen))], {}, GraphSettings()
    )
    for formula, crystal in zip(compositions(store), chosen, strict=True):
        expected = Composition(
            Counter(SYMBOLS[z] for z in crystal.atomic_number)
        ).get_integer_formula_and_factor()[0]
        assert Composition(formula) == Composition(expected)
