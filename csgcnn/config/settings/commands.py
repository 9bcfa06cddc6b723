"""Keys of `csgcnn build`, `csgcnn predict` and `csgcnn evaluate`."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.setting import MISSING, Setting

_OPTIONS_HINT = "or an option listed by csgcnn train --help, such as dataset=dielectric"


def _dataset() -> DatasetSettings:
    return DatasetSettings(hint=_OPTIONS_HINT)


@dataclass(slots=True)
class BuildSettings:
    """Describe `csgcnn build`."""

    output: Annotated[str, Setting("Folder to create.")] = MISSING
    dataset: DatasetSettings = field(default_factory=_dataset)
    graph: GraphSettings = field(default_factory=GraphSettings)
    workers: Annotated[
        int | None,
        Setting("Processes that build graphs.", at_least=1, at_most=10_000, null="one per core"),
    ] = None


@dataclass(slots=True)
class PredictSettings:
    """Describe `csgcnn predict`."""

    ckpt: Annotated[
        Any,
        Setting(
            "Checkpoint; a list or pattern of several is an ensemble: mean and standard deviation."
        ),
    ] = MISSING
    structures: Annotated[
        Any,
        Setting(
            "File, folder, pattern or data file of structures, a list of these, or a folder of "
            "built graphs."
        ),
    ] = MISSING
    output: Annotated[str, Setting("Table to write: .csv, .csv.gz or .parquet.")] = (
        "predictions.csv"
    )
    resume: Annotated[bool, Setting("Continue an earlier command that was interrupted.")] = False
    where: Annotated[
        str | None,
        Setting(
            "Keep only rows within limits, such as 'band_gap < 1.5 and band_gap_std < 0.2'.",
            null="all rows",
        ),
    ] = None
    top: Annotated[
        int | None, Setting("Keep only this many rows, the best first.", at_least=1, null="all")
    ] = None
    by: Annotated[
        str | None, Setting("Column that ranks the rows for top.", null="the only target")
    ] = None
    order: Annotated[
        str, Setting("Which rows are the best for top.", choices=("highest", "lowest"))
    ] = "highest"
    on_error: Annotated[
        str,
        Setting(
            "raise: exit code 1 if a structure was rejected; skip: exit code 0.",
            choices=("raise", "skip"),
        ),
    ] = "raise"
    device: Annotated[str, Setting("auto, cpu, cuda or cuda:N.")] = "auto"
    batch_size: Annotated[int, Setting("Crystals per forward pass.", at_least=1)] = 256
    workers: Annotated[
        int | None,
        Setting(
            "Processes that build graphs, or that predict the rows of built graphs.",
            at_least=1,
            at_most=10_000,
            null="one per core; for built graphs one per two cores",
        ),
    ] = None
    plugins: Annotated[list[str], Setting("Packages whose classes the checkpoint may name.")] = (
        field(default_factory=list)
    )


@dataclass(slots=True)
class EvaluateSettings:
    """Describe `csgcnn evaluate`."""

    ckpt: Annotated[Any, Setting("Checkpoint; a list or pattern of several is an ensemble.")] = (
        MISSING
    )
    dataset: DatasetSettings = field(default_factory=_dataset)
    split: Annotated[
        str | None,
        Setting(
            "Evaluate only the rows of this part of the training's split.",
            choices=("train", "val", "test"),
            null="all rows",
        ),
    ] = None
    output: Annotated[
        str | None, Setting("Table of predictions and errors to write (csv).", null="none")
    ] = None
    check_invariance: Annotated[
        bool, Setting("Also predict other descriptions of the same crystals.")
    ] = False
    device: Annotated[str, Setting("auto, cpu, cuda or cuda:N.")] = "auto"
    batch_size: Annotated[int, Setting("Crystals per forward pass.", at_least=1)] = 256
    plugins: Annotated[list[str], Setting("Packages whose classes the checkpoint may name.")] = (
        field(default_factory=list)
    )
