from csgcnn.config.settings.removed import REMOVED_KEYS
from csgcnn.config.upgrade import removed_keys_in, upgrade_config


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
