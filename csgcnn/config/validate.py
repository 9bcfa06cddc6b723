"""Check a configuration before anything is built from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from csgcnn.config.grids import check_grids
from csgcnn.config.keys import command_keys, described_keys, section_names
from csgcnn.config.locations import CONF
from csgcnn.config.names import check_columns, check_given, check_names
from csgcnn.config.settings.commands import TRAINING_COMMANDS
from csgcnn.config.settings.dataset import COUNTED_METHODS, DIVIDING_METHODS, EXTRAPOLATING_METHODS
from csgcnn.config.settings.setting import Key
from csgcnn.config.targets import check_targets
from csgcnn.config.tree import select
from csgcnn.config.upgrade import read_config, removed_keys_in
from csgcnn.errors import CombinationError, ConfigError, first_line, nearest, one_line

LEARNED_WEIGHTS_OF_LIKELIHOOD = (
    "trainer.learn_task_weights=true excludes loss=gaussian and laplace, whose predicted "
    "deviations balance the targets: learned weights of a negative loss have no limit"
)


def validate(
    cfg: DictConfig, command: str, typed: Sequence[str] = (), of_files: Sequence[str] = ()
) -> None:
    """Check that all values are given, in range, consistent with each other, and read.

    Args:
        cfg: A composed configuration.
        command: Name of the command.
        typed: Full names of the keys that the user typed, which must have an effect.
        of_files: Those that configurations and options of the user set. They must have an effect,
            too, but may describe columns that are not used.

    Raises:
        ConfigError: A key is missing or wrong; the message names it and what was expected.
    """
    _check_missing(cfg)
    described = {key.partition(".")[0] for key in command_keys(command)}
    for section in section_names(command):
        is_option = section not in described
        if is_option and not isinstance(cfg.get(section), DictConfig):
            raise ConfigError(
                f"{section}={cfg.get(section)}: expected an option or keys, see --help"
            )
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    plain.pop("hydra", None)
    # Names of arguments are those of classes that are allowed.
    check_targets(plain)
    _check_own_head(plain.get("head"))
    check_names(plain, command, [*typed, *of_files])
    check_values(plain, command)
    if command == "benchmark":
        _check_folds(plain, typed)
    check_given(plain, command, [*typed, *of_files])
    _check_plot(plain, [*typed, *of_files])
    if command in TRAINING_COMMANDS:
        check_columns(plain, typed)
        _check_inputs(plain, typed)
        check_grids(plain, command)
    if "loss" in cfg:
        _check_predict_std(cfg)
        _check_head(cfg)
        _check_ensemble_folds(cfg)
    if "init_from" in cfg and cfg.trainer.freeze_body and not cfg.init_from:
        raise ConfigError(
            "trainer.freeze_body=true needs init_from=CHECKPOINT, whose body it keeps"
        )
    if "dataset" in cfg:
        _check_split(cfg.dataset.split)
    if "trainer" in cfg:
        _check_trainer(cfg)


def check_values(config: Mapping[str, Any], command: str = "train") -> None:
    """Check the values and the `_target_`s of a plain configuration, which may be untrusted.

    Args:
        config: A plain configuration; keys that it lacks are not checked.
        command: Name of the command.

    Raises:
        ConfigError: A value is out of range, or a `_target_` is not allowed at its place.
        CombinationError: Two values exclude each other.
    """
    if removed := removed_keys_in(config):
        raise ConfigError(removed[0])
    check_targets(config)
    keys = command_keys(command)
    for name, key in described_keys(config, keys):
        value = select(config, name)
        entries = value if isinstance(value, Mapping) else {"": value}
        for entry, item in entries.items():
            if item is not None and not key.accepts(item):
                shown = f"{name}.{entry}" if entry else name
                hint = nearest(str(item), key.setting.choices)
                raise ConfigError(f"{shown}={one_line(item, 60)}: expected {key.expected}{hint}")
    _check_multiples(config, keys)


def _check_multiples(config: Mapping[str, Any], keys: Mapping[str, Key]) -> None:
    for name, key in described_keys(config, keys):
        if not (other := key.setting.divides):
            continue
        divisor, value = select(config, name), select(config, other)
        if isinstance(divisor, int) and isinstance(value, int) and value % divisor:
            below = value - value % divisor
            some = " or ".join(str(v) for v in (below, below + divisor) if v)
            raise CombinationError(
                f"{other}={value}: expected a multiple of {name}={divisor}, such as {some}"
            )


def _check_missing(cfg: DictConfig) -> None:
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        wanted = ", ".join(f"{key}=…" for key in missing)
        hint = f" ({cfg.dataset.hint})" if "dataset.path" in missing and cfg.dataset.hint else ""
        raise ConfigError(f"please give {wanted}{hint}")


def _check_predict_std(cfg: DictConfig) -> None:
    is_likelihood = str(cfg.loss.get("_target_")).endswith(".Likelihood")
    if is_likelihood != bool(cfg.model.get("predict_std")):
        raise ConfigError(
            f"model.predict_std={str(not is_likelihood).lower()}: expected "
            f"{str(is_likelihood).lower()}, which the chosen option of loss sets"
        )


def _check_own_head(head: Mapping[str, Any] | None) -> None:
    if head and "_target_" not in head:
        raise ConfigError(
            f"head=mlp does not read head.{next(iter(head))}, which recipe=small sets for head=svr "
            "and gp; for the network alone, use node_features=[sevennet] instead of the recipe"
        )


def _check_head(cfg: DictConfig) -> None:
    inputs = cfg.head.get("inputs") or []
    if not cfg.head and not cfg.trainer.max_epochs:
        raise ConfigError(
            "trainer.max_epochs=0: expected an integer of at least 1; only head=gp and head=svr "
            "need no training"
        )
    if cfg.head.get("network_weight", 0) != 0 and not cfg.trainer.max_epochs:
        weight = cfg.head.network_weight or "null"
        raise ConfigError(
            f"head.network_weight={weight} takes the mean with the network's own head, which "
            "trainer.max_epochs=0 does not train; give head.network_weight=0, or "
            "trainer.max_epochs=60"
        )
    if cfg.head and cfg.model.get("predict_std"):
        raise ConfigError(
            "a kernel head takes the place of the head that loss=gaussian or laplace trains for "
            "standard deviations; use head=gp with another loss, or head=mlp"
        )
    if "crystal" in inputs and not (cfg.trainer.max_epochs or cfg.init_from):
        raise ConfigError(
            "head.inputs=crystal with trainer.max_epochs=0 is the vector of a network with random "
            "weights; give init_from=CHECKPOINT, or other head.inputs"
        )


def _check_inputs(plain: Mapping[str, Any], typed: Sequence[str]) -> None:
    """Check that inputs beside the structure, and what is said of them, are read."""
    dataset, where = plain["dataset"], plain["model"].get("inputs", "head")
    if dataset["fidelities"] and dataset["fidelity"]:
        raise ConfigError("dataset.fidelities excludes dataset.fidelity; omit one")
    if dataset["fidelities"] and dataset["split"]["method"] == "matbench":
        raise ConfigError("dataset.fidelities excludes dataset.split.method=matbench")
    if not (dataset["inputs"] or dataset["fidelities"] or dataset["fidelity"]):
        if where != "head" or "model.inputs" in typed:
            raise ConfigError(
                f"model.inputs={where} needs dataset.inputs=[…] or fidelities; omit it"
            )
        return
    if plain["head"]:
        raise ConfigError(
            "a kernel head does not read dataset.inputs or fidelities; give head=mlp, or omit them"
        )
    if "dataset.split.duplicates" in typed and dataset["split"]["duplicates"] == "ignore":
        raise ConfigError(
            "dataset.split.duplicates=ignore has no effect with dataset.inputs or fidelities, "
            "which keep all rows of a crystal in one part; omit it"
        )


def _check_plot(plain: Mapping[str, Any], given: Sequence[str]) -> None:
    keys = [name for name in given if name.startswith("plot.")]
    if keys and "trainer" in plain and not plain["trainer"]["figures"]:
        raise ConfigError(f"{keys[0]} has no effect with trainer.figures=false; omit it")
    if keys and "trainer" not in plain and str(plain["output"] or ".csv").endswith(".csv"):
        raise ConfigError(f"{keys[0]} needs output=FOLDER, where the figures are written")


def _check_trainer(cfg: DictConfig) -> None:
    if cfg.trainer.refit and str(cfg.scheduler.get("_target_")).endswith(".plateau"):
        raise ConfigError(
            "trainer.refit=true excludes scheduler=plateau: a refit has no validation loss; give "
            "scheduler=one_cycle"
        )
    if cfg.trainer.learn_task_weights and cfg.dataset.task_weights:
        raise ConfigError("trainer.learn_task_weights=true excludes dataset.task_weights")
    if cfg.trainer.learn_task_weights and cfg.model.get("predict_std"):
        raise ConfigError(LEARNED_WEIGHTS_OF_LIKELIHOOD)


def _check_folds(plain: dict[str, Any], typed: Sequence[str]) -> None:
    """Check what says how often a benchmark divides the data.

    Without a task, a number of folds stands for the method kfold, which is entered.
    """
    split, is_number = plain["dataset"]["split"], isinstance(plain["folds"], int)
    for name, other in (("fold", "folds"), ("folds", "folds"), ("repeats", "repeats")):
        is_read = name != "fold" and not (other in typed and (is_number or other == "repeats"))
        if f"dataset.split.{name}" in typed and not is_read:
            raise ConfigError(f"dataset.split.{name} has no effect; {other}=… chooses the {other}")
    task = read_config(CONF / "task" / f"{plain['task']['name']}.yaml")
    if "dataset" in typed and "path" in task.get("dataset", {}):
        raise ConfigError("dataset=… has no effect beside task=…, which names its data; omit it")
    if plain["task"]["name"] or not is_number or split["method"] != "random":
        return
    if "dataset.split.method" in typed:
        raise ConfigError(
            f"dataset.split.method=random has no folds; omit it, folds={plain['folds']} divides "
            "the data"
        )
    split["method"] = "kfold"


def _check_ensemble_folds(cfg: DictConfig) -> None:
    if cfg.ensemble_folds and cfg.ensemble < 2:
        raise ConfigError("ensemble_folds=true needs ensemble=…, the number of folds, from 2")
    if cfg.ensemble_folds and cfg.dataset.split.calibration:
        raise ConfigError(
            "ensemble_folds=true excludes dataset.split.calibration: each fold of the training "
            "rows calibrates; omit one"
        )


def _check_split(split: DictConfig) -> None:
    key = "dataset.split"
    total = split.train + split.val + split.test
    if split.method in ("random", "group") and total > 1 + 1e-9:
        raise ConfigError(f"{key}: train + val + test = {total:g}, expected at most 1")
    n_folds = split.folds * (split.repeats if split.method in DIVIDING_METHODS else 1)
    if split.method in COUNTED_METHODS and split.fold >= n_folds:
        raise ConfigError(
            f"{key}.fold={split.fold}: with folds={split.folds} and repeats={split.repeats} the "
            f"folds are 0 to {n_folds - 1}"
        )
    if (split.calibration_fold + 1) * split.calibration > 1 + 1e-9:
        raise ConfigError(
            f"{key}.calibration_fold={split.calibration_fold}: with calibration="
            f"{split.calibration:g} the folds are 0 to {int(1 / split.calibration + 1e-9) - 1}"
        )
    n_held_out = split.val + split.in_distribution
    if split.method in EXTRAPOLATING_METHODS and n_held_out >= 1:
        raise ConfigError(f"{key}: val + in_distribution = {n_held_out:g}, expected below 1")
    if split.method in ("group", "column", "fold", "time") and not split.column:
        raise ConfigError(f"{key}.method={split.method} needs the name of a column: {key}.column=…")
    if split.method == "file" and not split.file:
        raise ConfigError(f"{key}.method=file needs a split file: {key}.file=…")
    if split.stratify and split.method not in ("random", "matbench", "kfold"):
        raise ConfigError(
            f"{key}.stratify={split.stratify} needs {key}.method=random, kfold or matbench, "
            f"not {split.method}"
        )
