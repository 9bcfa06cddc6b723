"""Keys of the commands that apply a model to structures, and those of `embed` and `select`."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from csgcnn.config.settings.setting import MISSING, setting
from csgcnn.config.settings.trainer import device_setting, workers_setting

batch_size_setting = partial(
    setting, 256, "Crystals per forward pass.", at_least=1, effect="execution"
)
plugins_setting = partial(
    setting, [], "Packages whose classes the checkpoint may name.", effect="execution"
)


@dataclass(slots=True)
class StructureSettings:
    """Describe what the commands read that apply a model to structures."""

    ckpt: Any = setting(
        MISSING,
        "Checkpoint; a list or pattern of several is an ensemble: mean and standard deviation.",
        is_path=True,
    )
    structures: Any = setting(
        MISSING,
        "File, folder, pattern or data file of structures, or a list of these.",
        is_path=True,
    )
    output: str = setting(MISSING, "File or folder to write.", is_path=True)
    overwrite: bool = setting(False, "Replace the files of an earlier command.")
    inputs: dict[str, Any] = setting(
        {},
        "Values of the inputs of the model for all structures, which replace columns: a value, a "
        "list, a range start:stop:step with both ends, or all categories. Several values give a "
        "row each.",
        verbatim=True,
    )
    id_column: str | None = setting(
        None,
        "Column of the ids of data files.",
        null="material_id, jid, mbid, id or name, else the names of structure files",
        verbatim=True,
    )
    structure_column: str | None = setting(
        None, "Column of the structures of data files.", null="as for training", verbatim=True
    )
    all_blocks: bool = setting(
        False, "Predict every structure of a CIF with several, with ids FILE:BLOCK."
    )
    formula_mismatch: str = setting(
        "refuse",
        "refuse: a crystal whose elements have other ratios than the formula in its file is "
        "rejected; warn: it is predicted, with a warning.",
        choices=("refuse", "warn"),
    )
    on_error: str = setting(
        "raise",
        "raise: exit code 1 if a structure was rejected; skip: exit code 0.",
        choices=("raise", "skip"),
    )
    device: str = device_setting()
    batch_size: int = batch_size_setting()
    plugins: list[str] = plugins_setting()


@dataclass(slots=True)
class EmbedSettings(StructureSettings):
    """Describe `csgcnn embed`."""

    sites: bool = setting(False, "Also write a vector for each site.")
    output: str = setting(
        "embeddings.npz",
        "File to write: arrays (.npz), or a table (.parquet).",
        is_path=True,
    )
    map: str | None = setting(
        None,
        "Also write two coordinates of each crystal as NAME.map.csv, and a map as NAME.map.html.",
        choices=("pca", "tsne", "umap"),
        null="no map",
    )
    workers: int | None = workers_setting()


@dataclass(slots=True)
class SelectSettings(StructureSettings):
    """Describe `csgcnn select`."""

    n: int = setting(10, "Structures to choose.", at_least=1)
    by: str = setting(
        "uncertainty",
        "What makes a structure worth choosing: its standard deviation, the upper confidence "
        "bound, the expected improvement, or its distance to the training crystals.",
        choices=("uncertainty", "ucb", "expected_improvement", "diverse"),
    )
    goal: Any = setting(
        None,
        "What is looked for: max, min, or a number in the unit of the target.",
        null="none; needed for by=ucb and expected_improvement",
        read_by="by=ucb,expected_improvement",
    )
    best: float | None = setting(
        None,
        "Best known value of the target.",
        null="none; needed for by=expected_improvement",
        read_by="by=expected_improvement",
    )
    beta: float = setting(
        1.0, "Weight of the standard deviation in by=ucb.", at_least=0, read_by="by=ucb"
    )
    target: str | None = setting(None, "Target of the rule.", null="the only target", verbatim=True)
    output: str = setting("selection.csv", "Table to write (.csv).", is_path=True)
    workers: int | None = workers_setting()
