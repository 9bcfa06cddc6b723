"""Usage, notes and examples of the commands that have a configuration."""

from typing import NamedTuple


class Usage(NamedTuple):
    """What the help of a command says beside its groups and keys.

    Attributes:
        summary: One sentence.
        usage: The command line.
        examples: Commands, one per line.
        notes: Further lines.
    """

    summary: str
    usage: str
    examples: str
    notes: str = ""


USAGES = {
    "train": Usage(
        "train a crystal graph neural network; a new folder of runs/ holds the results",
        "csgcnn train [group=option ...] [key=value ...] [--multirun] [--cfg job]\n"
        "                    [--config-dir DIR]",
        """\
csgcnn train hydra.run.dir=runs/first
csgcnn train recipe=accurate dataset=elastic ensemble=5
csgcnn train edge=rbf edge.n_basis=64 dataset=formation_energy
csgcnn train 'node_features=[atom_init,learned]' trainer.max_epochs=300
csgcnn train dataset=cif_folder dataset.path=my_cifs
csgcnn train init_from=runs/first trainer.layer_decay=0.8
csgcnn train resume=runs/first
csgcnn train dataset=formation_energy 'dataset.targets=[is_stable]' \\
    'dataset.derived.is_stable=e_above_hull <= 0' \\
    dataset.tasks.is_stable=classification dataset.class_weights=balanced
csgcnn train --multirun edge=gaussian,rbf node_features=atom_init,onehot
csgcnn train --multirun seed=0,1,2 hydra.sweep.dir=sweeps/seeds
csgcnn train --multirun hparams=csgcnn dataset=elastic \\
    hydra.sweep.dir=sweeps/search""",
    ),
    "benchmark": Usage(
        "train on the official folds of a public task and compare the mean with published models, "
        "or cross-validate your own data",
        "csgcnn benchmark task=OPTION [recipe=OPTION] [folds=[0,1,...]]\n"
        "       csgcnn benchmark folds=N [repeats=N] dataset=OPTION\n"
        "                        [group=option ...] [key=value ...]",
        """\
csgcnn benchmark task=matbench_perovskites recipe=accurate
csgcnn benchmark task=matbench_perovskites folds=[0,1] trainer.max_minutes=30
csgcnn benchmark task=matbench_mp_gap recipe=accurate seed=1
csgcnn benchmark folds=5 repeats=2 dataset=elastic
csgcnn benchmark task=matbench_dielectric model=csgann edge=rbf \\
    dataset.path=matbench_dielectric.json.gz""",
        """\
Each fold is a run in runs/TASK/RECIPE/fold-N (with a hash where other overrides
change the result). A tenth of the training rows (dataset.split.val) selects the
epoch; the test rows are used once. Rerun the same command to resume; finished
folds stay. The mean is written when all folds are done:

  summary.md, summary.json   folds, mean ± standard deviation, baselines and
                             published models
  results.json.gz            record that Matbench reads, for the official data

Without a task, folds=N tests each of N equal parts of your own data once, and
repeats=N divides the data N times (runs/cross-validation/DATASET/RECIPE).

All overrides of csgcnn train are accepted. Data files are looked for in the
working directory and in $CSGCNN_DATA.""",
    ),
    "learning-curve": Usage(
        "train with growing parts of the training rows and extrapolate the test error to more data",
        "csgcnn learning-curve [sizes=[50,100,all]] [repeats=3] dataset=OPTION\n"
        "                             [group=option ...] [key=value ...]",
        """\
csgcnn learning-curve dataset=dielectric
csgcnn learning-curve dataset=dielectric 'sizes=[25,50,100,200,400,all]' \\
    trainer.max_epochs=60
csgcnn learning-curve dataset=elastic 'sizes=[100,200,all]' repeats=5""",
        """\
Each run is in runs/learning-curve/DATASET/RECIPE/repeat-R/size-N (with a hash
where other overrides change the result). Rerun the same command to resume, with
other sizes or more repeats to add runs; finished runs stay. Repeat R adds R to
dataset.split.seed and R * ensemble to seed. Within a repeat, the rows of a size
contain those of the smaller sizes, and the validation and test rows are the
same.

  summary.md, summary.json   errors, power law and extrapolated errors
  error_by_size.csv, .png    error of each run, and the figure

All overrides of csgcnn train are accepted.""",
    ),
    "predict": Usage(
        "predict properties of structures with a trained model, into a table",
        "csgcnn predict ckpt=PATH structures=PATH [output=predictions.csv]\n"
        "                      [key=value ...]",
        """\
csgcnn predict ckpt=runs/first/checkpoints/best.ckpt structures=my_cifs
csgcnn predict ckpt=best.ckpt 'structures=Ca(OH)2.cif' output=hydroxide.csv
csgcnn predict ckpt=best.ckpt 'structures=my_cifs/*.cif' resume=true \\
    on_error=skip output=gaps.parquet
csgcnn predict 'ckpt=sweeps/seeds/*/checkpoints/best.ckpt' \\
    structures=my_cifs output=small_gaps.csv \\
    where='band_gap < 1.5 and band_gap_std < 0.2'
csgcnn predict ckpt=best.ckpt structures=my_cifs top=100 \\
    by=band_gap order=lowest output=lowest.csv""",
        """\
Several checkpoints, as a list or a pattern, are an ensemble: mean and standard
deviation (n - 1). where and top name columns as in the table, without units.
An existing table is refused unless overwrite=true or resume=true is given.""",
    ),
    "embed": Usage(
        "write the vector of each crystal that the head of a model reads, and a map of them",
        "csgcnn embed ckpt=PATH structures=PATH [output=embeddings.npz]\n"
        "                    [map=pca|tsne|umap] [sites=true] [key=value ...]",
        """\
csgcnn embed ckpt=best.ckpt structures=my_cifs output=vectors.npz
csgcnn embed ckpt=best.ckpt structures=my_cifs sites=true map=pca \\
    output=vectors.parquet""",
        """\
Of an ensemble, the first member embeds. The arrays or columns nearest_id,
nearest_distance and nearest_percentile compare with the training crystals.""",
    ),
    "explain": Usage(
        "explain predictions by what the sites, elements and edges of structures contribute",
        "csgcnn explain ckpt=PATH structures=PATH [output=explanation]\n"
        "                      [key=value ...]",
        """\
csgcnn explain ckpt=runs/first structures=my_cifs
csgcnn explain ckpt=best.ckpt 'structures=Ca(OH)2.cif' output=hydroxide \\
    format=parquet""",
        """\
The contributions of the sites and of the global features add up to the
prediction minus that of the reference. Needs pooling=mean or sum, and head=mlp.""",
    ),
    "select": Usage(
        "choose the structures to compute or measure next",
        "csgcnn select ckpt=PATH structures=PATH [n=10] [by=uncertainty]\n"
        "                     [goal=max|min|NUMBER] [key=value ...]",
        """\
csgcnn select 'ckpt=sweeps/seeds/*/checkpoints/best.ckpt' \\
    structures=my_cifs n=2
csgcnn select 'ckpt=sweeps/seeds/*/checkpoints/best.ckpt' \\
    structures=my_cifs n=2 by=ucb goal=max output=highest.csv
csgcnn select ckpt=best.ckpt structures=my_cifs n=2 by=diverse \\
    output=diverse.csv""",
        """\
Training crystals are left out. All rules but by=diverse need a model that
predicts standard deviations.""",
    ),
    "evaluate": Usage(
        "measure a trained model on a data set with known targets",
        "csgcnn evaluate ckpt=PATH dataset=OPTION [split=train|val|test]\n"
        "                       [key=value ...]",
        """\
csgcnn evaluate ckpt=best.ckpt dataset=dielectric split=test
csgcnn evaluate ckpt=best.ckpt dataset=cif_folder dataset.path=my_cifs \\
    output=errors""",
    ),
    "describe": Usage(
        "report what a data set holds and what to check before training",
        "csgcnn describe dataset=OPTION [output=report.json] [key=value ...]",
        """\
csgcnn describe dataset=dielectric
csgcnn describe dataset.path=my_cifs output=report.json
csgcnn describe dataset=dielectric output=dielectric.html
csgcnn describe dataset=elastic 'dataset.targets=[log10_k_vrh,log10_g_vrh]' \\
    output=findings.csv max_difference=0.5""",
        """\
Without dataset.targets, all columns of numbers are described. Rejected records
are part of the report.""",
    ),
    "build": Usage(
        "build the graphs of a data set once, into a folder to train on or to predict from",
        "csgcnn build dataset=OPTION output=FOLDER [graph.KEY=VALUE ...]\n"
        "                    [key=value ...]",
        """\
csgcnn build dataset=matbench dataset.path=matbench_mp_gap.json.gz \\
    output=gap.graphs
csgcnn train dataset=matbench dataset.path=gap.graphs \\
    'dataset.targets=[gap pbe]'
csgcnn build dataset.path=my_cifs/ dataset.on_error=skip \\
    output=candidates.graphs
csgcnn predict ckpt=best.ckpt structures=candidates.graphs \\
    output=candidates.csv""",
        """\
csgcnn train builds and caches graphs itself. Use csgcnn build for large data
sets, before the jobs of a cluster start, and for structures without targets:
dataset.path may be a folder of structure files without id_prop.csv. Rerun the
same command to resume.""",
    ),
}
