import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

Command = Callable[..., Any]
Leaderboard = Callable[..., list[dict[str, str]]]


@pytest.fixture
def leaderboard(csgcnn: Command, small: list[str], tmp_path: Path) -> Leaderboard:
    """Train an experiment on sixty crystals for an epoch, and read the table of its runs."""

    def train(experiment: str, *words: str) -> list[dict[str, str]]:
        quick = [*small, "trainer.max_epochs=1", "trainer.progress=false"]
        quick.append("trainer.figures=false")
        answer = csgcnn("train", f"experiment={experiment}", *quick, *words, cwd=tmp_path)
        assert answer.code == 0, answer.said
        (sweep,) = tmp_path.glob("sweeps/*/*")
        answer = csgcnn("table", str(sweep), cwd=tmp_path)
        assert answer.code == 0, answer.said
        assert answer.err == ""
        with open(sweep / "table.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return train


@pytest.mark.slow
def test_every_row_of_the_halide_table(leaderboard: Leaderboard, tmp_path: Path) -> None:
    rows = leaderboard("notes_halide", "seed=0,1")
    assert Counter(
        (row["model"], row["edge_calculator"], row["node_features"], row["runs"]) for row in rows
    ) == Counter(
        [
            ("csgcnn", "gaussian", "atom_init*", "2"),
            ("csgcnn", "rbf", "atom_init*", "2"),
            ("csgcnn", "gaussian", "onehot*", "2"),
            ("csgcnn", "gaussian", "bits*", "2"),
        ]
    )
    for path in tmp_path.glob("sweeps/*/*/*/config.yaml"):
        config = OmegaConf.load(path)
        assert config.dataset.split.seed == config.seed
        assert (config.loss.mse, config.loss.l1, config.loss.huber) == (0.4, 0.4, 0.2)


@pytest.mark.slow
def test_every_row_of_the_10k_table(leaderboard: Leaderboard) -> None:
    rows = leaderboard("notes_10k")
    assert {row["model"] for row in rows} == {"csgcnn", "csgann", "csginn"}
    assert {(row["edge_calculator"], row["node_features"], row["runs"]) for row in rows} == {
        ("gaussian", "atom_init*", "3")
    }


def test_a_row_of_the_notes_split_by_a_column(leaderboard: Leaderboard) -> None:
    column = ["dataset.split.method=group", "dataset.split.column=formula"]
    (row,) = leaderboard("notes_halide", "notes=csgcnn_gaussian_bits", "seed=0", *column)
    assert (row["split"], row["node_features"], row["runs"]) == ("group (formula)", "bits*", "1")


def test_a_row_of_the_notes_alone(csgcnn: Command, tmp_path: Path) -> None:
    answer = csgcnn("train", "--cfg", "job", "notes=csgcnn_rbf_atom_init", cwd=tmp_path)
    assert answer.code == 0, answer.said
    config = OmegaConf.create(answer.out)
    assert config.edge_calculator["_target_"].endswith("RadialBasis")
    assert config.node_features.atom_init.trainable
