"""Keys of the section `dataset`: structures, targets and their split."""

from dataclasses import dataclass, field
from typing import Any

from csgcnn.config.settings.setting import MAX_SEED, MISSING, setting

# Methods whose test rows have a label that no training row has, or larger values.
LEAVE_METHODS = (
    *("leave_element", "leave_chemical_system", "leave_composition"),
    *("leave_prototype", "leave_cluster"),
)
FORWARD_METHODS = ("target_tail", "time")
EXTRAPOLATING_METHODS = (*LEAVE_METHODS, *FORWARD_METHODS)
# Methods that divide the rows anew in each repeat, that have `folds` folds, and that have any.
DIVIDING_METHODS = ("kfold", *LEAVE_METHODS)
COUNTED_METHODS = ("kfold", *EXTRAPOLATING_METHODS)
FOLD_METHODS = ("fold", "matbench", *COUNTED_METHODS)
SPLIT_METHODS = ("random", "group", "column", "file", *FOLD_METHODS)

_EXTRAPOLATING = "leave_*,target_tail,time"


@dataclass(slots=True)
class SplitSettings:
    """Describe how the rows are divided into train, val and test.

    The column `composition` always exists: unless the data have a column of that name, it is the
    reduced formula of each crystal. `data.splits` and `data.extrapolation` define the methods.
    """

    method: str = setting(
        "random",
        "random: by fractions; group: likewise, rows with one value of `column` stay together; "
        "column: `column` holds train, val or test; fold: rows whose `column` equals `fold` "
        "test; matbench: the official folds; kfold: the rows of fold `fold` of `folds` equal "
        "ones test; file: ids per part; leave_*: as kfold, but the test rows have an element, "
        "chemical system, composition, prototype or cluster that no training row has; "
        "target_tail and time: the rows with the largest values of `column` test.",
        choices=SPLIT_METHODS,
    )
    train: float = setting(
        0.8, "Fraction of training rows.", above=0, at_most=1, read_by="method=random,group"
    )
    val: float = setting(
        0.1,
        "Fraction of validation rows; 0: none, the last epoch is kept.",
        at_least=0,
        below=1,
        read_by=f"method=random,group,fold,matbench,kfold,{_EXTRAPOLATING}",
    )
    test: float = setting(
        0.1, "Fraction of test rows; 0: none.", at_least=0, below=1, read_by="method=random,group"
    )
    calibration: float = setting(
        0.0,
        "Fraction of the training rows that calibrate prediction intervals and are not trained "
        "on; 0: none.",
        at_least=0,
        below=1,
    )
    calibration_fold: int = setting(
        0,
        "Which of the 1 / calibration such fractions calibrates, from 0.",
        at_least=0,
        read_by="calibration",
    )
    train_size: int | None = setting(
        None,
        "Training rows to keep, in a random order by `seed`: a larger number adds rows to those of "
        "a smaller one. Calibration rows are some of these; the other parts stay.",
        at_least=1,
        null="all",
    )
    seed: int = setting(
        0,
        "Seed of the split.",
        at_least=0,
        at_most=MAX_SEED,
        effect="seed",
        read_by=f"method=random,group,fold,matbench,kfold,{_EXTRAPOLATING}",
    )
    stratify: str | None = setting(
        None,
        "Column whose values get the same shares in every part (random) or fold (matbench, kfold).",
        null="none",
        read_by="method=random,matbench,kfold",
        verbatim=True,
    )
    duplicates: str = setting(
        "ignore",
        "together: equal crystals stay in one part; those of a test fold are left out of the "
        "other parts. ignore: they are split like other rows. dataset.inputs always keeps them "
        "together.",
        choices=("ignore", "together"),
    )
    column: str | None = setting(
        None,
        "Column of the group, the part, the fold or the time, or the target of target_tail.",
        null="none; target_tail: the first target",
        read_by="method=group,column,fold,target_tail,time",
        verbatim=True,
    )
    fold: int = setting(
        0,
        "Fold whose rows are the test part, from 0.",
        at_least=0,
        read_by=f"method=fold,matbench,kfold,{_EXTRAPOLATING}",
    )
    folds: int = setting(
        5, "Number of folds.", at_least=2, read_by=f"method=kfold,{_EXTRAPOLATING}"
    )
    repeats: int = setting(
        1,
        "Times that the rows are divided; fold numbers continue: `fold` is below folds * repeats.",
        at_least=1,
        read_by="method=kfold,leave_*",
    )
    in_distribution: float = setting(
        0.1,
        "Fraction of the rows outside the test fold, chosen at random, that are not trained on and "
        "give the error in distribution; 0: none.",
        at_least=0,
        below=1,
        read_by=f"method={_EXTRAPOLATING}",
    )
    clusters: int = setting(
        10, "Number of clusters of k-means.", at_least=2, read_by="method=leave_cluster"
    )
    cluster_by: str = setting(
        "composition",
        "What is clustered: means and deviations of elemental properties, or means of "
        "graph.site_features.",
        choices=("composition", "site_features"),
        read_by="method=leave_cluster",
    )
    tail: str = setting(
        "high",
        "Whether the largest or the smallest values test.",
        choices=("high", "low"),
        read_by="method=target_tail",
    )
    file: str | None = setting(
        None,
        "JSON file with a list of ids per part.",
        null="none",
        is_path=True,
        by_name=True,
        read_by="method=file",
    )


@dataclass(slots=True)
class DatasetSettings:
    """Describe structures and their targets."""

    # resume compares the content
    path: str = setting(
        MISSING,
        "Data file, folder of structure files, or folder of built graphs.",
        resumable=True,
        is_path=True,
        by_name=True,
    )
    targets: list[str] | None = setting(
        None, "Columns to predict.", null="the only column that can be one", verbatim=True
    )
    units: dict[str, str] = setting(
        {}, "Units of the targets, by column.", effect="execution", verbatim=True
    )
    derived: dict[str, str] = setting(
        {},
        "New columns computed from others, such as is_metal: band_gap == 0 (0 and 1) or "
        "log_k: log10(modulus).",
        verbatim=True,
    )
    transform: dict[str, str] = setting(
        {},
        "Function of a target that is trained; predictions are in the unit of the target.",
        choices=("none", "log10", "log", "log1p", "sqrt"),
    )
    grid: dict[str, Any] = setting(
        {},
        "Grid of a target whose value is a list of numbers, such as a spectrum: start:stop:step, "
        "or a list of increasing numbers.",
    )
    grid_units: dict[str, str] = setting(
        {}, "Units of the grids, by target.", effect="execution", verbatim=True
    )
    grid_loss: dict[str, str] = setting(
        {},
        "What the loss compares of a target with a grid. points: the values at the points; "
        "cumulative: their integrals from the start of the grid to each point.",
        choices=("points", "cumulative"),
    )
    delta: str | None = setting(
        None,
        "Reference that is subtracted from the targets before training, and added to "
        "predictions. composition: a ridge regression on the composition, fitted on the training "
        "rows; with dataset.transform, of the transformed targets. Else a column of numbers, "
        "which predictions need, too.",
        null="nothing",
        verbatim=True,
    )
    inputs: list[str] | None = setting(
        None,
        "Columns that the network reads beside the structure: numbers, or text for categories. "
        "Predictions need them, too; see model.inputs.",
        null="none",
        verbatim=True,
    )
    fidelities: dict[str, str] = setting(
        {},
        "Columns that hold the target by several methods, by name of the method: {gga: gap_gga, "
        "hse: gap_hse}. Each value is a row, and the name is an input, `fidelity`.",
        verbatim=True,
    )
    fidelity: str | None = setting(
        None,
        "Column with the name of the method of each record: an input with metrics for each name.",
        null="none",
        verbatim=True,
    )
    labels: dict[str, str] = setting(
        {},
        "Names of the targets in figures and messages, by column.",
        effect="execution",
        verbatim=True,
    )
    tasks: dict[str, str] = setting(
        {},
        "Task of a target, where it is not regression.",
        choices=("regression", "classification"),
    )
    task_weights: dict[str, float] = setting(
        {}, "Weights of the targets in the loss, 1 where not given.", above=0
    )
    class_weights: str | None = setting(
        None,
        "balanced: weight the classes by their inverse frequency in the training rows.",
        choices=("balanced",),
        read_by="tasks=classification",
        null="equal weights",
    )
    weight_column: str | None = setting(
        None,
        "Column of weights of the rows in the training loss, at least 0; metrics are not weighted.",
        null="equal weights",
        verbatim=True,
    )
    split: SplitSettings = field(default_factory=SplitSettings)
    id_column: str | None = setting(
        None, "Column of the ids.", null="material_id, jid, mbid or id", verbatim=True
    )
    structure_column: str | None = setting(
        None,
        "Column of the structures.",
        null="crystal_structure, structure or atoms",
        verbatim=True,
    )
    columns: list[str] | None = setting(
        None,
        "Names of the columns of a csv table without a header; of id_prop.csv, those behind "
        "the id.",
        null="the header, or target, target_2, ...",
        verbatim=True,
    )
    on_error: str = setting(
        "raise",
        "raise: an unusable record, or one that repeats an id, aborts the run; skip: it is "
        "left out and listed in rejected.csv.",
        choices=("raise", "skip"),
    )
    max_rejected: float = setting(
        0.05,
        "Fraction of records that on_error=skip may leave out, besides those without label.",
        at_least=0,
        at_most=1,
        read_by="on_error=skip",
    )
    formula_mismatch: str = setting(
        "refuse",
        "refuse: a crystal whose elements have other ratios than the formula in its file is "
        "unusable; warn: it is used, with a warning.",
        choices=("refuse", "warn"),
    )
    prototypes: bool = setting(
        False,
        "Add the column `prototype`; split.method=leave_prototype does so by itself.",
    )
    cache_dir: str | None = setting(
        None,
        "Folder of cached graphs.",
        null="$CSGCNN_CACHE, or csgcnn in the cache folder of the user",
        effect="execution",
        is_path=True,
    )
    hint: str = setting("", "Advice that is printed if the data are missing.", effect="execution")
