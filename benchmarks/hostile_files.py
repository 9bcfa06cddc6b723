"""Cases for `fuzz.py`: hostile files of every kind, and the product's own ways of reading them."""

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
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mutations import Mutator, Payload, deep, spoil_array, structures
from pymatgen.io.cif import CifWriter

import csgcnn
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.graph_builder import build_graphs
from csgcnn.crystals.structure_inputs import iter_structures
from csgcnn.data.cache import open_dataset
from csgcnn.data.store import GraphStore
from csgcnn.errors import UserError
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint

SLOW = 5.0  # seconds
SETTINGS = [
    GraphSettings(),
    GraphSettings(shells="truncate", compress=False),
    GraphSettings(global_features=("composition", "lattice", "symmetry")),
]
UNFORESEEN = re.compile(
    r"[A-Z]\w*(Error|Warning|Exception|Iteration|Exit): "
)  # how `build_graphs` tells a fault of ours


class UnforeseenError(Exception):
    """A record was rejected for a fault that the code did not foresee."""


class Fuzzer:
    """Makes the numbered cases of each kind and runs them; `folder` holds a trained checkpoint, run/."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed = seed
        self.checkpoint = folder / "run" / "checkpoints" / "best.ckpt"
        self.contents = load_checkpoint(self.checkpoint)
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.marker = self.folder / "executed"
        self.payload = Payload(str(self.marker))
        self.structures = structures(60)
        self.texts = {
            "cif": [
                str(CifWriter(s, symprec=0.01 if i % 2 else None))
                for i, s in enumerate(self.structures)
            ],
            "vasp": [s.to(fmt="poscar") for s in self.structures],
            "xsf": [s.to(fmt="xsf") for s in self.structures],
            "cssr": [s.to(fmt="cssr") for s in self.structures],
        }
        self.others = [text.encode() for texts in self.texts.values() for text in texts[:5]]
        self.others += [
            json.dumps(self.structures[0].as_dict()).encode(),
            self.checkpoint.read_bytes()[:4000],
        ]
        self.bombs = [gzip.compress(b" \n" * n, 1) for n in (10, 10**6, 10**8)]
        self.kinds: dict[str, Callable[[Mutator, Path], str]] = {
            "CIF": lambda m, place: self.text_file(m, place, "cif"),
            "POSCAR": lambda m, place: self.text_file(m, place, "vasp"),
            "XSF, CSSR": lambda m, place: self.text_file(m, place, m.rng.choice(["xsf", "cssr"])),
            "JSON structure": self.json_structure,
            "JSON data set": self.json_data_set,
            "csv, id_prop.csv and files": self.table,
            "gzip": self.gzip_file,
            "graph cache": self.cache,
            "checkpoint": self.load_checkpoint,
        }

    def run(self, number: int) -> tuple[str, str, float, str]:
        """Kind, outcome, seconds and, of a failure, the traceback of one case."""
        rng = random.Random(f"{self.seed} {number}")
        kind = list(self.kinds)[number % len(self.kinds)]
        flat = [torch.full((3,), float("nan")), torch.zeros(0), torch.ones(2, 2, dtype=torch.int64)]
        more = [*flat, self.payload] if kind == "checkpoint" else []
        place = self.folder / "case"
        place.mkdir()
        start, told = time.perf_counter(), ""
        try:
            outcome = self.kinds[kind](Mutator(rng, self.others, self.payload, more), place)
        except UserError:
            outcome = "refused"
        except BaseException:
            outcome, told = "uncaught", "\n".join(traceback.format_exc().splitlines()[-12:])
        seconds = time.perf_counter() - start
        shutil.rmtree(place)
        if self.marker.exists():
            self.marker.rmdir()
            outcome, told = "executed", f"the payload of case {number} was executed"
        elif seconds > SLOW and outcome != "uncaught":
            outcome, told = "over 5 s", f"case {number} took {seconds:.1f} s"
        return kind, outcome, seconds, told

    def text_file(self, mutator: Mutator, place: Path, suffix: str) -> str:
        path = place / f"a.{suffix}"
        path.write_bytes(mutator.bytes(mutator.rng.choice(self.texts[suffix]).encode()))
        return _read(mutator.rng, path)

    def json_structure(self, mutator: Mutator, place: Path) -> str:
        (place / "a.json").write_bytes(self._json(mutator, self._dict(mutator.rng)))
        return _read(mutator.rng, place / "a.json")

    def json_data_set(self, mutator: Mutator, place: Path) -> str:
        rng = mutator.rng
        ids, crystals = ["a", "b", "c"], [self._dict(rng) for _ in range(3)]
        records = [
            {"material_id": i, "structure": s, "gap": 1.5, "ok": True}
            for i, s in zip(ids, crystals, strict=True)
        ]
        frame = {
            "index": ids,
            "columns": ["structure", "gap"],
            "data": [[s, 1.5] for s in crystals],
        }
        (place / "set.json").write_bytes(self._json(mutator, rng.choice([records, frame])))
        return rng.choice([_read, _open])(rng, place / "set.json")

    def table(self, mutator: Mutator, place: Path) -> str:
        rng = mutator.rng
        names = [f"{name}.{rng.choice(list(self.texts))}" for name in "abc"]
        for name in names:
            (place / name).write_text(rng.choice(self.texts[name[2:]]))
        is_folder = rng.random() < 0.5
        rows = "".join(
            f"{name[0]},1.5\n" if is_folder else f"{name[0]},{name},1.5\n" for name in names
        )
        table = place / ("id_prop.csv" if is_folder else "table.csv")
        table.write_text(rows if is_folder else f"id,file,gap\n{rows}")
        culprit = rng.choice([table, table, place / rng.choice(names)])
        culprit.write_bytes(mutator.bytes(culprit.read_bytes()))
        if rng.random() < 0.2:
            (place / names[0]).unlink()
            rng.choice(
                [
                    os.mkfifo,
                    lambda p: p.symlink_to(p),
                    lambda p: p.symlink_to("/dev/zero"),
                    Path.mkdir,
                ]
            )(place / names[0])
        if rng.random() < 0.1:
            (place / "again").symlink_to(place)
        return rng.choice([_read, _open])(rng, place if is_folder else table)

    def gzip_file(self, mutator: Mutator, place: Path) -> str:
        suffix = mutator.rng.choice(list(self.texts))
        text = mutator.rng.choice(self.texts[suffix]).encode()
        choice = mutator.rng.randrange(4)
        if choice == 0:
            content = mutator.bytes(gzip.compress(text))
        elif choice == 1:
            content = gzip.compress(mutator.bytes(text))
        elif choice == 2:
            content = gzip.compress(text) + mutator.rng.choice(self.bombs)
        else:
            content = gzip.compress(b"") * mutator.rng.choice([1, 1000, 30_000]) + gzip.compress(
                text
            )
        (place / f"a.{suffix}.gz").write_bytes(content)
        return _read(mutator.rng, place / f"a.{suffix}.gz")

    def cache(self, mutator: Mutator, place: Path) -> str:
        data = self.folder.parent / "data.json"
        settings = mutator.rng.choice(SETTINGS)
        built, _ = open_dataset(
            data, settings, cache_folder=self.folder / str(SETTINGS.index(settings)), workers=1
        )
        (source,) = (self.folder / str(SETTINGS.index(settings))).iterdir()
        entry = shutil.copytree(source, place / source.name)
        culprit = mutator.rng.choice(
            [*sorted(entry.iterdir()), entry / "meta.json", entry / "rows.json"]
        )
        if culprit.suffix == ".npy" and mutator.rng.random() < 0.7:
            spoil_array(culprit, mutator)
        elif mutator.rng.random() < 0.5 and culprit.suffix == ".json":
            with deep():
                culprit.write_text(json.dumps(mutator.tree(json.loads(culprit.read_text()))))
        else:
            culprit.write_bytes(mutator.bytes(culprit.read_bytes()))
        try:
            _use(GraphStore.load(entry))
            outcome = "accepted"
        except ValueError:
            outcome = "refused"
        store, _ = open_dataset(data, settings, cache_folder=place, workers=1)
        _use(store)
        if outcome == "refused" and store.ids != built.ids:
            raise UnforeseenError("a refused cache was not built again")
        return outcome

    def load_checkpoint(self, mutator: Mutator, place: Path) -> str:
        path = place / "a.ckpt"
        if mutator.rng.random() < 0.4:
            path.write_bytes(mutator.bytes(self.checkpoint.read_bytes()))
        else:
            with deep():
                self._save(mutator.tree(self.contents), path, mutator.rng)
        csgcnn.load(path).predict([mutator.rng.choice(self.structures)])
        return "accepted"

    def _save(self, content: Any, path: Path, rng: random.Random) -> None:
        """Write a checkpoint of the present format or, where that is impossible, of format 3."""
        if rng.random() < 0.5:
            with suppress(AttributeError, RecursionError, TypeError):
                return save_checkpoint(content, path)
        torch.save(content, path)

    def _dict(self, rng: random.Random) -> dict[str, Any]:
        structure = rng.choice(self.structures)
        species, lattice = [site.specie.symbol for site in structure], structure.lattice
        compact = {"species": species, "frac_coords": structure.frac_coords.tolist()}
        jarvis = {"lattice_mat": lattice.matrix.tolist(), "elements": species, "cartesian": True}
        return rng.choice(
            [
                json.loads(json.dumps(structure.as_dict())),
                compact | {"lattice": lattice.matrix.tolist()},
                compact | {"lattice_parameters": list(lattice.parameters)},
                jarvis | {"coords": structure.cart_coords.tolist()},
            ]
        )

    def _json(self, mutator: Mutator, value: Any) -> bytes:
        with deep():
            content = json.dumps(
                mutator.tree(value) if mutator.rng.random() < 0.6 else value
            ).encode()
        return mutator.bytes(content) if mutator.rng.random() < 0.5 else content


def _read(rng: random.Random, path: Path) -> str:
    """As `csgcnn predict` reads structures."""
    n_kept = 0
    for built in build_graphs(iter_structures([path]), rng.choice(SETTINGS), workers=1):
        for entry in built.rejected:
            if UNFORESEEN.match(entry.reason) or not (entry.id and entry.reason):
                raise UnforeseenError(entry)
        if built.graphs is not None:
            n_kept += len(built.graphs)
            _use(
                GraphStore(
                    built.graphs, [record.id for record in built.records], {}, GraphSettings()
                )
            )
    return "accepted" if n_kept else "refused"


def _open(rng: random.Random, path: Path) -> str:
    """As `csgcnn train` reads a data set, twice: the second time from the cache."""
    settings, cache = rng.choice(SETTINGS), (path if path.is_dir() else path.parent) / "cache"
    store, rejected = open_dataset(path, settings, cache_folder=cache, workers=1)
    if any(UNFORESEEN.match(entry.reason) for entry in rejected):
        raise UnforeseenError(rejected)
    _use(store)
    again = GraphStore.load(next(entry for entry in cache.iterdir() if entry.suffix != ".tmp"))
    if again.ids != store.ids:
        raise UnforeseenError("the cache holds other records")
    return "accepted"


def _use(store: GraphStore) -> None:
    """All that is done with a store; what is wrong in it would show."""
    batch = store.batch(torch.arange(len(store)))
    assert batch.distance.isfinite().all()
    assert store.elements
    store.graphs.n_isolated.sum()
    for i in range(min(len(store), 3)):
        store.site_values(store[i].z, i)
    numeric = [
        name
        for name, column in store.columns.items()
        if not any(isinstance(value, str) for value in column)
    ]
    store.numbers(numeric)
