"""Unusual data sets train from end to end with finite results, or are refused with the reason."""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from csgcnn.runs.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("without_figures")

Command = Callable[..., Any]
Table = Callable[[Path], list[dict[str, str]]]
Record = dict[str, Any]
MODELS = ["csgcnn", "csgann", "csginn"]
GAP = "band_gap [eV]"
TINY = [
    *("dataset.path=data.json", "hydra.run.dir=run"),
    *("trainer.max_epochs=2", "trainer.batch_size=16"),
    *("model.hidden=8", "model.head_hidden=8", "model.n_convolutions=1"),
    *("dataset.split.method=column", "dataset.split.column=part"),
]
BOTH = ["dataset.targets=[band_gap,kind]", "dataset.tasks.kind=classification"]


def divided(records: list[Record], n_train: int, n_val: int, n_test: int) -> list[Record]:
    """The first records with the column `part`: those of train, then val, then test."""
    parts = ["train"] * n_train + ["val"] * n_val + ["test"] * n_test
    return [record | {"part": part} for record, part in zip(deepcopy(records), parts, strict=False)]


@pytest.fixture
def trained(csgcnn: Command, table: Table, tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """Train on records and check that all numbers that were written are finite."""

    def train(records: list[Record], *overrides: str, folder: str = "") -> tuple[Path, Any]:
        home = tmp_path / folder
        home.mkdir(exist_ok=True)
        (home / "data.json").write_text(json.dumps(records))
        answer = csgcnn("train", *TINY, *overrides, cwd=home)
        assert answer.code == 0, answer.said
        assert "nan" not in (home / "run" / "predictions.csv").read_text()
        json.loads((home / "run" / "metrics.json").read_text(), parse_constant=pytest.fail)
        epochs = table(home / "run" / "metrics.csv")
        assert all(math.isfinite(float(cell)) for row in epochs for cell in row.values() if cell)
        assert all(row["train_loss"] and row["val_loss"] for row in epochs)
        for row in table(home / "run" / "predictions.csv"):
            columns = [name for name in row if "_prediction" in name or "_probability_" in name]
            predicted = [float(row[name]) for name in columns if name != "kind_prediction"]
            assert predicted
            assert all(map(math.isfinite, predicted))
        return home / "run", answer

    return train


@pytest.fixture
def predicted(csgcnn: Command, table: Table, tmp_path: Path) -> Callable[[], dict[str, float]]:
    """Predict the gap of each training record with the checkpoint alone."""

    def predict() -> dict[str, float]:
        overrides = ["ckpt=run/checkpoints/best.ckpt", "structures=data.json", "overwrite=true"]
        answer = csgcnn("predict", *overrides, "workers=1", "batch_size=3", cwd=tmp_path)
        assert answer.code == 0, answer.said
        return {row["id"]: float(row[GAP]) for row in table(tmp_path / "predictions.csv")}

    return predict


@pytest.mark.parametrize(
    ("model", "sizes", "batch_size"),
    [
        ("csgcnn", (5, 1, 1), 1),
        ("csgann", (2, 1, 1), 16),
        ("csginn", (17, 1, 1), 16),
        ("csgcnn", (20, 3, 1), 100_000),
    ],
    ids=["batches of one", "two crystals", "last batch of one", "batch larger than the data"],
)
def test_few_crystals_train(
    model: str,
    sizes: tuple[int, int, int],
    batch_size: int,
    records: list[Record],
    trained: Callable[..., Any],
) -> None:
    run, _ = trained(divided(records, *sizes), f"model={model}", f"trainer.batch_size={batch_size}")
    metrics = json.loads((run / "metrics.json").read_text())
    assert tuple(metrics["n_rows"].values()) == sizes
    assert metrics["test"]["band_gap"]["n"] == 1
    assert metrics["test"]["band_gap"]["r2"] is None
    assert metrics["test"]["band_gap"]["mae"] > 0


def cube(edge: float, species: list[str], frac_coords: list[tuple[float, ...]]) -> dict[str, Any]:
    return {
        "lattice": [[edge, 0, 0], [0, edge, 0], [0, 0, edge]],
        "species": species,
        "frac_coords": frac_coords,
    }


def large(seed: int) -> dict[str, Any]:
    """400 atoms without symmetry."""
    draw = Random(seed)
    sites = [
        tuple((i + draw.uniform(-0.1, 0.1)) / 8 for i in site)
        for site in product(range(8), repeat=3)
    ][:400]
    return cube(20.0, [draw.choice(["Fe", "O"]) for _ in sites], sites)


def one_atom(edge: float, element: str = "Fe") -> dict[str, Any]:
    return cube(edge, [element], [(0, 0, 0)])


def with_gaps(structures: list[dict[str, Any]]) -> list[Record]:
    return [
        {"material_id": f"odd-{i}", "band_gap": 0.5 + i % 5, "crystal_structure": crystal}
        for i, crystal in enumerate(structures)
    ]


@pytest.mark.parametrize("model", MODELS)
def test_cells_of_one_and_of_400_atoms_and_isolated_ones(
    model: str, trained: Callable[..., Any], predicted: Callable[[], dict[str, float]], table: Table
) -> None:
    apart = [one_atom(9.0), cube(30.0, ["Fe", "O"], [(0, 0, 0), (0.5, 0.5, 0.5)])]
    small = [one_atom(2.5 + 0.1 * i) for i in range(6)]
    odd = with_gaps([large(0), *small, *apart, large(1), one_atom(3.3), apart[0], large(2)])
    run, answer = trained(
        divided(odd, 9, 2, 2),
        f"model={model}",
        "pooling=set2set",
        "edge=rbf",
        "edge.learnable=true",
    )
    assert "3 structures: atoms without a neighbor within the cutoff (odd-7, odd-8, " in answer.said
    alone = predicted()
    assert len(alone) == 13
    for row in table(run / "predictions.csv"):
        assert float(row["band_gap_prediction [eV]"]) == pytest.approx(alone[row["id"]], rel=1e-4)
    assert alone["odd-7"] == pytest.approx(alone["odd-11"], rel=1e-5), "the same crystal"


def test_nothing_but_isolated_atoms(
    trained: Callable[..., Any], predicted: Callable[[], dict[str, float]]
) -> None:
    odd = with_gaps([one_atom(9 + 0.1 * i, ["Fe", "O"][i % 2]) for i in range(10)])
    # The softmax of CSGANN is over the neighbors.
    trained(divided(odd, 6, 2, 2), "model=csgann", "global_features=none")
    alone = list(predicted().values())
    assert max(alone[::2]) - min(alone[::2]) < 1e-4, "only the element is known of such a crystal"
    assert alone[0] != alone[1]


def test_one_element_in_cubic_cells_trains(trained: Callable[..., Any]) -> None:
    odd = with_gaps([one_atom(2.5 + 0.1 * i) for i in range(10)])
    overrides = ["node_features=elemental", "global_features=[lattice,symmetry,composition]"]
    run, _ = trained(divided(odd, 6, 2, 2), *overrides)
    assert load_checkpoint(run / "checkpoints" / "best.ckpt")["elements"] == [26]


@pytest.mark.slow
def test_training_does_not_depend_on_the_unit_of_the_target(
    records: list[Record], trained: Callable[..., Any], table: Table
) -> None:
    states, losses, errors = {}, {}, {}
    # Factors 1, 9e-13 and 1.3e30.
    for power in (0, -40, 100):
        scaled = [record | {"band_gap": record["band_gap"] * 2.0**power} for record in records]
        run, _ = trained(divided(scaled, 20, 4, 4), folder=str(power))
        states[power] = load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
        losses[power] = [(row["train_loss"], row["val_loss"]) for row in table(run / "metrics.csv")]
        errors[power] = [
            float(row["band_gap_error [eV]"]) / 2.0**power for row in table(run / "predictions.csv")
        ]
    for power in (-40, 100):
        assert losses[power] == losses[0]
        assert errors[power] == pytest.approx(errors[0], rel=1e-5)
        names = [name for name in states[0] if not name.startswith("scaler")]
        assert all(torch.equal(states[power][name], states[0][name]) for name in names)


@pytest.mark.slow
def test_values_of_many_magnitudes_and_an_outlier_train(
    records: list[Record], trained: Callable[..., Any], table: Table
) -> None:
    magnitudes = [1e-12, 1e12, 1e30]
    odd = [
        record | {"mixed": record["band_gap"] * magnitudes[i % 3]}
        for i, record in enumerate(records)
    ]
    odd[3]["band_gap"] = 1e6
    run, _ = trained(divided(odd, 20, 4, 4), "dataset.targets=[band_gap,mixed]")
    scaler = load_checkpoint(run / "checkpoints" / "best.ckpt")["state_dict"]["scaler.std"]
    for std, name in zip(scaler.tolist(), ("band_gap", "mixed"), strict=True):
        values = torch.tensor([record[name] for record in odd[:20]], dtype=torch.float64)
        assert std == pytest.approx(values.std(correction=0).item(), rel=1e-5)


def test_counts_and_booleans_are_regression_targets(
    records: list[Record], trained: Callable[..., Any], table: Table
) -> None:
    odd = [record | {"n_sites": len(record["crystal_structure"]["species"])} for record in records]
    odd = [record | {"is_wide": record["band_gap"] > 2} for record in odd]
    run, _ = trained(divided(odd, 20, 4, 4), "dataset.targets=[n_sites,is_wide]")
    for row in table(run / "predictions.csv"):
        assert float(row["n_sites"]).is_integer()
        assert row["is_wide"] in ("0", "1")


def test_a_target_without_labels_in_val_and_a_class_only_in_test(
    records: list[Record], trained: Callable[..., Any], table: Table
) -> None:
    odd = divided([record | {"kind": "ab"[i % 2]} for i, record in enumerate(records)], 24, 6, 6)
    for i, record in enumerate(odd):
        record["band_gap"] = None if record["part"] == "val" or i % 7 == 3 else record["band_gap"]
        record["kind"] = "c" if i >= 33 else None if i < 24 and i % 5 == 1 else record["kind"]
    run, _ = trained(
        odd, *BOTH, "dataset.class_weights=balanced", "trainer.learn_task_weights=true"
    )
    metrics = json.loads((run / "metrics.json").read_text())
    nothing = {"mae": None, "rmse": None, "r2": None, "n": 0, "n_out_of_domain": 0}
    assert metrics["val"]["band_gap"] == nothing
    assert metrics["val"]["kind"]["accuracy"] is not None
    assert metrics["best_epoch"] > 0
    assert {row["val_mae_band_gap"] for row in table(run / "metrics.csv")} == {""}
    rows = table(run / "predictions.csv")
    assert {row[GAP] for row in rows if row["split"] == "val"} == {""}
    assert "c" in {row["kind"] for row in rows if row["split"] == "test"}
    assert all("kind_probability_c" in row for row in rows)


def test_a_target_without_labels_in_test(
    records: list[Record], trained: Callable[..., Any]
) -> None:
    odd = divided([record | {"kind": "ab"[i % 2]} for i, record in enumerate(records)], 24, 6, 6)
    odd = [record | ({"kind": None} if record["part"] == "test" else {}) for record in odd]
    run, answer = trained(odd, *BOTH)
    assert "test kind: none of the crystals has a known value" in answer.said
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["test"]["kind"].values()) == {None, 0}
    assert metrics["baseline_test_accuracy"] == {"kind": None}


def equal_in(*parts: str) -> Callable[[Record], float]:
    return lambda record: 3.7 if record["part"] in parts else record["band_gap"]


REFUSED: dict[str, tuple[Callable[[Record], Any], tuple[int, int, int], list[str]]] = {
    "constant": (
        equal_in("train", "val", "test"),
        (20, 4, 4),
        ["band_gap is 3.7 in all training rows", "(20)"],
    ),
    "constant in train": (
        equal_in("train"),
        (20, 4, 4),
        ["band_gap is 3.7", "dataset.split", "nothing to learn"],
    ),
    "one crystal": (
        lambda record: record["band_gap"],
        (1, 2, 2),
        ["all training rows that have it (1)"],
    ),
    "seven digits": (
        lambda record: 1e6 + 1e-3 * record["band_gap"],
        (20, 4, 4),
        ["subtract a constant", "7 digits"],
    ),
    "too large": (
        lambda record: 1e38 * record["band_gap"],
        (20, 4, 4),
        ["band_gap", "at most 1e+37"],
    ),
    "too small": (lambda record: 1e-42 * record["band_gap"], (20, 4, 4), ["nothing to learn"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_targets_that_cannot_be_learned_are_refused(
    kind: str, csgcnn: Command, records: list[Record], tmp_path: Path
) -> None:
    change, sizes, causes = REFUSED[kind]
    odd = [record | {"band_gap": change(record)} for record in divided(records, *sizes)]
    (tmp_path / "data.json").write_text(json.dumps(odd))
    answer = csgcnn("train", *TINY, cwd=tmp_path)
    assert answer.code == 1, answer.said
    assert "Traceback" not in answer.said
    assert all(cause in answer.err for cause in causes), answer.err
