import math
from pathlib import Path

from omegaconf import OmegaConf

from csgcnn.config.compose import compose
from csgcnn.config.resolved import save_resolved
from csgcnn.config.validate import validate


def test_a_stored_configuration_has_values_in_place_of_interpolations(tmp_path: Path) -> None:
    save_resolved(compose("train", ["graph.cutoff=6"]), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert "${" not in text.partition("hydra:")[0]
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert saved.edge_calculator.cutoff == 6
    assert math.isclose(saved.optimizer.lr, 5e-3)
    # Those of Hydra, with which the file is a configuration of its own.
    del saved["defaults"], saved["hydra"]
    validate(saved, "train")
