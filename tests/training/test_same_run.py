"""Checks before a run is resumed: `csgcnn.training.resume`."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from csgcnn.config.compose import compose
from csgcnn.errors import ConfigError, UserError
from csgcnn.training.resume import check_same_run, last_checkpoint


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return OmegaConf.to_container(compose("train", ["seed=0"]))


def resume(config: dict[str, Any], changes: dict[str, Any], **fold: bool) -> None:
    """Resume a run with other values of keys."""
    changed = OmegaConf.create(deepcopy(config))
    for key, value in changes.items():
        OmegaConf.update(changed, key, value)
    checkpoint = {"config": config, "data": "digest"}
    check_same_run(checkpoint, OmegaConf.to_container(changed), "digest", **fold)


def test_keys_of_execution_may_differ(config: dict[str, Any]) -> None:
    execution = {"device": "cpu", "threads": 3, "workers": 2, "progress": False, "keep_last": 4}
    changes = {f"trainer.{name}": value for name, value in execution.items()}
    resume(config, changes | {"trainer.max_minutes": 5, "trainer.checkpoint_every": 1.0})


def test_keys_that_messages_recommend_may_differ(config: dict[str, Any]) -> None:
    resume(config, {"trainer.cuda_graphs": False, "trainer.max_skipped": 10})
    resume(config, {"trainer.max_epochs": 500})


@pytest.mark.parametrize(
    ("key", "value"), [("optimizer.lr", 0.5), ("seed", 7), ("model.hidden", 8), ("model.new", 1)]
)
def test_keys_of_the_result_may_not_differ(config: dict[str, Any], key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"different configuration: {key}={value}"):
        resume(config, {key: value})


def test_folds_of_a_benchmark_have_equal_epochs(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs=500"):
        resume(config, {"trainer.max_epochs": 500}, is_fold=True)


def test_other_data_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no longer holds the data"):
        check_same_run({"config": config, "data": "digest"}, config, "another digest")


def test_a_run_with_a_removed_key_is_refused(config: dict[str, Any]) -> None:
    checkpoint = {"config": config, "data": "digest", "removed": ["graph.vectors was removed"]}
    with pytest.raises(ConfigError, match=r"cannot resume: graph\.vectors was removed"):
        check_same_run(checkpoint, config, "digest")


def test_a_folder_without_checkpoints_has_no_last_one(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    (tmp_path / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"no checkpoint is usable: .*last\.ckpt"):
        last_checkpoint(tmp_path)


def test_the_data_of_an_earlier_version_are_not_compared(
    config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    check_same_run({"config": config, "data": "old", "format": 4}, config, "new")
    assert "earlier version" in caplog.text
    with pytest.raises(UserError, match="no longer holds the data"):
        check_same_run({"config": config, "data": "old", "format": 5}, config, "new")


def test_keys_of_the_data_set_that_a_run_lacks_have_their_defaults(config: dict[str, Any]) -> None:
    old = deepcopy(config)
    for key in ("columns", "max_rejected"):
        del old["dataset"][key]
    del old["dataset"]["split"]["duplicates"]
    checkpoint = {"config": old, "data": "digest"}
    check_same_run(checkpoint, config, "digest")
    changed = deepcopy(config)
    changed["dataset"]["split"]["duplicates"] = "together"
    with pytest.raises(ConfigError, match=r"dataset\.split\.duplicates=together"):
        check_same_run(checkpoint, changed, "digest")


def test_keys_that_are_newer_than_a_run_have_their_defaults(config: dict[str, Any]) -> None:
    old = deepcopy(config)
    newer = ["graph.site_features", "graph.site_layers", "model.n_head_layers", "init_parts"]
    for key in newer:
        section, _, name = key.rpartition(".")
        del (old[section] if section else old)[name]
    checkpoint = {"config": old, "data": "digest"}
    check_same_run(checkpoint, config, "digest")
    given = {"graph.site_features": ["sevennet"], "model.n_head_layers": 2}
    for key, value in given.items():
        changed = OmegaConf.create(deepcopy(config))
        OmegaConf.update(changed, key, value)
        with pytest.raises(ConfigError, match=f"different configuration: {key}="):
            check_same_run(checkpoint, OmegaConf.to_container(changed), "digest")


def test_a_run_from_before_global_features_had_none(config: dict[str, Any]) -> None:
    old = deepcopy(config)
    del old["graph"]["global_features"]
    with pytest.raises(ConfigError, match=r"graph\.global_features=.*\(the run has none\)"):
        check_same_run({"config": old, "data": "digest"}, config, "digest")


def test_a_run_without_the_group_head_has_the_head_of_the_network(config: dict[str, Any]) -> None:
    before = {key: value for key, value in config.items() if key != "head"}
    check_same_run({"config": before, "data": "digest"}, config, "digest")
    kernel: Any = OmegaConf.to_container(compose("train", ["seed=0", "head=svr"]))
    with pytest.raises(ConfigError, match=r"head\._target_=.*\(the run has nothing\)"):
        check_same_run({"config": before, "data": "digest"}, kernel, "digest")
