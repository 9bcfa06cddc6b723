"""Simulate active learning: the test error against the number of labels, for each rule.

python benchmarks/active_learning.py [--seeds 5] [--start 40] [--batch 40] [--rounds 5] [--out FILE]

A Gaussian process on the vectors of the pretrained network learns log10(K) of the set `elastic`
from a few random crystals. Each rule then chooses a batch among the others, whose labels are added,
and so on. All rules have the same start and the same test crystals; these are new for each seed.
"""

import argparse
import json
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

import csgcnn
from csgcnn.commands.arguments import compose_settings
from csgcnn.commands.build import build
from csgcnn.data.store import GraphStore, open_store
from csgcnn.runs.predictions import IN_TRAINING, TRUE
from csgcnn.screening.acquisition import Rule, choose
from csgcnn.screening.embedding import embed_chunks

TARGET = "log10_k_vrh"
TOP = 0.05  # fraction of the candidates that counts as the best ones
SETTINGS = {
    "init_from": "pretrained",
    "head": "gp",
    "dataset.targets": [TARGET],
    "dataset.split.method": "file",
    "trainer.max_epochs": 0,
    "trainer.figures": False,
    "trainer.threads": 1,
    "trainer.workers": 1,
    "trainer.device": "cpu",
}


def rules(best: float) -> dict[str, Rule | None]:
    """Return the rules by name; None is random."""
    return {
        "random": None,
        "uncertainty": Rule("uncertainty"),
        "diverse": Rule("diverse"),
        "ucb": Rule("ucb", goal="max"),
        "expected_improvement": Rule("expected_improvement", goal="max", best=best),
    }


def main() -> None:
    """Run the loops and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("seeds", 5), ("start", 40), ("batch", 40), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    curves: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with redirect_stdout(StringIO()):
            build(compose_settings("build", {"dataset": "elastic", "output": str(folder / "s")}))
        store = open_store(folder / "s").to("cpu")
        for seed in range(given.seeds):
            for name in rules(0.0):
                curve = simulate(store, name, seed, given, folder)
                curves.setdefault(name, []).append(curve)
                print(seed, name, *(f"{mae:.4f}/{found:.2f}" for mae, found in curve), flush=True)
                if given.out:
                    given.out.write_text(json.dumps(curves))
    print_table({name: np.array(found) for name, found in curves.items()}, given)


def simulate(
    store: GraphStore, name: str, seed: int, given: argparse.Namespace, folder: Path
) -> list[tuple[float, float]]:
    """Return test MAE and the fraction of the best candidates that is known, after each round."""
    rng = np.random.default_rng(seed)
    labels = np.array(store.columns[TARGET], float)
    order = rng.permutation(len(store))
    test, pool = order[: len(order) // 5], order[len(order) // 5 :]
    best = set(pool[labels[pool].argsort()[-int(TOP * len(pool)) :]].tolist())
    known, curve = pool[: given.start].tolist(), list[tuple[float, float]]()
    for step in range(given.rounds + 1):
        model = trained(store, known, test, folder)
        embedding = embed_chunks(model, [(store, [], [])])
        row_of = {id_: row for row, id_ in enumerate(store.ids)}
        at = [row_of[id_] for id_ in embedding.ids]
        error = np.abs(embedding.prediction.values[:, 0] - labels[at])
        is_test = np.isin(at, test)
        curve.append((float(error[is_test].mean()), len(best & set(known)) / len(best)))
        if step == given.rounds:
            break
        if rule := rules(labels[known].max())[name]:
            # test crystals, and known ones whose twins are not, are no candidates
            for i in np.flatnonzero(is_test | np.isin(at, known)):
                embedding.prediction.domain[IN_TRAINING][i] = TRUE
            known += [at[one.row] for one in choose(model, embedding, given.batch, rule)]
        else:
            known += [row for row in pool.tolist() if row not in known][: given.batch]
    return curve


def trained(store: GraphStore, known: list[int], test: Any, folder: Path) -> csgcnn.Predictor:
    """Return a model that was trained on the known rows."""
    parts = {"train": known, "val": [], "test": test.tolist()}
    split = {part: [store.ids[row] for row in rows] for part, rows in parts.items()}
    (folder / "split.json").write_text(json.dumps(split))
    keys = {**SETTINGS, "dataset.split.file": str(folder / "split.json")}
    with tempfile.TemporaryDirectory(dir=folder) as run:
        result = csgcnn.train("elastic", folder=Path(run) / "run", verbose=False, **keys)
        return result.predictor


def print_table(curves: dict[str, Any], given: argparse.Namespace) -> None:
    """Print the last error and the areas under the curves, relative to random."""
    n_labels = given.start + given.batch * np.arange(given.rounds + 1)
    area = {
        name: np.trapezoid(found, n_labels, axis=1) / np.ptp(n_labels)
        for name, found in curves.items()
    }
    last = f"MAE with {n_labels[-1]} labels"
    print(f"| rule | {last} | area | minus random (95 %) | best found | minus random (95 %) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, found in curves.items():
        difference = area[name] - area["random"]  # [n_seeds, 2]
        n = len(difference)
        factor = student.ppf(0.975, n - 1) / n**0.5 if n > 1 else np.nan
        mean, width = difference.mean(0), factor * difference.std(0, ddof=min(1, n - 1))
        errors, best = (f"{m:+.4f} ± {w:.4f}" for m, w in zip(mean, width, strict=True))
        mae, share = found[:, -1].mean(0)
        of_area = area[name][:, 0].mean()
        print(f"| {name} | {mae:.4f} | {of_area:.4f} | {errors} | {share:.0%} | {best} |")


if __name__ == "__main__":
    main()
