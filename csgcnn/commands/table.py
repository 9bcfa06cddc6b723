"""`csgcnn table`: compare finished runs in a leaderboard."""

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
from csgcnn.config.locations import CONF
from csgcnn.config.settings.run import RunSettings
from csgcnn.config.tree import leaves
from csgcnn.errors import UserError, one_line
from csgcnn.evaluation.metrics import TASKS, Metric
from csgcnn.io import write_csv, write_text

RUN_KEYS = section_keys(RunSettings)

# errors of reading damaged files
_MALFORMED = (OSError, ValueError, LookupError, TypeError, AttributeError, YAMLError)
UNUSABLE = (*_MALFORMED, UserError, OmegaConfBaseException)
# full key -> value
Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        config: Its configuration by full key.
        metrics: Content of its metrics.json.
    """

    config: Config
    metrics: dict[str, Any]

    @property
    def result_keys(self) -> Config:
        """The keys that change the result, equal for runs that differ only in their seeds."""
        found = {}
        for name, value in self.config.items():
            key = described_key(name, {}, RUN_KEYS)
            if key is None or key.setting.effect == "result":
                by_name = key is not None and key.setting.by_name and value
                found[name] = Path(value).name if by_name else value
        return found

    @property
    def seeds(self) -> tuple[Any, ...]:
        """Values of all seeds."""
        is_seed = (name for name in self.config if has_effect(name, "seed", RUN_KEYS))
        return tuple(self.config[name] for name in is_seed)


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard: one target of runs that differ only in their seeds.

    Attributes:
        model: Option of the group `model`; the following ones likewise.
        edge_calculator: With "+learnable" if its parameters are trained.
        node_features: Joined by +; * marks tables that are trained.
        pooling: Option of the group `pooling`.
        dataset: Name of the data file.
        split: Method of the split, with its column or fold.
        target: Name of the target.
        unit: Unit of the target.
        test_mae: Mean over the runs, in the unit; of a classification target the error rate.
        spread: Standard deviation over the runs.
        runs: Number of runs.
        baseline_mae: Error of predicting the mean, or the most frequent class.
        parameters: Number of weights.
        minutes: Mean time of a run.
        also: Keys that distinguish rows that look the same.
    """

    model: str
    edge_calculator: str
    node_features: str
    pooling: str
    dataset: str
    split: str
    target: str
    unit: str
    test_mae: float
    spread: float | None
    runs: int
    baseline_mae: float
    parameters: int
    minutes: float
    also: str = ""


def leaderboard(folders: Sequence[Path]) -> tuple[str, list[str]]:
    """Compare all runs below the folders, and write table.md and table.csv to the first folder.

    Args:
        folders: Runs, sweeps, or folders of these.

    Returns:
        The table in Markdown, and a line for each run that was left out.

    Raises:
        UserError: A folder does not exist or cannot be written, or there is no finished run.
    """
    groups, left_out = _groups(_run_folders(folders))
    rows = [(row, runs[0].result_keys) for runs in groups for row in _rows(runs)]
    if not rows:
        places = ", ".join(map(str, folders))
        message = f"no finished run below {places}; csgcnn train makes them"
        raise UserError("\n".join([message, *left_out]))
    table = sorted(
        _distinguished(rows), key=lambda row: (row.dataset, row.target, row.split, row.test_mae)
    )
    text = _markdown(table)
    write_text(folders[0] / "table.md", text)
    names = [field.name for field in fields(Row)]
    cells = ([getattr(row, name) for name in names] for row in table)
    write_csv(folders[0] / "table.csv", names, cells)
    return text, left_out


def _run_folders(folders: Sequence[Path]) -> list[Path]:
    """Return the run directories below the folders, each once even if the folders overlap."""
    runs: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {folder}; expected a run directory, or a folder above it"
            )
        for config in sorted(folder.rglob("config.yaml")):
            run = config.parent
            if (run / "metrics.json").exists() or (run / "checkpoints").exists():
                runs.setdefault(run.resolve(), run)
    return list(runs.values())


def _groups(folders: Sequence[Path]) -> tuple[list[list[Run]], list[str]]:
    """Return runs that differ only in their seeds, group by group, and why others are left out."""
    groups: dict[str, dict[tuple[Any, ...], Run]] = defaultdict(dict)
    left_out = []
    for folder in folders:
        try:
            run = _read_run(folder)
            # raises if the run cannot be a row
            _rows([run])
            group = json.dumps([run.result_keys, sorted(run.metrics["test"])], sort_keys=True)
            # an exact repetition counts once
            groups[group][run.seeds] = run
        except UNUSABLE as error:
            left_out.append(f"{folder} is left out: {_reason(error)}")
    return [list(runs.values()) for runs in groups.values()], left_out


def _read_run(folder: Path) -> Run:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    if "test" not in metrics:
        raise UserError(f"it was {metrics['outcome']}")
    return Run(dict(leaves({k: v for k, v in config.items() if k != "hydra"})), metrics)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not finished (no metrics.json)"
    if isinstance(error, UserError):
        return str(error)
    reason = f"{type(error).__name__}: {one_line(error)}"
    return f"its config.yaml or metrics.json cannot be used ({reason})"


def _rows(runs: Sequence[Run]) -> list[Row]:
    config, metrics = runs[0].config, runs[0].metrics
    rows = []
    for target, test in metrics["test"].items():
        (metric,) = (task.baseline for task in TASKS.values() if task.baseline.name in test)
        errors, baselines = _errors(runs, target, metric)
        rows.append(
            Row(
                model=_option(config, "model", "convolution._target_"),
                edge_calculator=_option(config, "edge_calculator")
                + " +learnable" * config["edge_calculator.learnable"],
                node_features=_node_features(config),
                pooling=_option(config, "pooling") if "pooling._target_" in config else "mean",
                dataset=Path(config["dataset.path"]).name.partition(".")[0],
                split=_split(config),
                target=target if metric.lower_is_better else f"{target} (error rate)",
                unit=metrics["units"].get(target, ""),
                test_mae=statistics.fmean(errors),
                spread=statistics.stdev(errors) if len(errors) > 1 else None,
                runs=len(runs),
                baseline_mae=statistics.fmean(baselines),
                parameters=metrics["n_parameters"],
                minutes=statistics.fmean(run.metrics["seconds"] for run in runs) / 60,
            )
        )
    return rows


def _errors(runs: Sequence[Run], target: str, metric: Metric) -> tuple[list[float], list[float]]:
    """Return test errors and those of the baseline: MAE of a number, error rate of a class."""
    found = [run.metrics for run in runs]
    errors = [metrics["test"][target][metric.name] for metrics in found]
    baselines = [metrics[f"baseline_test_{metric.name}"][target] for metrics in found]
    if not metric.lower_is_better:
        errors, baselines = [1 - value for value in errors], [1 - value for value in baselines]
    if not all(isinstance(error, int | float) and math.isfinite(error) for error in errors):
        raise UserError(f"its test error of {target} is {errors[-1]}")
    return errors, baselines


def _option(config: Config, group: str, key: str = "_target_") -> str:
    """Return the name of the option of a group, found by its target."""
    target = config[f"{group}.{key}"]
    return _options(group, key).get(target, target.rpartition(".")[2])


@cache
def _options(group: str, key: str) -> dict[str, str]:
    # of several options with one target, the first name counts
    paths = sorted((CONF / group).glob("*.yaml"), reverse=True)
    return {OmegaConf.select(OmegaConf.load(path), key): path.stem for path in paths}


def _node_features(config: Config) -> str:
    parts = dict.fromkeys(key.split(".")[1] for key in config if key.startswith("node_features."))
    return " + ".join(
        part + "*" * bool(config.get(f"node_features.{part}.trainable")) for part in parts
    )


def _split(config: Config) -> str:
    method = config["dataset.split.method"]
    column, fold = config["dataset.split.column"], config["dataset.split.fold"]
    details = {"group": column, "column": column, "fold": f"{column} {fold}"}
    details["matbench"] = f"fold {fold}"
    return f"{method} ({details[method]})" if method in details else method


def _distinguished(rows: Sequence[tuple[Row, Config]]) -> list[Row]:
    """Return the rows; `also` gives the keys in which rows that look the same differ."""
    alike: dict[tuple[Any, ...], list[tuple[Row, Config]]] = defaultdict(list)
    for row, config in rows:
        options = (row.model, row.edge_calculator, row.node_features, row.pooling)
        alike[(*options, row.dataset, row.split, row.target)].append((row, config))
    found = (
        (row, config, [other for _, other in same])
        for same in alike.values()
        for row, config in same
    )
    return [replace(row, also=_difference(config, others)) for row, config, others in found]


def _difference(config: Config, others: Sequence[Config]) -> str:
    found = []
    for key, value in config.items():
        if any(other.get(key) != value for other in others):
            is_target = key.endswith("._target_")
            shown = str(value).rpartition(".")[2] if is_target else value
            found.append(f"{key.removesuffix('._target_')}={shown}")
    return " ".join(found)


def _markdown(rows: Sequence[Row]) -> str:
    """Return a table with rounded numbers, without empty columns."""
    lines = [_cells(row) for row in rows]
    names = [name for name in lines[0] if any(line[name] for line in lines)]
    width = {name: max(len(name), *(len(line[name]) for line in lines)) for name in names}
    header, rule = {name: name for name in names}, {name: "-" * width[name] for name in names}
    padded = ([line[name].ljust(width[name]) for name in names] for line in [header, rule, *lines])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in padded)


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
