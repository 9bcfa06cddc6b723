from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from csgcnn.config.compose import compose, to_overrides
from csgcnn.errors import ConfigError


def test_compose_works_repeatedly_and_leaves_no_global_state() -> None:
    for cutoff in (5, 6):
        cfg = compose("train", [f"graph.cutoff={cutoff}", "edge_calculator=rbf"])
        assert (cfg.edge_calculator.cutoff, "hydra" in cfg) == (cutoff, False)
        assert not GlobalHydra.instance().is_initialized()
    assert compose("predict").output == "predictions.csv"


def test_compose_reads_options_of_a_further_folder(tmp_path: Path) -> None:
    folder = tmp_path / "it's, {mine}"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "wide.yaml").write_text("defaults: [csgcnn]\nhidden: 256\n")
    (folder / "all.yaml").write_text("defaults: [train, _self_]\nseed: 3\n")
    cfg = compose("train", ["model=wide"], config_dirs=[folder], config_name="all")
    assert (cfg.model.hidden, cfg.seed) == (256, 3)


def test_compose_refuses_commands_without_configuration() -> None:
    with pytest.raises(ConfigError, match="table has no configuration"):
        compose("table")


def test_python_values_arrive_in_the_configuration_unchanged() -> None:
    values = {
        "model": "csgcnn",
        "edge": "rbf",
        "edge.n_basis": 8,
        "trainer.ema": None,
        "trainer.compile": True,
        "optimizer.lr": 1e-3,
        "dataset.path": "~/a b/c=1,(x)'é{}.json",
        "dataset.targets": ["a b", 'c"', "log10(K_VRH)"],
        "dataset.units": {"log10(K_VRH)": "log10(GPa)", "a b": "", "x=1,2": "eV"},
        "dataset.id_column": "12",
        "node_features": ["onehot", "learned"],
    }
    cfg = compose("train", to_overrides(values))
    assert cfg.model.convolution._target_.endswith("GatedConvolution")
    assert cfg.edge_calculator._target_.endswith("RadialBasis")
    assert (cfg.edge_calculator.n_basis, cfg.optimizer.lr) == (8, 1e-3)
    assert (cfg.trainer.ema, cfg.trainer.compile) == (None, True)
    assert cfg.dataset.path == values["dataset.path"]
    assert cfg.dataset.targets == values["dataset.targets"]
    assert values["dataset.units"].items() <= dict(cfg.dataset.units).items()
    assert cfg.dataset.id_column == "12"
    assert list(cfg.node_features) == ["onehot", "learned"]
