"""Write powder X-ray diffraction patterns of the included dielectric crystals, as a data set.

The patterns are computed from the structures, not measured: pymatgen's XRDCalculator with Cu
K-alpha radiation, 2 theta from 10 to 90 degrees. Each line is a Gaussian with a standard deviation
of 0.5 degrees and the area of its intensity; the highest point of a pattern is 1.

    python benchmarks/xrd.py xrd.jsonl.gz
    csgcnn train dataset.path=xrd.jsonl.gz 'dataset.targets=[xrd]' dataset.grid.xrd=10:90:0.5
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from common import data_file
from numpy.typing import NDArray
from pymatgen.analysis.diffraction.xrd import XRDCalculator
from pymatgen.core import Structure

START, STOP, STEP = 10.0, 90.0, 0.5
BROADENING = 0.5
# Lines outside the grid whose Gaussians reach into it.
MARGIN = 3 * BROADENING


def pattern(structure: dict[str, Any]) -> NDArray[Any]:
    """Return the intensities of a crystal at the angles of the grid."""
    cell = Structure(structure["lattice"], structure["species"], structure["frac_coords"])
    limits = (START - MARGIN, STOP + MARGIN)
    lines = XRDCalculator("CuKa").get_pattern(cell, two_theta_range=limits)
    angles = np.arange(START, STOP + STEP / 2, STEP)
    distance = (angles[:, None] - lines.x) / BROADENING
    intensity = np.exp(-(distance**2) / 2) @ lines.y
    return intensity / intensity.max()


def main() -> None:
    """Write the records to the file that is given."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="file to write, .jsonl.gz")
    parser.add_argument("--first", type=int, help="number of crystals; by default all")
    arguments = parser.parse_args()
    with gzip.open(data_file("dielectric"), "rt", encoding="utf-8") as file:
        records = json.load(file)[: arguments.first]
    with gzip.open(arguments.output, "wt", encoding="utf-8") as file:
        for record in records:
            kept = {name: record[name] for name in ("material_id", "crystal_structure")}
            xrd = [round(value, 5) for value in pattern(record["crystal_structure"]).tolist()]
            file.write(json.dumps({**kept, "xrd": xrd}) + "\n")


if __name__ == "__main__":
    main()
