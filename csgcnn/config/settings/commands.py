"""Keys of the commands that train nothing, and the table of all commands."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.plot import PlotSettings
from csgcnn.config.settings.run import BenchmarkSettings, LearningCurveSettings, RunSettings
from csgcnn.config.settings.setting import MISSING, setting
from csgcnn.config.settings.structures import (
    EmbedSettings,
    SelectSettings,
    StructureSettings,
    batch_size_setting,
    plugins_setting,
)
from csgcnn.config.settings.trainer import device_setting, workers_setting

format_plugins_setting = partial(
    setting, [], "Packages that register data formats.", effect="execution"
)
# Keys of the section dataset that csgcnn describe does not read, and those that build and evaluate
# do not read; options set them.
OF_NETWORK = (
    *("delta", "task_weights", "class_weights", "weight_column", "labels"),
    *("inputs", "fidelities", "fidelity", "grid_units", "grid_loss"),
)
OF_TRAINING = ("targets", "units", "tasks", "transform", "split", *OF_NETWORK)


def _dataset() -> DatasetSettings:
    return DatasetSettings(hint="or an option of dataset, such as dataset=dielectric")


@dataclass(slots=True)
class BuildSettings:
    """Describe `csgcnn build`."""

    output: str = setting(MISSING, "Folder to create.", is_path=True)
    dataset: DatasetSettings = field(
        default_factory=_dataset,
        metadata={"unread": (*OF_TRAINING, "derived", "max_rejected", "cache_dir")},
    )
    graph: GraphSettings = field(default_factory=GraphSettings)
    workers: int | None = workers_setting()
    plugins: list[str] = format_plugins_setting()


@dataclass(slots=True)
class PredictSettings(StructureSettings):
    """Describe `csgcnn predict`."""

    structures: Any = setting(
        MISSING,
        "File, folder, pattern or data file of structures, a list of these, or a folder of "
        "built graphs.",
        is_path=True,
    )
    output: str = setting(
        "predictions.csv", "Table to write: .csv, .csv.gz, .parquet or .npz.", is_path=True
    )
    overwrite: bool = setting(
        False, "Replace the table of an earlier command, and the lists beside it."
    )
    resume: bool = setting(False, "Continue an earlier command that was interrupted.")
    where: str | None = setting(
        None,
        "Keep only rows within limits, such as 'band_gap < 1.5 and band_gap_std < 0.2'; text "
        "is in quotes: out_of_domain == ''.",
        null="all rows",
        verbatim=True,
    )
    top: int | None = setting(
        None, "Keep only this many rows, the best first.", at_least=1, null="all rows"
    )
    by: str | None = setting(
        None,
        "Column that ranks the rows for top.",
        null="the only target",
        verbatim=True,
        read_by="top",
    )
    order: str = setting(
        "highest", "Which rows are the best for top.", choices=("highest", "lowest"), read_by="top"
    )
    level: float = setting(
        0.9,
        "Coverage of the columns _lower and _upper, where the model predicts deviations or has "
        "calibration rows.",
        above=0,
        below=1,
    )
    workers: int | None = setting(
        None,
        "Processes that build graphs, or that predict the rows of built graphs.",
        at_least=1,
        at_most=10_000,
        null="one per core; for built graphs one per two cores",
        effect="execution",
    )


@dataclass(slots=True)
class ExplainSettings(StructureSettings):
    """Describe `csgcnn explain`."""

    inputs: dict[str, Any] = setting(
        {},
        "Values of the inputs of the model for all structures, which replace columns, one each.",
        verbatim=True,
    )
    output: str = setting(
        "explanation",
        "Folder to write, with tables of contributions, elements and edges and structures.extxyz.",
        is_path=True,
    )
    format: str = setting("csv", "Format of the tables.", choices=("csv", "parquet"))
    overwrite: bool = setting(False, "Replace an earlier explanation in the folder.")
    batch_size: int = setting(
        32, "Crystals that are explained at once.", at_least=1, effect="execution"
    )


@dataclass(slots=True)
class EvaluateSettings:
    """Describe `csgcnn evaluate`."""

    ckpt: Any = setting(
        MISSING, "Checkpoint; a list or pattern of several is an ensemble.", is_path=True
    )
    dataset: DatasetSettings = field(
        default_factory=_dataset, metadata={"unread": (*OF_TRAINING, "grid")}
    )
    split: str | None = setting(
        None,
        "Evaluate only the rows of this part of the training's split.",
        choices=("train", "val", "test", "in_distribution", "calibration"),
        null="all rows",
    )
    output: str | None = setting(
        None,
        "Folder to write, with metrics.json, predictions.csv and figures; or a table of "
        "predictions and errors (.csv).",
        null="none",
        is_path=True,
    )
    overwrite: bool = setting(False, "Replace an earlier evaluation in the folder.")
    check_invariance: bool = setting(False, "Also predict other descriptions of the same crystals.")
    plot: PlotSettings = field(default_factory=PlotSettings)
    device: str = device_setting()
    batch_size: int = batch_size_setting()
    plugins: list[str] = plugins_setting()


@dataclass(slots=True)
class DescribeSettings:
    """Describe `csgcnn describe`."""

    dataset: DatasetSettings = field(
        default_factory=_dataset,
        metadata={"unread": (*OF_NETWORK, "on_error", "max_rejected", "grid")},
    )
    output: str | None = setting(
        None,
        "File to write: a page (.html), the whole report (.json), or a table of the "
        "findings (.csv).",
        null="none",
        is_path=True,
    )
    overwrite: bool = setting(False, "Replace an existing file.")
    max_difference: float = setting(
        0.25,
        "Difference of the targets of equal or similar crystals beyond which they are listed.",
        unit="standard deviations of the target",
        at_least=0,
    )
    graph: GraphSettings = field(default_factory=GraphSettings)
    workers: int | None = workers_setting()
    plugins: list[str] = format_plugins_setting()


# The settings class of each command that has a configuration.
COMMANDS: dict[str, type] = {
    "train": RunSettings,
    "benchmark": BenchmarkSettings,
    "learning-curve": LearningCurveSettings,
    "predict": PredictSettings,
    "embed": EmbedSettings,
    "explain": ExplainSettings,
    "select": SelectSettings,
    "evaluate": EvaluateSettings,
    "build": BuildSettings,
    "describe": DescribeSettings,
}
# Those that have the keys of a run, and a folder for it.
TRAINING_COMMANDS = tuple(name for name, keys in COMMANDS.items() if issubclass(keys, RunSettings))
