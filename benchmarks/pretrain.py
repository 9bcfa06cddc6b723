"""Train the weights of `init_from=pretrained` and write data/pretrained.ckpt.

The rows are those of matbench_mp_gap (band gap), formation_energy and castelli_perovskites
(formation energy per atom), without every crystal whose reduced composition occurs in a data set on
which gains are reported. `--resume` continues a training that was interrupted.
"""

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from math import gcd
from pathlib import Path
from typing import Any

from common import INCLUDED_DATA, data_file, run_csgcnn

from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint

REPORTED = ("dielectric", "elastic", "perovskites_halide_hoip", "mp_gap_10k")
GAP, ENERGY = "band_gap", "formation_energy_per_atom"
# Data set: column, target, and factor from the one to the other.
SOURCES = {
    "matbench_mp_gap": ("band_gap", GAP, 1.0),
    "formation_energy": ("formation_energy_per_atom", ENERGY, 1.0),
    "castelli_perovskites": ("e_form", ENERGY, 0.2),  # of five atoms
}
MOST_ATOMS = 40
# Parts of a checkpoint that others need to start from it.
KEPT = ("csgcnn", "config", "targets", "elements", "domain", "state_dict")


def rows_of(name: str) -> list[dict[str, Any]]:
    """Return the records of a data set as its file has them."""
    with gzip.open(data_file(name)) as file:
        rows: list[dict[str, Any]] = json.load(file)
        return rows


def species(row: dict[str, Any]) -> list[str]:
    """Return the elements of the sites of a record."""
    crystal = row["crystal_structure"]
    if "species" in crystal:
        return list(crystal["species"])
    return [site["species"][0]["element"] for site in crystal["sites"]]


def reduced_composition(row: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """Return elements and their smallest integer amounts."""
    counts = Counter(species(row))
    divisor = gcd(*counts.values())
    return tuple(sorted((element, n // divisor) for element, n in counts.items()))


def training_rows() -> Iterator[dict[str, Any]]:
    """Yield the records to train on, and print how many were removed."""
    reported = {reduced_composition(row) for name in REPORTED for row in rows_of(name)}
    for name, (column, target, factor) in SOURCES.items():
        n_reported = n_large = 0
        for number, row in enumerate(rows_of(name)):
            if reduced_composition(row) in reported:
                n_reported += 1
            elif len(species(row)) > MOST_ATOMS:
                n_large += 1
            else:
                yield {
                    "material_id": f"{name}-{row.get('material_id', number)}",
                    "crystal_structure": row["crystal_structure"],
                    **dict.fromkeys((GAP, ENERGY)),
                    target: factor * row[column],
                }
        print(f"{name}: {n_reported} rows of reported compositions, {n_large} large cells removed")


def write_small(trained: Path, path: Path) -> None:
    """Write what is needed of a checkpoint: weights and one hash of each training crystal."""
    content = load_checkpoint(trained)
    content["config"]["dataset"]["path"] = "pretrain.json"
    hashes = content["fingerprints"]["hashes"][:, :1].contiguous()
    fingerprints = {**content["fingerprints"], "hashes": hashes}
    save_checkpoint({**{key: content[key] for key in KEPT}, "fingerprints": fingerprints}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the data and the run")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    data, run = options.folder / "pretrain.json", options.folder / "run"
    if options.resume:
        run_csgcnn("train", f"resume={run}")
    else:
        options.folder.mkdir(parents=True)
        data.write_text(json.dumps(list(training_rows())))
        run_csgcnn(
            "train",
            f"dataset.path={data}",
            f"dataset.targets=[{GAP},{ENERGY}]",
            f"dataset.units={{{GAP}: eV, {ENERGY}: eV/atom}}",
            "dataset.split.train=0.8",
            "dataset.split.val=0.03",
            "dataset.split.test=0",
            f"trainer.max_epochs={options.epochs}",
            "trainer.ema=0.999",
            "trainer.threads=1",
            f"hydra.run.dir={run}",
        )
    write_small(run / "checkpoints/best.ckpt", INCLUDED_DATA / "pretrained.ckpt")


if __name__ == "__main__":
    main()
