"""Small files of a user, which the pages of the documentation name."""

import csv
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ase.db
import ase.io
from doc_pages import ROOT
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

Record = dict[str, Any]
INCLUDED = ("dielectric", "elastic", "formation_energy")


def some_records(name: str, n: int, largest: int = 8) -> list[Record]:
    """Return small crystals of an included data set, spread over it."""
    with gzip.open(ROOT / "data" / f"{name}.json.gz", "rt") as file:
        records = json.load(file)
    records = [r for r in records if len(r["crystal_structure"]["species"]) <= largest]
    return records[:: len(records) // n][:n]


def write_data(folder: Path, n: int = 60) -> None:
    """Write small versions of the included data sets, for $CSGCNN_DATA."""
    for name in INCLUDED:
        with gzip.open(folder / f"{name}.json.gz", "wt") as file:
            json.dump(some_records(name, n), file)


def write_files(folder: Path, n: int = 20) -> None:
    """Write one data set in every format of the pages."""
    records = some_records("dielectric", n)
    structures = {
        record["material_id"]: Structure(*(record["crystal_structure"][key] for key in KEYS))
        for record in records
    }
    gaps = {record["material_id"]: record["band_gap"] for record in records}
    _write_structures(folder, structures, gaps)
    lines = "".join(f"{json.dumps(row)}\n" for row in records)
    (folder / "records.jsonl").write_text(lines)
    (folder / "candidates.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    columns = [
        {**record, "bulk_modulus": 10 + gap, "e_total": -5 * gap, "n_sites": 2}
        for record, gap in zip(records, gaps.values(), strict=True)
    ]
    (folder / "data.json").write_text(json.dumps(columns))
    nested = [
        {
            "id": record["material_id"],
            "input": {"structure": record["crystal_structure"]},
            "outputs": {"pbe": {"bandgap": record["band_gap"]}},
        }
        for record in records
    ]
    (folder / "nested.json").write_text(json.dumps(nested))
    frame = {
        "index": list(structures),
        "columns": ["structure", "gap pbe"],
        "data": [[structure.as_dict(), gaps[id_]] for id_, structure in structures.items()],
    }
    for name in ("matbench_dielectric", "matbench_mp_gap"):
        _write_json(folder / f"{name}.json.gz", frame)
    _write_json(folder / "jarvis.json.gz", [_jarvis(record) for record in records])
    optimade = [
        {"type": "structures", "id": id_, "attributes": _optimade(structure, gaps[id_])}
        for id_, structure in structures.items()
    ]
    (folder / "optimade.json").write_text(json.dumps({"data": optimade}))


KEYS = ("lattice", "species", "frac_coords")


def _write_structures(
    folder: Path, structures: dict[str, Structure], gaps: dict[str, float]
) -> None:
    cifs = folder / "my_cifs"
    cifs.mkdir()
    frames = []
    with ase.db.connect(folder / "c2db.db") as database:
        for id_, structure in structures.items():
            structure.to(str(cifs / f"{id_}.cif"), fmt="cif")
            calculation = folder / "my_calculations" / id_
            calculation.mkdir(parents=True)
            structure.to(str(calculation / "CONTCAR"), fmt="poscar")
            (calculation / "energy.txt").write_text(f"{gaps[id_]}\n")
            atoms = AseAtomsAdaptor.get_atoms(structure)
            database.write(atoms, uid=id_, gap=gaps[id_])
            atoms.info = {"id": id_, "energy": gaps[id_]}
            frames.append(atoms)
    ase.io.write(folder / "relaxed.extxyz", frames, format="extxyz")
    structure.to(str(folder / "Ca(OH)2.cif"), fmt="cif")  # any structure
    (folder / "best.ckpt").symlink_to("runs/first/checkpoints/best.ckpt")
    _write_rows(cifs / "id_prop.csv", [("id", "band_gap"), *gaps.items()])
    classes = ["metal" if gap < 1.5 else "insulator" for gap in gaps.values()]
    rows = zip(gaps, (f"my_cifs/{id_}.cif" for id_ in gaps), gaps.values(), classes, strict=True)
    header = ("id", "file", "band_gap", "is_metal")
    _write_rows(folder / "table.csv", [header, *rows])


def _write_rows(path: Path, rows: Iterable[Iterable[object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _write_json(path: Path, content: object) -> None:
    with gzip.open(path, "wt") as file:
        json.dump(content, file)


def _jarvis(record: Record) -> Record:
    crystal = record["crystal_structure"]
    atoms = {
        "lattice_mat": crystal["lattice"],
        "elements": crystal["species"],
        "coords": crystal["frac_coords"],
        "cartesian": False,
    }
    return {
        "jid": record["material_id"],
        "atoms": atoms,
        "formation_energy_peratom": record["band_gap"],
    }


def _optimade(structure: Structure, gap: float) -> Record:
    names = [site.specie.symbol for site in structure]
    return {
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "species_at_sites": names,
        "species": [
            {"name": name, "chemical_symbols": [name], "concentration": [1.0]}
            for name in sorted(set(names))
        ],
        "nperiodic_dimensions": 3,
        "dimension_types": [1, 1, 1],
        "_mp_gap": {"value": gap},
    }
