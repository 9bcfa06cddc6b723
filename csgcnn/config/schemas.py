"""The keys of the configuration, their types and defaults."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

OPTIONS_HINT = "or one of csgcnn train --help: dataset=dielectric, ..."


@dataclass
class GraphConfig:
    """How a structure becomes a graph."""

    cutoff: float = 8.0  # Å
    max_neighbors: int = 12
    shells: str = (
        "complete"  # or truncate: cut the last shell at max_neighbors, as the original CGCNN does
    )
    vectors: bool = (
        False  # keep directions of edges, for noise on coordinates; needs compress=false
    )
    compress: bool = True  # one node for all atoms that symmetry makes equal (lossless)
    global_features: Any = field(
        default_factory=lambda: ["density"]
    )  # or none, lattice, symmetry, composition


@dataclass
class TrainerConfig:
    """How a model is trained."""

    max_epochs: int = 200
    batch_size: int = 64
    patience: int | None = None  # epochs without improvement; null: never stop early
    grad_clip: float | None = 1.0  # norm of the gradient; null: off
    ema: float | None = 0.99  # decay of the moving average of the weights; null: off
    precision: str = "float32"  # or bfloat16 (autocast)
    device: str = "auto"  # or cpu, cuda, cuda:1, ...
    threads: int | None = None  # of the CPU; null: the cores that this process has for itself
    progress: bool = True
    workers: int | None = None  # processes that build graphs; null: all cores
    resident_gib: float | None = (
        None  # larger graphs stay in files; null: 1 on the CPU, half of a GPU's memory
    )
    learn_task_weights: bool = False  # of several targets, by their uncertainty
    max_minutes: float | None = (
        None  # then the run is kept and ends with exit code 75; null: no limit
    )
    checkpoint_every: float = 10.0  # seconds between two writings of the checkpoints
    keep_last: int = 0  # older checkpoints to keep beside last.ckpt
    max_skipped: int = (
        0  # batches without a finite loss or gradient to leave out before the run fails
    )
    deterministic: bool = False  # the same bytes on a GPU, too, where it is slower
    compile: bool = False  # the training step by torch.compile: needs a C++ compiler, half a minute at the start
    cuda_graphs: bool = True  # on a GPU, steps are recorded and replayed: several times faster where batches are small
    freeze_body: bool = False  # with init_from: only the head is trained
    layer_decay: float = (
        1.0  # factor of the learning rate from the head to each layer further away from it
    )
    sync_norm: bool = True  # batch norm over all processes of a training, as one would; false: each its share, faster


@dataclass
class SplitConfig:
    """How the rows are divided into train, val and test."""

    method: str = "random"  # or group, column, fold, matbench (its official folds), file
    train: float = 0.8
    val: float = 0.1
    test: float = 0.1
    seed: int = 0
    stratify: str | None = (
        None  # column whose values get the same shares in every part (random) or fold (matbench)
    )
    column: str | None = (
        None  # of the group (composition: the formula, always there), the part or the fold
    )
    fold: int = 0  # the one whose rows are the test part
    file: str | None = None


@dataclass
class DatasetConfig:
    """Structures and their targets."""

    path: str = MISSING
    targets: list[str] | None = None  # null: the only column there is
    units: dict[str, str] = field(default_factory=dict)
    derived: dict[str, str] = field(
        default_factory=dict
    )  # new columns of 0 and 1, is_metal: band_gap == 0
    tasks: dict[str, str] = field(
        default_factory=dict
    )  # of targets: regression (where not given) or classification
    task_weights: dict[str, float] = field(
        default_factory=dict
    )  # of targets in the loss, 1 where not given
    class_weights: str | None = (
        None  # or balanced: the rarer a class, the more its training rows count
    )
    split: SplitConfig = field(default_factory=SplitConfig)
    id_column: str | None = None
    structure_column: str | None = None
    on_error: str = "raise"  # or skip, which writes rejected.csv
    cache_dir: str | None = None
    hint: str = ""  # what to put where when the file is absent


@dataclass
class TaskConfig:
    """What `csgcnn benchmark` measures: folds, and what others reached on them."""

    name: str = MISSING
    n_folds: int = 5
    n_rows: int | None = (
        None  # of the official data, without all of which there is no score; null: any number
    )
    published: dict[str, float] = field(
        default_factory=dict
    )  # of a model: MAE (of classes: balanced accuracy), mean
    source: str = ""  # of these values


@dataclass
class BuildConfig:
    """`csgcnn build`."""

    output: str = MISSING  # the folder to make
    dataset: DatasetConfig = field(default_factory=lambda: DatasetConfig(hint=OPTIONS_HINT))
    graph: GraphConfig = field(default_factory=GraphConfig)
    workers: int | None = None  # processes that build graphs; null: all cores


@dataclass
class PredictConfig:
    """`csgcnn predict`."""

    ckpt: Any = (
        MISSING  # a checkpoint; a list or a pattern of several is an ensemble: mean and deviation
    )
    structures: Any = (
        MISSING  # a file, folder, glob or data-set file, or a list of them, or a store of graphs
    )
    output: str = "predictions.csv"  # or .csv.gz, .parquet
    resume: bool = False  # go on with what an earlier command left unfinished
    where: str | None = (
        None  # keep only rows within limits: "band_gap < 1.5 and band_gap_std < 0.2"
    )
    top: int | None = None  # keep only so many rows, the best first
    by: str | None = None  # column that ranks them; null: the only target
    order: str = "highest"  # which are best, or lowest
    on_error: str = "raise"  # or skip: rejected structures are no failure
    device: str = "auto"
    batch_size: int = 256
    workers: int | None = (
        None  # processes: of graphs, null: all cores; of the rows of a store, null: half
    )


@dataclass
class EvaluateConfig:
    """`csgcnn evaluate`."""

    ckpt: str = MISSING
    dataset: DatasetConfig = field(default_factory=lambda: DatasetConfig(hint=OPTIONS_HINT))
    split: str | None = None  # only the rows of this part: train, val or test
    output: str | None = None  # csv of the predictions
    check_invariance: bool = False  # predict other descriptions of the same crystals, too
    device: str = "auto"
    batch_size: int = 256


# At the root of the store, so that they do not appear among the options of a group.
_store = ConfigStore.instance().store
_store("graph_schema", GraphConfig)
_store("trainer_schema", TrainerConfig)
_store("dataset_schema", DatasetConfig)
_store("task_schema", TaskConfig)
_store("build_schema", BuildConfig)
_store("predict_schema", PredictConfig)
_store("evaluate_schema", EvaluateConfig)
