"""Checkpoints, graphs and data that predictions of several test files use."""

import json
from pathlib import Path
from typing import Any

from csgcnn.config.settings.graph import GraphSettings
from csgcnn.data.cache import open_dataset
from csgcnn.runs.checkpoint import load_checkpoint, save_checkpoint


def write_checkpoints(best: Path, folder: Path) -> list[Path]:
    """Write three models of the same target that differ a little."""
    content = load_checkpoint(best)
    for number in range(3):
        state = {
            name: tensor * (1 + 0.01 * number * tensor.is_floating_point())
            for name, tensor in content["state_dict"].items()
        }
        save_checkpoint({**content, "state_dict": state}, folder / f"{number}.ckpt")
    return sorted(folder.iterdir())


def write_store(data_file: Path, folder: Path) -> Path:
    """Write the store of the graphs of a data set."""
    (folder / "store").mkdir()
    settings = GraphSettings(global_features=("density",))
    opened = open_dataset(data_file, settings, cache_folder=folder / "cache", workers=1)
    opened.store.save(folder / "store")
    return folder / "store"


def write_some_bad(records: list[dict[str, Any]], folder: Path) -> Path:
    """Write a data set whose records 5, 25 and 45 are unusable."""
    mixed = [
        {**record, "crystal_structure": {}} if i % 20 == 5 else record
        for i, record in enumerate(records)
    ]
    path = folder / "mixed.json"
    path.write_text(json.dumps(mixed))
    return path
