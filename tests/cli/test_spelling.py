import subprocess
import sys

import pytest

from csgcnn.cli.spelling import check_spelling
from csgcnn.errors import ConfigError


@pytest.mark.parametrize(
    ("command", "override", "message"),
    [
        ("train", "modle=csgcnn", "there is no key modle; did you mean model?"),
        ("train", "max_epochs=3", "did you mean trainer.max_epochs?"),
        ("train", "trainer.max_epoch=3", "did you mean trainer.max_epochs?"),
        ("train", "dataset.split.sed=1", "did you mean dataset.split.seed?"),
        ("train", "model=csgcn", "model has no option 'csgcn'; .*did you mean csgcnn?"),
        ("train", "edge=rbff", "edge_calculator has no option 'rbff'; .*did you mean rbf?"),
        ("predict", "structurs=a.cif", "did you mean structures?"),
    ],
)
def test_misspelled_names_are_refused_with_the_nearest(
    command: str, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_spelling(command, ["seed=1" if command == "train" else "top=1", override])


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=csgcnn", "edge=rbf", "edge.n_basis=3", "global_features=density"],
        ["node_features=[atom_init,learned]", "trainer.max_epochs=3", "hydra.run.dir=run"],
        ["dataset.units.band_gap=eV", "dataset.derived.is_metal=band_gap == 0"],
        ["+hydra.job.env_set.A=1", "~trainer@other", "hydra/launcher=joblib"],
        ["--config-dir", "mine", "model=mine", "foo=1"],
        ["hydra.searchpath=[file://mine]", "model=mine"],
        ["--multirun", "model=csgcnn,csgann", "node_features.atom_init.trainable=true"],
        ["graph.vectors=true", "augment=coordinate_noise", "experiment=notes_halide"],
    ],
)
def test_names_that_exist_or_that_hydra_judges_are_accepted(arguments: list[str]) -> None:
    check_spelling("train", arguments)


def test_a_misspelled_name_is_found_without_hydra() -> None:
    code = (
        "import sys; from csgcnn.cli.main import main; code = main(['train', 'modle=a']);"
        "sys.exit(code if not {'hydra', 'torch'} & sys.modules.keys() else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 2
