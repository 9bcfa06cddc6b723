"""Cases for `fuzz.py`: hostile files of each kind, read as the commands of csgcnn read them."""

import gzip
import json
import os
import random
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hostile_checkpoints import HostileCheckpoints
from hostile_inputs import binary_tables, extended_xyz, small_structures
from mutations import Mutator, Payload
from pymatgen.io.cif import CifWriter

import csgcnn
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graph_builder import GraphPlan, Rejected, build_graphs
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.data.cache import open_dataset
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError

SLOW = 5.0  # seconds
SETTINGS = [
    GraphSettings(global_features="none"),
    GraphSettings(shells="truncate", compress=False, global_features="none"),
    GraphSettings(global_features=("composition", "density", "lattice", "symmetry")),
]
# Reasons for rejected records that begin with the name of an error, which the code did not expect.
UNEXPECTED = re.compile(r"[A-Z]\w*(Error|Warning|Exception|Iteration|Exit): ")


class UnexpectedError(Exception):
    """A reader failed in a way that its code does not expect."""


class Result(NamedTuple):
    """Outcome of a case; `message` describes a failure."""

    kind: str
    outcome: str
    seconds: float
    message: str


class Fuzzer:
    """Make the numbered cases of each kind and run them.

    Args:
        folder: Folder with data.json and best.ckpt, in which the cases are written.
        seed: Seed of the cases.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed = seed
        self.data = folder / "data.json"
        self.checkpoints = HostileCheckpoints(folder / "best.ckpt")
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.marker = self.folder / "executed"
        self.payload = Payload(str(self.marker))
        self.structures = small_structures(60)
        cifs = [CifWriter(s, symprec=i % 2 * 0.01 or None) for i, s in enumerate(self.structures)]
        self.texts = {"cif": [*map(str, cifs)]}
        for suffix, name in {"vasp": "poscar", "xsf": "xsf", "cssr": "cssr"}.items():
            self.texts[suffix] = [structure.to(fmt=name) for structure in self.structures]
        self.texts["extxyz"] = [extended_xyz(structure) for structure in self.structures]
        self.tables = binary_tables(self.structures[:5], self.folder)
        self.others = [text.encode() for texts in self.texts.values() for text in texts[:5]]
        self.others.append(json.dumps(self.structures[0].as_dict()).encode())
        self.others += [self.checkpoints.file[:4000], self.checkpoints.legacy_files[0][:4000]]
        self.bombs = [gzip.compress(b" \n" * n, 1) for n in (10, 10**6, 10**8)]
        self.kinds: dict[str, Callable[[Mutator, Path], str]] = {
            "CIF": lambda mutator, folder: self.text_file(mutator, folder, ["cif"]),
            "POSCAR": lambda mutator, folder: self.text_file(mutator, folder, ["vasp"]),
            "XSF, CSSR": lambda mutator, folder: self.text_file(mutator, folder, ["xsf", "cssr"]),
            "extended xyz": lambda mutator, folder: self.text_file(mutator, folder, ["extxyz"]),
            "ASE database, parquet": self.binary_table,
            "JSON structure": self.json_structure,
            "JSON data set": self.json_data_set,
            "csv, id_prop.csv and files": self.table,
            "gzip": self.gzip_file,
            "graph cache": self.cache,
            "checkpoint, format 4": self.checkpoint,
            "checkpoint, formats 1-3": self.legacy_checkpoint,
        }

    def run(self, number: int) -> Result:
        """Run a case."""
        kind = list(self.kinds)[number % len(self.kinds)]
        values: list[Any] = []
        if kind.startswith("checkpoint"):
            nan, empty = torch.full((3,), torch.nan), torch.zeros(0)
            values = [nan, empty, torch.ones(2, 2, dtype=torch.int64), self.payload]
        rng = random.Random(f"{self.seed} {number}")
        mutator = Mutator(rng, self.others, self.payload, values)
        (case := self.folder / "case").mkdir()
        start, message = time.perf_counter(), ""
        try:
            outcome = self.kinds[kind](mutator, case)
        except UserError:
            outcome = "refused"
        except BaseException:
            outcome, message = "uncaught", "\n".join(traceback.format_exc().splitlines()[-12:])
        seconds = time.perf_counter() - start
        shutil.rmtree(case)
        if self.marker.exists():
            self.marker.rmdir()
            outcome, message = "executed", "the payload was executed"
        elif seconds > SLOW and outcome != "uncaught":
            outcome, message = "slow", f"it took {seconds:.1f} s"
        return Result(kind, outcome, seconds, message)

    def text_file(self, mutator: Mutator, folder: Path, suffixes: list[str]) -> str:
        suffix = mutator.rng.choice(suffixes)
        path = folder / f"a.{suffix}"
        path.write_bytes(mutator.bytes(mutator.rng.choice(self.texts[suffix]).encode()))
        return read_structures(mutator.rng, path)

    def json_structure(self, mutator: Mutator, folder: Path) -> str:
        path = folder / "a.json"
        path.write_bytes(changed_json(mutator, self._structure_dict(mutator.rng)))
        return read_structures(mutator.rng, path)

    def json_data_set(self, mutator: Mutator, folder: Path) -> str:
        rng, path = mutator.rng, folder / "set.json"
        rows = {id_: self._structure_dict(rng) for id_ in "abc"}
        lines = [
            {"material_id": id_, "structure": structure, "gap": 1.5, "ok": True}
            for id_, structure in rows.items()
        ]
        data = [[structure, 1.5] for structure in rows.values()]
        frame = {"index": list(rows), "columns": ["structure", "gap"], "data": data}
        path.write_bytes(changed_json(mutator, rng.choice([lines, frame])))
        return rng.choice([read_structures, read_dataset])(rng, path)

    def binary_table(self, mutator: Mutator, folder: Path) -> str:
        suffix = mutator.rng.choice(list(self.tables))
        path = folder / f"set{suffix}"
        path.write_bytes(mutator.bytes(self.tables[suffix]))
        return mutator.rng.choice([read_structures, read_dataset])(mutator.rng, path)

    def table(self, mutator: Mutator, folder: Path) -> str:
        rng = mutator.rng
        files = [folder / f"{name}.{rng.choice(list(self.texts))}" for name in "abc"]
        for file in files:
            file.write_text(rng.choice(self.texts[file.suffix[1:]]))
        is_folder = rng.random() < 0.5
        table = folder / ("id_prop.csv" if is_folder else "table.csv")
        rows = [f"{f.stem},1.5\n" if is_folder else f"{f.stem},{f.name},1.5\n" for f in files]
        text = "".join(rows if is_folder else ["id,file,gap\n", *rows])
        text = text.replace(",", rng.choice(",;\t"))
        table.write_bytes(text.encode(rng.choice(["utf-8", "utf-8", "utf-16"])))
        changed = rng.choice([table, table, rng.choice(files)])
        changed.write_bytes(mutator.bytes(changed.read_bytes()))
        if rng.random() < 0.2:
            files[0].unlink()
            kinds: list[Callable[[Path], None]] = [os.mkfifo, Path.mkdir]
            kinds += [lambda path: path.symlink_to(path), lambda path: path.symlink_to("/dev/zero")]
            rng.choice(kinds)(files[0])
        if rng.random() < 0.1:
            (folder / "again").symlink_to(folder)
        path = folder if is_folder else table
        return rng.choice([read_structures, read_dataset])(rng, path)

    def gzip_file(self, mutator: Mutator, folder: Path) -> str:
        rng = mutator.rng
        suffix = rng.choice(list(self.texts))
        text = rng.choice(self.texts[suffix]).encode()
        whole, choice = gzip.compress(text), rng.randrange(4)
        if choice == 0:
            content = mutator.bytes(whole)
        elif choice == 1:
            content = gzip.compress(mutator.bytes(text))
        elif choice == 2:
            content = whole + rng.choice(self.bombs)
        else:
            content = gzip.compress(b"") * rng.choice([1, 1000, 30_000]) + whole
        path = folder / f"a.{suffix}.gz"
        path.write_bytes(content)
        return read_structures(rng, path)

    def cache(self, mutator: Mutator, folder: Path) -> str:
        rng, number = mutator.rng, mutator.rng.randrange(len(SETTINGS))
        built = self._open(number, self.folder / str(number))
        (source,) = (self.folder / str(number)).iterdir()
        entry = shutil.copytree(source, folder / source.name)
        files = sorted(entry.iterdir())
        changed = rng.choice([*files, entry / "meta.json", entry / "rows.jsonl"])
        if changed.suffix == ".npy" and rng.random() < 0.7:
            mutator.array(changed)
        elif changed.suffix.startswith(".json") and rng.random() < 0.5:
            changed.write_bytes(mutator.json(json.loads(changed.read_text())))
        else:
            changed.write_bytes(mutator.bytes(changed.read_bytes()))
        try:
            use(GraphStore.load(entry))
            outcome = "accepted"
        except ValueError:
            outcome = "refused"
        store = self._open(number, folder)
        use(store)
        if outcome == "refused" and store.ids != built.ids:
            raise UnexpectedError("a refused cache was not built again")
        return outcome

    def checkpoint(self, mutator: Mutator, folder: Path) -> str:
        self.checkpoints.write(mutator, folder / "a.ckpt")
        return self._predict(mutator.rng, folder / "a.ckpt")

    def legacy_checkpoint(self, mutator: Mutator, folder: Path) -> str:
        self.checkpoints.write_legacy(mutator, folder / "a.ckpt")
        return self._predict(mutator.rng, folder / "a.ckpt")

    def _predict(self, rng: random.Random, path: Path) -> str:
        csgcnn.load(path).predict([rng.choice(self.structures)])
        return "accepted"

    def _open(self, number: int, cache: Path) -> GraphStore:
        return open_dataset(self.data, SETTINGS[number], cache_folder=cache, workers=1).store

    def _structure_dict(self, rng: random.Random) -> dict[str, Any]:
        """Return a structure as a dict of one of the known forms."""
        structure = rng.choice(self.structures)
        species, lattice = [site.specie.symbol for site in structure], structure.lattice
        matrix = lattice.matrix.tolist()
        compact = {"species": species, "frac_coords": structure.frac_coords.tolist()}
        positions = structure.cart_coords.tolist()
        optimade = {"lattice_vectors": matrix, "cartesian_site_positions": positions}
        numbers = [site.specie.Z for site in structure]
        jarvis = {"lattice_mat": matrix, "elements": species, "cartesian": True}
        forms = [
            json.loads(json.dumps(structure.as_dict())),
            compact | {"lattice": matrix},
            compact | {"lattice_parameters": list(lattice.parameters)},
            jarvis | {"coords": positions},
            optimade | {"species_at_sites": species, "dimension_types": [1, 1, 1]},
            {"numbers": numbers, "positions": positions, "cell": matrix, "pbc": [True] * 3},
            {"structure": compact | {"lattice": matrix}, "energy": -1.5},
        ]
        return rng.choice(forms)


def changed_json(mutator: Mutator, value: Any) -> bytes:
    content = mutator.json(value) if mutator.rng.random() < 0.6 else json.dumps(value).encode()
    return mutator.bytes(content) if mutator.rng.random() < 0.5 else content


def read_structures(rng: random.Random, path: Path) -> str:
    """Read structures as `csgcnn predict` does."""
    n_kept, settings = 0, rng.choice(SETTINGS)
    for chunk in build_graphs(iter_structures([path]), GraphPlan(settings, workers=1)):
        check_reasons(chunk.rejected)
        if chunk.graphs is not None:
            n_kept += len(chunk.graphs)
            use(GraphStore(chunk.graphs, [record.id for record in chunk.records], {}, settings))
    return "accepted" if n_kept else "refused"


def read_dataset(rng: random.Random, path: Path) -> str:
    """Read a data set as `csgcnn train` does: first from its file, then from the cache."""
    cache = (path if path.is_dir() else path.parent) / "cache"
    store, rejected, _ = open_dataset(path, rng.choice(SETTINGS), cache_folder=cache, workers=1)
    check_reasons(rejected)
    use(store)
    again = GraphStore.load(next(entry for entry in cache.iterdir() if entry.suffix != ".tmp"))
    if again.ids != store.ids:
        raise UnexpectedError("the cache contains other records")
    return "accepted"


def check_reasons(rejected: list[Rejected]) -> None:
    for entry in rejected:
        if UNEXPECTED.match(entry.reason) or not (entry.id and entry.reason):
            raise UnexpectedError(entry)


def use(store: GraphStore) -> None:
    """Read all of a store, so that invalid content raises an error."""
    batch = store.batch(torch.arange(len(store)))
    assert batch.distance.isfinite().all()
    assert store.elements
    store.graphs.n_isolated.sum()
    for i in range(min(len(store), 3)):
        store.site_values(store[i].z, i)
    columns = store.columns.items()
    texts = {name for name, values in columns if any(isinstance(value, str) for value in values)}
    store.numbers([name for name in store.columns if name not in texts])
