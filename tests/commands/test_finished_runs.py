import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from csgcnn.commands.finished_runs import Run, read_run
from csgcnn.config.compose import compose
from csgcnn.config.resolved import save_resolved

METRICS = {"test": {"gap": {"mae": 0.5}}, "seconds": 1.0}


def read(folder: Path, *overrides: str, is_old: bool = False) -> Run:
    """Write a finished run, and read it; an old one lacks keys that are newer."""
    folder.mkdir()
    save_resolved(compose("train", overrides), folder / "config.yaml")
    if is_old:
        config: Any = OmegaConf.load(folder / "config.yaml")
        newer = ("graph.site_features", "graph.site_layers", "model.n_head_layers")
        for section, _, name in (key.partition(".") for key in newer):
            del config[section][name]
        del config["head"]
        config.graph.vectors = False
        config.defaults = ["graph_schema@graph", "_self_"]
        OmegaConf.save(config, folder / "config.yaml")
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return read_run(folder)


def test_a_run_of_an_older_version_is_a_repetition_of_a_new_one(tmp_path: Path) -> None:
    old = read(tmp_path / "old", "seed=1", is_old=True)
    new = read(tmp_path / "new", "seed=2")
    assert old.result_keys == new.result_keys
    assert old.sample != new.sample
    assert old.sample == read(tmp_path / "again", "seed=1").sample


def test_a_run_differs_from_an_older_one_in_newer_keys(tmp_path: Path) -> None:
    old = read(tmp_path / "old", is_old=True).result_keys
    new = read(tmp_path / "new", "graph.site_layers=[1]").result_keys
    assert {key for key in old if old[key] != new[key]} == {"graph.site_layers"}
