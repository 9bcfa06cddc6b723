from csgcnn.config.settings.removed import REMOVED_KEYS
from csgcnn.config.upgrade import complete_leaves, removed_keys_in, upgrade_config


def test_removed_keys_and_old_names_are_replaced() -> None:
    old = {
        "graph": {"cutoff": 8.0, "vectors": False},
        "loss": {"_target_": "csgcnn.training.losses.Weighted"},
    }
    assert upgrade_config(old) == {
        "graph": {"cutoff": 8.0, "global_features": "none"},
        "loss": {"_target_": "csgcnn.training.losses.WeightedRegressionLoss"},
    }
    assert old["graph"]["vectors"] is False


def test_only_values_that_changed_results_are_reported() -> None:
    assert removed_keys_in({"graph": {"vectors": False}, "trainer": {"sync_norm": True}}) == []
    (sentence,) = removed_keys_in({"trainer": {"sync_norm": False}})
    assert sentence == f"trainer.sync_norm no longer exists: {REMOVED_KEYS['trainer.sync_norm'][1]}"


def test_keys_that_a_run_lacks_have_the_values_from_before_they_existed() -> None:
    old = {
        "graph": {"cutoff": 6.0},
        "trainer": {"sync_norm": False},
        "model": {"_target_": "csgcnn.nn.network.CrystalGraphNetwork", "hidden": 8},
        "dataset": {"path": "data.csv", "units": {"gap": "eV"}},
    }
    leaves = complete_leaves(old)
    assert (leaves["graph.cutoff"], leaves["model.hidden"]) == (6.0, 8)
    assert (leaves["graph.site_features"], leaves["graph.site_layers"]) == ([], None)
    assert (leaves["model.residual"], leaves["graph.global_features"]) == ("post", "none")
    assert leaves["trainer.sync_norm"] is False
    assert {key for key in leaves if key.startswith("dataset.units")} == {"dataset.units.gap"}
