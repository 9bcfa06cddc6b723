"""Keys at the root of a training configuration, of `csgcnn benchmark` and of `learning-curve`."""

from dataclasses import dataclass, field
from typing import Any

from csgcnn.config.settings.dataset import DatasetSettings
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.config.settings.plot import PlotSettings
from csgcnn.config.settings.setting import MAX_SEED, MISSING, setting
from csgcnn.config.settings.trainer import TrainerSettings


@dataclass(slots=True)
class RunSettings:
    """Describe a training run; sections without a class here are options of their groups."""

    seed: int = setting(
        0, "Seed of weights, batches and noise.", at_least=0, at_most=MAX_SEED, effect="seed"
    )
    ensemble: int = setting(
        1,
        "Members, trained with seed, seed + 1, ...; one checkpoint predicts their mean and "
        "standard deviation.",
        at_least=1,
        at_most=100,
    )
    ensemble_folds: bool = setting(
        False,
        "Train each member on all but one fold of the training rows, which calibrates prediction "
        "intervals (CV+).",
    )
    init_from: str | None = setting(
        None,
        "Checkpoint whose weights the training starts from; pretrained: one that comes with the "
        "package.",
        null="random weights",
        is_path=True,
    )
    init_parts: str = setting(
        "all",
        "Weights to take from init_from; body re-initializes the head.",
        choices=("all", "body"),
        read_by="init_from",
    )
    recipe: str | None = setting(
        None, "Name of the recipe, set by recipe=NAME.", null="none", effect="execution"
    )
    resume: str | None = setting(
        None,
        "Folder of the run to resume, or auto: resume if hydra.run.dir holds a run.",
        null="start a new run",
        effect="execution",
        is_path=True,
    )
    plugins: list[str] = setting(
        [], "Packages whose classes may be named by _target_.", effect="execution"
    )
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    plot: PlotSettings = field(default_factory=PlotSettings)
    model: Any = MISSING
    edge_calculator: Any = MISSING
    node_features: Any = MISSING
    pooling: Any = MISSING
    head: Any = field(default_factory=dict)
    augment: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    logger: Any = field(default_factory=dict)


@dataclass(slots=True)
class TaskSettings:
    """Describe a public benchmark task."""

    name: str = setting("", "Official name of the task; empty: cross-validation of your own data.")
    n_folds: int = setting(5, "Number of folds.", at_least=2)
    n_rows: int | None = setting(
        None, "Rows of the official data; a score needs all of them.", at_least=1, null="any number"
    )
    published: dict[str, float] = setting(
        {}, "Published scores: MAE, or balanced accuracy of classes, mean over the folds."
    )
    source: str = setting("", "Source of the published scores.")


@dataclass(slots=True)
class BenchmarkSettings(RunSettings):
    """Describe `csgcnn benchmark`: a run for each fold of a task, or of your own data."""

    task: TaskSettings = field(default_factory=TaskSettings)
    folds: Any = setting(
        None,
        "Folds to run now, one or a list. Without a task, a number is the number of folds.",
        null="all that are not finished",
    )
    repeats: int = setting(
        1, "Times that a cross-validation without a task divides the data.", at_least=1
    )


@dataclass(slots=True)
class LearningCurveSettings(RunSettings):
    """Describe `csgcnn learning-curve`: runs with growing parts of the training rows."""

    sizes: Any = setting(
        [50, 100, 200, 400, "all"], "Numbers of training crystals; all: the training part."
    )
    repeats: int = setting(
        3, "Times that the data are divided and trained on, with other seeds.", at_least=1
    )
