"""Advice in messages, followed as it is printed, gets past the refusal.

Not followed here, because the rest is missing: `pip install` (network), `device=cuda:0` and
`trainer.cuda_graphs=false` (a GPU), `trainer.workers=1` after a process was killed for lack of
memory, `LC_ALL=C.UTF-8` (a locale), changes of structure files (tests of their readers).
"""

import gzip
import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from answers import Answer

pytestmark = pytest.mark.usefixtures("without_figures")

Command = Callable[..., Answer]
DATA = Path(__file__).parents[2] / "data" / "dielectric.json.gz"
QUICK = "trainer.max_epochs=1 trainer.batch_size=8 model.hidden=8 trainer.figures=false"
MINE = "dataset.path=data.json dataset.targets=[gap]"
TRAIN = f"train {MINE} {QUICK}"
PREDICT = "predict ckpt=run structures=data.json workers=1"
EVALUATE = "evaluate ckpt=run dataset.path=data.json"
KIND = "dataset.targets=[kind] dataset.tasks.kind=classification"
PARTS = "dataset.split.method=column dataset.split.column=part"


class Case(NamedTuple):
    """A command that is refused, and what its message advises.

    Attributes:
        words: Words of the command, as in a shell; later overrides replace earlier ones.
        message: Pattern of the message; its group is the advice: "omit", or words of a command.
        filled: What stands for the placeholders of the advice.
        instead: Words that the advice replaces.
    """

    words: str
    message: str
    filled: Mapping[str, str] = MappingProxyType({})
    instead: str = ""


OMIT = r"(omit|Remove) "
OF_WORDS = [
    Case(f"{TRAIN} epochs=1", r"Write (trainer.max_epochs=1)", instead="epochs=1"),
    Case(f"{TRAIN} --epochs 1", r"write (trainer.max_epochs=1)", instead="--epochs 1"),
    Case(f"{TRAIN} lr=1e-3", r"Write (optimizer.lr=1e-3)", instead="lr=1e-3"),
    Case(
        f"{TRAIN} trainer.max_epoch=1",
        r"Write (trainer.max_epochs=1)",
        instead="trainer.max_epoch=1",
    ),
    Case(f"{TRAIN} model=csgan", r"did you mean (csgann)", {"csgann": "model=csgann"}),
    Case(f"{TRAIN} dataset.targets=gap", r"expected a list: (\S+)"),
    Case(f"{TRAIN} dataset.hint=a(b", r'("dataset.hint=\S+")'),
    Case(f"{TRAIN} seed=0,1", r"several values need (--multirun)"),
    Case(f"{TRAIN} --config-name mine", r"(--config-dir FOLDER) names", {"FOLDER": "."}),
    Case(f"{TRAIN} trainer.device=cuda:77", r"; use .*(cpu)", {"cpu": "trainer.device=cpu"}),
    Case(f"{TRAIN} hydra.sweep.dir=sweeps", r"without (--multirun)"),
    Case(f"{TRAIN} hydra.sweep.dir=sweeps", OMIT, instead="hydra.sweep.dir=sweeps"),
    Case(
        "train -sc install=bash",
        r"use csgcnn (--install-completion \S+)",
        {"[bash|zsh|fish]": "bash"},
    ),
    Case("--install-completion tcsh", r"expected (bash),", instead="tcsh"),
    Case(
        f"{TRAIN} --multirun seed=0,1 hydra.run.dir=a",
        r"write (hydra.sweep.dir=FOLDER)",
        {"FOLDER": "a"},
        "hydra.run.dir=a",
    ),
]
OF_THE_SPLIT = [
    Case(f"{TRAIN} dataset.split.file=split.json", r"needs (dataset.split.method=file)"),
    Case(f"{TRAIN} dataset.split.method=file", r": (dataset.split.file=…)", {"…": "split.json"}),
    Case(f"{TRAIN} dataset.split.method=column", r": (dataset.split.column=…)", {"…": "part"}),
    Case(f"{TRAIN} dataset.split.folds=4", r"needs (dataset.split.method=kfold)"),
    Case(f"{TRAIN} dataset.split.val=0.01", r"none with (dataset.split.val=0),"),
    Case(
        f"{TRAIN} dataset.split.method=kfold dataset.split.val=0.01",
        r"or ask for none with (dataset.split.val=0)\n",
    ),
    Case(
        f"{TRAIN} dataset.split.test=0.01",
        r"omit the fractions and .* with (dataset.split.method=kfold)",
        instead="dataset.split.test=0.01",
    ),
    Case(f"{TRAIN} dataset.split.val=0 trainer.patience=2", r"give (dataset.split.val=0.1)"),
    Case(f"{TRAIN} dataset.split.val=0 trainer.patience=2", OMIT, instead="trainer.patience=2"),
    Case(
        f"{TRAIN} {PARTS} dataset.split.duplicates=together",
        OMIT,
        instead="dataset.split.duplicates=together",
    ),
]
OF_THE_DATA = [
    Case(f"{TRAIN} dataset.path=bad.json", r"them with (dataset.on_error=skip)"),
    Case(f"{TRAIN} dataset.max_rejected=0.1", r"needs (dataset.on_error=skip)"),
    Case(f"{TRAIN} dataset.path=six.graphs", r"add (graph.cutoff=6.0),"),
    Case(
        f"{TRAIN} dataset.path=six.graphs graph.cutoff=6 dataset.id_column=id",
        OMIT,
        instead="dataset.id_column=id",
    ),
    Case(f"{TRAIN} dataset.path=no.json", r"give (dataset.path=PATH)", {"PATH": "data.json"}),
    Case(f"{TRAIN} dataset.targets=null", r"with (dataset.targets=\[…\])", {"…": "gap"}),
    Case(f"{TRAIN} dataset.targets=[kind]", r"give (dataset.tasks.kind=classification)"),
    Case(
        f"{TRAIN} {KIND} dataset.transform.kind=sqrt", OMIT, instead="dataset.transform.kind=sqrt"
    ),
    Case(
        f"{TRAIN} dataset.targets=[kind] dataset.class_weights=balanced",
        r"needs (\S+)",
        {"TARGET": "kind"},
    ),
    Case(
        f"{TRAIN} dataset.path=renamed.csv",
        r"name it with (dataset.structure_column)",
        {"_column": "_column=where"},
    ),
    Case(f"{TRAIN} dataset.path=bare.csv", r"with (dataset.columns=\S+)", {"TARGET": "gap"}),
    Case(
        f"{TRAIN} dataset.path=table.csv dataset.columns=[id,file,gap]",
        OMIT,
        instead="dataset.columns=[id,file,gap]",
    ),
]
OF_MODELS = [
    Case(f"{TRAIN} init_parts=body", r"needs (init_from=…)", {"…": "run"}),
    Case(f"{TRAIN} trainer.freeze_body=true", r"needs (\S+),", {"CHECKPOINT": "run"}),
    Case(f"{TRAIN} model=csgann model.hidden=10", r"such as (8) or", {"8": "model.hidden=8"}),
    Case(
        f"{TRAIN} model.predict_std=true",
        r"expected (false)",
        {"false": "model.predict_std=false"},
    ),
    Case(f"{TRAIN} hydra.run.dir=run", r"with csgcnn (train resume=\S+),"),
    Case(f"{TRAIN} hydra.run.dir=run", r"another (hydra.run.dir)", {".dir": ".dir=new"}),
    Case("train resume=run optimizer.lr=0.1", OMIT, instead="optimizer.lr=0.1"),
    Case("train resume=sweep", r"give one of (\S+),", {"sweep/": "resume=sweep/"}),
    Case(
        f"{TRAIN} optimizer.lr=1e30 trainer.grad_clip=null",
        r"lower (optimizer.lr)",
        {".lr": ".lr=1e-3"},
    ),
]
OF_OTHER_COMMANDS = [
    Case(f"{PREDICT} by=gap", r"needs (top=…)", {"…": "3"}),
    Case(f"{PREDICT} order=lowest", r"needs (top=…)", {"…": "3"}),
    Case(f"{PREDICT} output=old.csv", r"or (overwrite=true)"),
    Case(f"{PREDICT} output=old.csv", r"another (output=)", {"output=": "output=new.csv"}),
    Case(f"{PREDICT} output=a.txt", r"ends in (\S+),", {".csv": "output=a.csv"}),
    Case(f"{PREDICT} where=gap", r"such as '(gap < 1.5)'", {"gap < 1.5": "'where=gap < 1.5'"}),
    Case(f"{PREDICT} 'where=id < 1'", r"Text: (where=.*)"),
    Case(f"{PREDICT} 'where=gab < 1'", r"did you mean (gap)", {"gap": "'where=gap < 1'"}),
    Case("predict structures=data.json", r"give (ckpt=…)", {"…": "run"}),
    Case(f"{EVALUATE} output=run", r"give another (folder)", {"folder": "output=errors"}),
    Case(f"{EVALUATE} output=a.txt", r"a table: (NAME.csv)", {"NAME": "output=a"}),
    Case(f"{EVALUATE} dataset.split.seed=1", OMIT, instead="dataset.split.seed=1"),
    Case("evaluate ckpt=run dataset.path=bad.json", r"them with (dataset.on_error=skip)"),
    Case(
        "build dataset.path=data.json output=six.graphs",
        r"choose another (folder)",
        {"folder": "output=new.graphs"},
    ),
    Case("describe dataset.path=data.json output=old.csv", r"or (overwrite=true)"),
    Case("describe", r"an option of dataset, such as (dataset=\w+)"),
    Case("table sweep/empty", r"csgcnn (train) makes", {"train": TRAIN}),
    Case(f"benchmark {QUICK}", r"or (folds=5)", {"folds=5": f"folds=2 {MINE}"}),
    Case(
        f"benchmark folds=2 {MINE} {QUICK} resume=run",
        r"give (hydra.run.dir=FOLDER)",
        {"FOLDER": "new"},
        "resume=run",
    ),
]
CASES = [*OF_WORDS, *OF_THE_SPLIT, *OF_THE_DATA, *OF_MODELS, *OF_OTHER_COMMANDS]


def write_inputs(folder: Path) -> None:
    """Write 21 crystals in several forms, and what else the commands read."""
    with gzip.open(DATA, "rt") as file:
        found = [r for r in json.load(file) if len(r["crystal_structure"]["species"]) <= 4][:21]
    rows: list[dict[str, Any]] = [
        {
            "id": record["material_id"],
            "crystal_structure": record["crystal_structure"],
            "gap": record["band_gap"],
            "n": record["refractive_index"],
            "kind": "wide" if number % 3 else "narrow",
            "part": ["train", "train", "val", "test"][number % 4],
        }
        for number, record in enumerate(found)
    ]
    ids = [row["id"] for row in rows]
    bad = [{**row, "gap": "wide" if row["id"] == ids[3] else row["gap"]} for row in rows]
    split = {"train": ids[:10], "val": ids[10:13], "test": ids[13:]}
    for name, content in {"data": rows, "bad": bad, "split": split}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "mine.yaml").write_text("dataset: {path: data.json, targets: [gap]}\n")
    (folder / "old.csv").write_text("mine\n")
    lines = []
    for row in rows:
        crystal = row["crystal_structure"]
        text = json.dumps({key: crystal[key] for key in ("lattice", "species", "frac_coords")})
        (folder / f"{row['id']}.json").write_text(text)
        lines.append(f"{row['id']},{row['id']}.json,{row['gap']}\n")
    headers = {"table": ["id,file,gap\n"], "renamed": ["id,where,gap\n"], "bare": []}
    for name, header in headers.items():
        (folder / f"{name}.csv").write_text("".join([*header, *lines]))
    (folder / "sweep" / "empty").mkdir(parents=True)


@pytest.fixture(scope="module")
def inputs(csgcnn: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, graphs and trained models."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    for name in ("run", "sweep/a", "sweep/b"):
        answer = csgcnn(*shlex.split(f"{TRAIN} hydra.run.dir={name}"), cwd=folder)
        assert answer.code == 0, answer.said
    build = "build dataset.path=data.json output=six.graphs graph.cutoff=6 workers=1"
    assert csgcnn(*shlex.split(build), cwd=folder).code == 0
    return folder


@pytest.fixture
def place(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return shutil.copytree(inputs, tmp_path / "place")


def without(words: list[str], removed: list[str]) -> list[str]:
    """Return words of a command without some, and without overrides of the same keys."""
    keys = {word.partition("=")[0] for word in removed if "=" in word}
    return [word for word in words if word not in removed and word.partition("=")[0] not in keys]


def follow(words: list[str], advice: list[str]) -> list[str]:
    """Return the words of a command with those of an advice, which may be a whole command."""
    if advice[:1] in (["train"], ["--install-completion"]):
        return advice
    command, *others = without(words, advice)
    # Hydra wants flags before overrides.
    flags = [word for word in advice if "=" not in word]
    return [command, *flags, *others, *(word for word in advice if "=" in word)]


@pytest.mark.parametrize(
    "case", CASES, ids=[re.sub(r"\W+", " ", f"{c.words[-30:]} {c.message}") for c in CASES]
)
def test_advice_that_is_followed_gets_past_the_refusal(
    csgcnn: Command, place: Path, case: Case
) -> None:
    words: list[str] = []
    for word in shlex.split(case.words):
        words = [*without(words, [word]), word]
    refused = csgcnn(*words, cwd=place)
    assert refused.code in (1, 2), refused.said
    found = re.search(case.message, refused.err)
    assert found, refused.said
    advice = "" if case.message == OMIT else found[1]
    for placeholder, text in case.filled.items():
        advice = advice.replace(placeholder, text)
    followed = follow(without(words, shlex.split(case.instead)), shlex.split(advice))
    answer = csgcnn(*followed, cwd=place)
    assert answer.code == 0, f"{followed}: {answer.said}"
