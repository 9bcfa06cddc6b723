"""`csgcnn table`: finished runs in, a leaderboard out."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from csgcnn.config.keys import described_key, has_effect, section_keys
from csgcnn.config.paths import CONF
from csgcnn.config.settings.run import RunSettings
from csgcnn.config.tree import leaves
from csgcnn.errors import UserError
from csgcnn.io import write_csv, write_text

RUN_KEYS = section_keys(RunSettings)
PATHS = ("dataset.path", "dataset.split.file")  # only the name of the file counts

# What reading damaged or foreign files may raise.
UNUSABLE = (
    *(UserError, OSError, ValueError, LookupError, TypeError, AttributeError),
    *(OmegaConfBaseException, YAMLError),
)

Config = dict[str, Any]  # full key -> value
Run = tuple[Config, dict[str, Any]]  # and what metrics.json says


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard: one target of the runs that differ in nothing but their seeds."""

    model: str
    edge_calculator: str
    node_features: str  # * trainable
    pooling: str
    dataset: str
    split: str
    target: str
    unit: str
    test_mae: float  # mean over the runs, in `unit`
    spread: float | None  # standard deviation over the runs
    runs: int
    baseline_mae: float  # of predicting the mean
    parameters: int
    minutes: float
    also: str = ""  # what tells it from rows that look the same


def leaderboard(folders: Sequence[Path]) -> tuple[str, list[str]]:
    """Compare all runs below the folders: a Markdown table, and a line for each run that had to be left out.

    The table is written to the first folder, as table.md and table.csv.

    Raises:
        UserError: a folder does not exist or cannot be written to, or there is no finished run.
    """
    groups, left_out = _groups(_run_folders(folders))
    rows = [(row, _identity(runs[0][0])) for runs in groups for row in _rows(runs)]
    if not rows:
        places = ", ".join(map(str, folders))
        raise UserError(
            "\n".join([f"no finished run below {places}; csgcnn train makes them", *left_out])
        )
    table = sorted(
        _told_apart(rows), key=lambda row: (row.dataset, row.target, row.split, row.test_mae)
    )
    text = _markdown(table)
    write_text(folders[0] / "table.md", text)
    names = [field.name for field in fields(Row)]
    write_csv(
        folders[0] / "table.csv", names, ([getattr(row, name) for name in names] for row in table)
    )
    return text, left_out


def _run_folders(folders: Sequence[Path]) -> list[Path]:
    """Each run once, also where the folders overlap."""
    runs: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {folder}; expected one that csgcnn train made, or one above"
            )
        for config in sorted(folder.rglob("config.yaml")):
            if (config.parent / "metrics.json").exists() or (
                config.parent / "checkpoints"
            ).exists():
                runs.setdefault(config.parent.resolve(), config.parent)
    return list(runs.values())


def _groups(folders: Sequence[Path]) -> tuple[list[list[Run]], list[str]]:
    """The runs in the folders, those together that differ in nothing but their seeds, and why others are left out."""
    groups: dict[str, dict[tuple[Any, ...], Run]] = defaultdict(dict)
    left_out = []
    for folder in folders:
        try:
            config, metrics = run = _read_run(folder)
            _rows([run])  # a run that cannot be a row is told now
            same_training = json.dumps([_identity(config), sorted(metrics["test"])], sort_keys=True)
            groups[same_training][
                tuple(value for key, value in config.items() if has_effect(key, "seed", RUN_KEYS))
            ] = run  # an exact repetition counts once
        except UNUSABLE as error:
            left_out.append(f"{folder} is left out: {_reason(error)}")
    return [list(runs.values()) for runs in groups.values()], left_out


def _read_run(folder: Path) -> Run:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    if "test" not in metrics:
        raise UserError(f"it was {metrics['outcome']}")
    return dict(leaves({key: value for key, value in config.items() if key != "hydra"})), metrics


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not finished (no metrics.json)"
    if isinstance(error, UserError):
        return str(error)
    return f"its config.yaml or metrics.json cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"


def _identity(config: Config) -> Config:
    """What was trained, on what: equal for runs that repeat each other with other seeds."""
    kept = {
        key: value
        for key, value in config.items()
        if (described := described_key(key, {}, RUN_KEYS)) is None
        or described.setting.effect == "result"
    }
    return kept | {key: Path(kept[key]).name for key in PATHS if kept.get(key)}


def _rows(runs: Sequence[Run]) -> list[Row]:
    """A row for each target, of runs with one configuration: MAE of a number, share of wrong answers of a class."""
    config = runs[0][0]
    rows = []
    for target, test in runs[0][1]["test"].items():
        is_number = "mae" in test
        if is_number:
            errors = [metrics["test"][target]["mae"] for _, metrics in runs]
            baselines = [metrics["baseline_test_mae"][target] for _, metrics in runs]
        else:
            errors = [1 - metrics["test"][target]["accuracy"] for _, metrics in runs]
            baselines = [1 - metrics["baseline_test_accuracy"][target] for _, metrics in runs]
        if not all(isinstance(error, int | float) and math.isfinite(error) for error in errors):
            raise UserError(f"its test error of {target} is {errors[-1]}")
        rows.append(
            Row(
                model=_option(config, "model", "convolution._target_"),
                edge_calculator=_option(config, "edge_calculator")
                + " +learnable" * config["edge_calculator.learnable"],
                node_features=_node_features(config),
                pooling=_option(config, "pooling") if "pooling._target_" in config else "mean",
                dataset=Path(config["dataset.path"]).name.partition(".")[0],
                split=_split(config),
                target=target if is_number else f"{target} (error rate)",
                unit=runs[0][1]["units"].get(target, ""),
                test_mae=statistics.fmean(errors),
                spread=statistics.stdev(errors) if len(errors) > 1 else None,
                runs=len(runs),
                baseline_mae=statistics.fmean(baselines),
                parameters=runs[0][1]["n_parameters"],
                minutes=statistics.fmean(metrics["seconds"] for _, metrics in runs) / 60,
            )
        )
    return rows


def _option(config: Config, group: str, key: str = "_target_") -> str:
    """The name of the option that was chosen from a group, told by what it builds."""
    target = config[f"{group}.{key}"]
    return _options(group, key).get(target, target.rpartition(".")[2])


@cache
def _options(group: str, key: str) -> dict[str, str]:
    paths = sorted(
        (CONF / group).glob("*.yaml"), reverse=True
    )  # of several with one target, the first name counts
    return {OmegaConf.select(OmegaConf.load(path), key): path.stem for path in paths}


def _node_features(config: Config) -> str:
    parts = dict.fromkeys(key.split(".")[1] for key in config if key.startswith("node_features."))
    return " + ".join(
        part + "*" * bool(config.get(f"node_features.{part}.trainable")) for part in parts
    )


def _split(config: Config) -> str:
    method = config["dataset.split.method"]
    details = {
        "group": config["dataset.split.column"],
        "column": config["dataset.split.column"],
        "fold": f"{config['dataset.split.column']} {config['dataset.split.fold']}",
        "matbench": f"fold {config['dataset.split.fold']}",
    }
    return f"{method} ({details[method]})" if method in details else method


def _told_apart(rows: Sequence[tuple[Row, Config]]) -> list[Row]:
    """The rows, those that would look the same with the keys in which their configurations differ."""
    alike: dict[tuple[Any, ...], list[tuple[Row, Config]]] = defaultdict(list)
    for row, config in rows:
        look = (
            row.model,
            row.edge_calculator,
            row.node_features,
            row.pooling,
            row.dataset,
            row.split,
            row.target,
        )
        alike[look].append((row, config))
    return [
        replace(row, also=_difference(config, [other for _, other in same]))
        for same in alike.values()
        for row, config in same
    ]


def _difference(config: Config, others: Sequence[Config]) -> str:
    keys = [
        key for key, value in config.items() if any(other.get(key) != value for other in others)
    ]
    return " ".join(
        f"{key.removesuffix('._target_')}={str(config[key]).rpartition('.')[2]}"
        if key.endswith("._target_")
        else f"{key}={config[key]}"
        for key in keys
    )


def _markdown(rows: Sequence[Row]) -> str:
    """A table for people: rounded, without the columns in which nothing is said."""
    lines = [_cells(row) for row in rows]
    names = [name for name in lines[0] if any(line[name] for line in lines)]
    width = {name: max(len(name), *(len(line[name]) for line in lines)) for name in names}
    head = [
        " | ".join(name.ljust(width[name]) for name in names),
        " | ".join("-" * width[name] for name in names),
    ]
    body = [" | ".join(line[name].ljust(width[name]) for name in names) for line in lines]
    return "".join(f"| {line} |\n" for line in [*head, *body])


def _cells(row: Row) -> dict[str, str]:
    spread = "" if row.spread is None else f" ± {row.spread:.2g}"
    return {
        "model": row.model,
        "edge calculator": row.edge_calculator,
        "node features": row.node_features,
        "pooling": "" if row.pooling == "mean" else row.pooling,
        "data set": row.dataset,
        "split": row.split,
        "target": f"{row.target} [{row.unit}]" if row.unit else row.target,
        "test MAE (runs)": f"{row.test_mae:.4g}{spread} ({row.runs})",
        "predicting the mean": f"{row.baseline_mae:.4g}",
        "parameters": f"{row.parameters:,}",
        "minutes": f"{row.minutes:.1f}",
        "also": row.also.replace("|", "\\|"),
    }
