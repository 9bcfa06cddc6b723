"""Keys of the commands other than `csgcnn train` and `benchmark`, and the table of all commands."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.run import BenchmarkSettings, RunSettings
from csgcnn.config.settings.setting import MISSING, Setting
from csgcnn.config.settings.trainer import Device, Workers

BatchSize = Annotated[int, Setting("Crystals per forward pass.", at_least=1, effect="execution")]
Plugins = Annotated[
    list[str], Setting("Packages whose classes the checkpoint may name.", effect="execution")
]
FormatPlugins = Annotated[
    list[str], Setting("Packages that register data formats.", effect="execution")
]
# Keys of the section dataset that csgcnn build and evaluate do not read; options set them.
OF_TRAINING = (
    *("targets", "units", "tasks", "transform", "task_weights", "class_weights"),
    *("weight_column", "split", "labels"),
)


def _dataset() -> DatasetSettings:
    return DatasetSettings(hint="or an option of dataset, such as dataset=dielectric")


@dataclass(slots=True)
class BuildSettings:
    """Describe `csgcnn build`."""

    output: Annotated[str, Setting("Folder to create.", is_path=True)] = MISSING
    dataset: DatasetSettings = field(
        default_factory=_dataset,
        metadata={"unread": (*OF_TRAINING, "derived", "max_rejected", "cache_dir")},
    )
    graph: GraphSettings = field(default_factory=GraphSettings)
    workers: Workers = None
    plugins: FormatPlugins = field(default_factory=list)


@dataclass(slots=True)
class PredictSettings:
    """Describe `csgcnn predict`."""

    ckpt: Annotated[
        Any,
        Setting(
            "Checkpoint; a list or pattern of several is an ensemble: mean and standard deviation.",
            is_path=True,
        ),
    ] = MISSING
    structures: Annotated[
        Any,
        Setting(
            "File, folder, pattern or data file of structures, a list of these, or a folder of "
            "built graphs.",
            is_path=True,
        ),
    ] = MISSING
    id_column: Annotated[
        str | None,
        Setting(
            "Column of the ids of data files.",
            null="material_id, jid, mbid, id or name, else the names of structure files",
            verbatim=True,
        ),
    ] = None
    structure_column: Annotated[
        str | None,
        Setting("Column of the structures of data files.", null="as for training", verbatim=True),
    ] = None
    all_blocks: Annotated[
        bool, Setting("Predict every structure of a CIF with several, with ids FILE:BLOCK.")
    ] = False
    formula_mismatch: Annotated[
        str,
        Setting(
            "refuse: a crystal whose elements have other ratios than the formula in its file is "
            "rejected; warn: it is predicted, with a warning.",
            choices=("refuse", "warn"),
        ),
    ] = "refuse"
    output: Annotated[str, Setting("Table to write: .csv, .csv.gz or .parquet.", is_path=True)] = (
        "predictions.csv"
    )
    overwrite: Annotated[
        bool, Setting("Replace the table of an earlier command, and the lists beside it.")
    ] = False
    resume: Annotated[bool, Setting("Continue an earlier command that was interrupted.")] = False
    where: Annotated[
        str | None,
        Setting(
            "Keep only rows within limits, such as 'band_gap < 1.5 and band_gap_std < 0.2'; text "
            "is in quotes: out_of_domain == ''.",
            null="all rows",
            verbatim=True,
        ),
    ] = None
    top: Annotated[
        int | None,
        Setting("Keep only this many rows, the best first.", at_least=1, null="all rows"),
    ] = None
    by: Annotated[
        str | None,
        Setting(
            "Column that ranks the rows for top.",
            null="the only target",
            verbatim=True,
            read_by="top",
        ),
    ] = None
    order: Annotated[
        str,
        Setting("Which rows are the best for top.", choices=("highest", "lowest"), read_by="top"),
    ] = "highest"
    level: Annotated[
        float,
        Setting(
            "Coverage of the columns _lower and _upper, where the model predicts deviations.",
            above=0,
            below=1,
        ),
    ] = 0.9
    on_error: Annotated[
        str,
        Setting(
            "raise: exit code 1 if a structure was rejected; skip: exit code 0.",
            choices=("raise", "skip"),
        ),
    ] = "raise"
    device: Device = "auto"
    batch_size: BatchSize = 256
    workers: Annotated[
        int | None,
        Setting(
            "Processes that build graphs, or that predict the rows of built graphs.",
            at_least=1,
            at_most=10_000,
            null="one per core; for built graphs one per two cores",
            effect="execution",
        ),
    ] = None
    plugins: Plugins = field(default_factory=list)


@dataclass(slots=True)
class EvaluateSettings:
    """Describe `csgcnn evaluate`."""

    ckpt: Annotated[
        Any, Setting("Checkpoint; a list or pattern of several is an ensemble.", is_path=True)
    ] = MISSING
    dataset: DatasetSettings = field(default_factory=_dataset, metadata={"unread": OF_TRAINING})
    split: Annotated[
        str | None,
        Setting(
            "Evaluate only the rows of this part of the training's split.",
            choices=("train", "val", "test"),
            null="all rows",
        ),
    ] = None
    output: Annotated[
        str | None,
        Setting(
            "Folder to write, with metrics.json, predictions.csv and figures; or a table of "
            "predictions and errors (.csv).",
            null="none",
            is_path=True,
        ),
    ] = None
    overwrite: Annotated[bool, Setting("Replace an earlier evaluation in the folder.")] = False
    check_invariance: Annotated[
        bool, Setting("Also predict other descriptions of the same crystals.")
    ] = False
    device: Device = "auto"
    batch_size: BatchSize = 256
    plugins: Plugins = field(default_factory=list)


@dataclass(slots=True)
class DescribeSettings:
    """Describe `csgcnn describe`."""

    dataset: DatasetSettings = field(
        default_factory=_dataset,
        metadata={
            "unread": (
                *("task_weights", "class_weights", "weight_column", "labels", "on_error"),
                "max_rejected",
            )
        },
    )
    output: Annotated[
        str | None,
        Setting(
            "File to write: the whole report (.json), or a table of the findings (.csv).",
            null="none",
            is_path=True,
        ),
    ] = None
    overwrite: Annotated[bool, Setting("Replace an existing file.")] = False
    max_difference: Annotated[
        float,
        Setting(
            "Difference of the targets of equal or similar crystals beyond which they are listed.",
            unit="standard deviations of the target",
            at_least=0,
        ),
    ] = 0.25
    graph: GraphSettings = field(default_factory=GraphSettings)
    workers: Workers = None
    plugins: FormatPlugins = field(default_factory=list)


# The settings class of each command that has a configuration.
COMMANDS: dict[str, type] = {
    "train": RunSettings,
    "benchmark": BenchmarkSettings,
    "predict": PredictSettings,
    "evaluate": EvaluateSettings,
    "build": BuildSettings,
    "describe": DescribeSettings,
}
