"""Keys of the section `dataset`: structures, targets and their split."""

from dataclasses import dataclass, field
from typing import Annotated

from csgcnn.config.settings.setting import MAX_SEED, MISSING, Setting

SPLIT_METHODS = ("random", "group", "column", "fold", "matbench", "kfold", "file")


@dataclass(slots=True)
class SplitSettings:
    """Describe how the rows are divided into train, val and test.

    The column `composition` always exists: unless the data have a column of that name, it is the
    reduced formula of each crystal.
    """

    method: Annotated[
        str,
        Setting(
            "random: by fractions; group: likewise, rows with one value of `column` stay together; "
            "column: `column` holds train, val or test; fold: rows whose `column` equals `fold` "
            "test; matbench: the official folds; kfold: the rows of fold `fold` of `folds` equal "
            "ones test; file: ids per part.",
            choices=SPLIT_METHODS,
        ),
    ] = "random"
    train: Annotated[
        float,
        Setting("Fraction of training rows.", above=0, at_most=1, read_by="method=random,group"),
    ] = 0.8
    val: Annotated[
        float,
        Setting(
            "Fraction of validation rows; 0: none, the last epoch is kept.",
            at_least=0,
            below=1,
            read_by="method=random,group,fold,matbench,kfold",
        ),
    ] = 0.1
    test: Annotated[
        float,
        Setting(
            "Fraction of test rows; 0: none.", at_least=0, below=1, read_by="method=random,group"
        ),
    ] = 0.1
    seed: Annotated[
        int,
        Setting(
            "Seed of the split.",
            at_least=0,
            at_most=MAX_SEED,
            effect="seed",
            read_by="method=random,group,fold,matbench,kfold",
        ),
    ] = 0
    stratify: Annotated[
        str | None,
        Setting(
            "Column whose values get the same shares in every part (random) or fold (matbench, "
            "kfold).",
            null="none",
            read_by="method=random,matbench,kfold",
            verbatim=True,
        ),
    ] = None
    duplicates: Annotated[
        str,
        Setting(
            "together: equal crystals stay in one part; those of a test fold are left out of the "
            "other parts. ignore: they are split like other rows.",
            choices=("ignore", "together"),
        ),
    ] = "ignore"
    column: Annotated[
        str | None,
        Setting(
            "Column of the group, the part or the fold.",
            null="none",
            read_by="method=group,column,fold",
            verbatim=True,
        ),
    ] = None
    fold: Annotated[
        int,
        Setting(
            "Fold whose rows are the test part, from 0.",
            at_least=0,
            read_by="method=fold,matbench,kfold",
        ),
    ] = 0
    folds: Annotated[
        int, Setting("Number of folds of kfold.", at_least=2, read_by="method=kfold")
    ] = 5
    repeats: Annotated[
        int,
        Setting(
            "Times that kfold divides the rows; fold numbers continue: `fold` is below "
            "folds * repeats.",
            at_least=1,
            read_by="method=kfold",
        ),
    ] = 1
    file: Annotated[
        str | None,
        Setting(
            "JSON file with a list of ids per part.",
            null="none",
            is_path=True,
            by_name=True,
            read_by="method=file",
        ),
    ] = None


@dataclass(slots=True)
class DatasetSettings:
    """Describe structures and their targets."""

    path: Annotated[
        str,
        Setting(
            "Data file, folder of structure files, or folder of built graphs.",
            # resume compares the content
            resumable=True,
            is_path=True,
            by_name=True,
        ),
    ] = MISSING
    targets: Annotated[
        list[str] | None,
        Setting("Columns to predict.", null="the only column that can be one", verbatim=True),
    ] = None
    units: Annotated[
        dict[str, str],
        Setting("Units of the targets, by column.", effect="execution", verbatim=True),
    ] = field(default_factory=dict)
    derived: Annotated[
        dict[str, str],
        Setting(
            "New columns computed from others, such as is_metal: band_gap == 0 (0 and 1) or "
            "log_k: log10(modulus).",
            verbatim=True,
        ),
    ] = field(default_factory=dict)
    transform: Annotated[
        dict[str, str],
        Setting(
            "Function of a target that is trained; predictions are in the unit of the target.",
            choices=("none", "log10", "log", "log1p", "sqrt"),
        ),
    ] = field(default_factory=dict)
    labels: Annotated[
        dict[str, str],
        Setting(
            "Names of the targets in figures and messages, by column.",
            effect="execution",
            verbatim=True,
        ),
    ] = field(default_factory=dict)
    tasks: Annotated[
        dict[str, str],
        Setting(
            "Task of a target, where it is not regression.",
            choices=("regression", "classification"),
        ),
    ] = field(default_factory=dict)
    task_weights: Annotated[
        dict[str, float], Setting("Weights of the targets in the loss, 1 where not given.", above=0)
    ] = field(default_factory=dict)
    class_weights: Annotated[
        str | None,
        Setting(
            "balanced: weight the classes by their inverse frequency in the training rows.",
            choices=("balanced",),
            read_by="tasks=classification",
            null="equal weights",
        ),
    ] = None
    weight_column: Annotated[
        str | None,
        Setting(
            "Column of weights of the rows in the training loss, at least 0; metrics are not "
            "weighted.",
            null="equal weights",
            verbatim=True,
        ),
    ] = None
    split: SplitSettings = field(default_factory=SplitSettings)
    id_column: Annotated[
        str | None,
        Setting("Column of the ids.", null="material_id, jid, mbid or id", verbatim=True),
    ] = None
    structure_column: Annotated[
        str | None,
        Setting(
            "Column of the structures.", null="crystal_structure, structure or atoms", verbatim=True
        ),
    ] = None
    columns: Annotated[
        list[str] | None,
        Setting(
            "Names of the columns of a csv table without a header; of id_prop.csv, those behind "
            "the id.",
            null="the header, or target, target_2, ...",
            verbatim=True,
        ),
    ] = None
    on_error: Annotated[
        str,
        Setting(
            "raise: an unusable record, or one that repeats an id, aborts the run; skip: it is "
            "left out and listed in rejected.csv.",
            choices=("raise", "skip"),
        ),
    ] = "raise"
    max_rejected: Annotated[
        float,
        Setting(
            "Fraction of records that on_error=skip may leave out, besides those without label.",
            at_least=0,
            at_most=1,
            read_by="on_error=skip",
        ),
    ] = 0.05
    formula_mismatch: Annotated[
        str,
        Setting(
            "refuse: a crystal whose elements have other ratios than the formula in its file is "
            "unusable; warn: it is used, with a warning.",
            choices=("refuse", "warn"),
        ),
    ] = "refuse"
    cache_dir: Annotated[
        str | None,
        Setting(
            "Folder of cached graphs.",
            null="$CSGCNN_CACHE, or csgcnn in the cache folder of the user",
            effect="execution",
            is_path=True,
        ),
    ] = None
    hint: Annotated[
        str, Setting("Advice that is printed if the data are missing.", effect="execution")
    ] = ""
