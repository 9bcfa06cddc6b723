"""`csgcnn card`: write the model card of a checkpoint, as model hubs read it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from csgcnn.commands.outputs import check_output
from csgcnn.config.settings.graph import GraphSettings
from csgcnn.crystals.elements import SYMBOLS
from csgcnn.crystals.site_features.potential import Potential, PotentialError, potential_of
from csgcnn.data.domain import MEANINGS, Domain
from csgcnn.data.embeddings import FAR
from csgcnn.data.targets import Target
from csgcnn.errors import one_line, plural
from csgcnn.evaluation.calibration import format_coverage
from csgcnn.evaluation.conformal import interval_lines
from csgcnn.io import file_digest, read_json, write_text
from csgcnn.runs import pretrained  # noqa: F401 (registers its potential)
from csgcnn.runs.checkpoint import load_checkpoint
from csgcnn.runs.locate import find_checkpoint

# Metrics of metrics.json that a card shows, with their names at model hubs; units are those of
# the target where True.
METRICS = {
    "mae": ("MAE", True),
    "rmse": ("RMSE", True),
    "r2": ("R²", False),
    "wasserstein": ("Wasserstein distance", False),
    "accuracy": ("accuracy", False),
    "balanced_accuracy": ("balanced accuracy", False),
    "roc_auc": ("ROC-AUC", False),
}
# Entries of metrics.json about simple models, by their names in the card.
BASELINES = {"baseline": "constant", "composition": "composition"}
TAGS = ["materials-science", "crystal-structure", "graph-neural-network", "property-prediction"]
CITATION = """\
- csgcnn, <https://github.com/csgcnn/csgcnn>
- T. Xie and J. C. Grossman, Phys. Rev. Lett. 120, 145301 (2018), doi:10.1103/PhysRevLett.120.145301
- the papers of the training data"""


def card(
    ckpt: Path,
    output: Path,
    license_: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> str:
    """Write the model card of a checkpoint.

    Args:
        ckpt: A checkpoint, a run or a sweep.
        output: The file to write.
        license_: License of the weights, an identifier of the model hub such as mit.
        name: Name of the model; None: that of its file.
        overwrite: Whether an existing file is replaced.

    Returns:
        A line about what was written.

    Raises:
        UserError: The checkpoint cannot be used, or the file cannot be written.
        ConfigError: The output exists.
    """
    path = find_checkpoint(ckpt, "ckpt")
    check_output(output, [], [path], overwrite)
    write_text(output, model_card(path, license_, name))
    missing = "" if license_ else "; it names no license, which license=NAME adds"
    return f"model card: {output}{missing}"


def model_card(ckpt: str | Path, license_: str | None = None, name: str | None = None) -> str:
    """Return the model card of a checkpoint in Markdown: from its content and that of its run.

    What is not known is left out.

    Args:
        ckpt: A checkpoint, a run or a sweep.
        license_: License of the weights, an identifier of the model hub such as mit.
        name: Name of the model; None: that of its file.

    Raises:
        UserError: The checkpoint cannot be used.
    """
    path = find_checkpoint(Path(ckpt), "ckpt").absolute()
    content = load_checkpoint(path)
    targets = [Target(**target) for target in content["targets"]]
    run = path.parent.parent / "metrics.json"
    # The errors of a run are those of its best.ckpt.
    is_best = path.parts[-2:] == ("checkpoints", "best.ckpt") and run.is_file()
    measured = read_json(run) if is_best else {}
    name = name or path.stem
    sections = {
        "What it predicts": _predicts(targets, content),
        "Training data": _data(content),
        "Errors": _errors(targets, measured),
        "Standard deviations": _calibration(measured, content),
        "Prediction intervals": "\n".join(f"- {line}" for line in interval_lines(measured)),
        "Domain of validity": _domain(content),
        "Limits": _limits(measured, content),
        "How to load": _loading(path, content),
        "Citation": CITATION,
    }
    facts = {"license": license_, **_front_matter(name, targets, content, measured)}
    facts = {key: value for key, value in facts.items() if value}
    header = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items() if text)
    return f"---\n{header}---\n\n# {name}\n{body}"


def _front_matter(
    name: str, targets: Sequence[Target], content: Mapping[str, Any], measured: Mapping[str, Any]
) -> dict[str, Any]:
    data = _data_name(content)
    found = [(target, dict(_metrics(target, measured))) for target in targets]
    results = [
        {
            "task": {"type": f"tabular-{target.task}", "name": target.title},
            "dataset": {"name": data, "type": data, "split": "test"},
            "metrics": [
                {"type": key, "name": _metric_title(key, target), "value": float(f"{value:.5g}")}
                for key, value in of_target.items()
            ],
        }
        for target, of_target in found
        if of_target
    ]
    names = [*dict.fromkeys(key for _, of_target in found for key in of_target)]
    index = [{"name": name, "results": results}] if results else []
    return {"library_name": "csgcnn", "tags": TAGS, "metrics": names, "model-index": index}


def _predicts(targets: Sequence[Target], content: Mapping[str, Any]) -> str:
    rows = []
    for target in targets:
        kind = f"one of {', '.join(target.classes)}" if target.classes else target.unit or "number"
        if grid := target.grid:
            ends = f"{grid[0]:g} to {grid[-1]:g} {target.grid_unit}".strip()
            kind += f" at {len(grid)} points, {ends}"
        rows.append((target.title, kind))
    model = content["config"]["model"]
    convolution = str(model.get("convolution", {}).get("_target_", "")).rpartition(".")[2]
    size = f"{model.get('n_convolutions')} layers {convolution}, {model.get('hidden')} features"
    n_members = content["config"].get("ensemble", 1)
    members = f", an ensemble of {n_members}" if n_members > 1 else ""
    inputs = [one["name"] for one in content.get("inputs") or ()]
    beside = f"\n\nInputs beside the structure: {', '.join(inputs)}." if inputs else ""
    text = f"Properties of a periodic crystal from its structure, by a graph neural network ({size}"
    return f"{text}{members}):\n\n" + _table(("property", "unit or classes"), rows) + beside


def _data(content: Mapping[str, Any]) -> str:
    split = content.get("split") or {}
    rows = [("name", _data_name(content))]
    rows += [(f"{part} rows", f"{len(ids):,}") for part, ids in split.items() if ids]
    rows += [("elements", str(len(content["elements"])))]
    rows += [("hash of the data", f"`{content['data']}`")] if content.get("data") else []
    rows += [("csgcnn", content["csgcnn"])] if content.get("csgcnn") else []
    return _table(("", ""), rows)


def _errors(targets: Sequence[Target], measured: Mapping[str, Any]) -> str:
    rows = []
    for target in targets:
        for key, value in _metrics(target, measured):
            simple = (measured.get(f"{prefix}_test_{key}", {}) for prefix in BASELINES)
            others = [_number(of_model.get(target.name)) for of_model in simple]
            rows.append((target.title, _metric_title(key, target), _number(value), *others))
    if not rows:
        return ""
    header = ("property", "metric", "test", *BASELINES.values())
    note = "constant: the training mean or most frequent class; composition: a ridge regression."
    return f"{_table(header, rows)}\n\nSimple models on the same test rows: {note}"


def _calibration(measured: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    found = measured.get("calibration", {})
    lines = [
        f"- {format_coverage(of_target, name)}"
        for name, of_target in found.items()
        if all(isinstance(of_target.get(level), float) for level in ("0.6827", "0.95"))
    ]
    if lines and (names := content.get("uncalibrated")):
        lines.append(f"- not calibrated: {', '.join(names)}")
    return "\n".join(lines)


def _domain(content: Mapping[str, Any]) -> str:
    domain = Domain.from_plain(content["elements"], content.get("domain"))
    symbols = ", ".join(SYMBOLS[z] for z in sorted(domain.elements))
    codes = [*MEANINGS] if domain.is_known else ["unseen_element"]
    known = [code for code in codes if code != FAR or content.get("embeddings")]
    reasons = "\n".join(f"- `{code}`: {MEANINGS[code]}" for code in known)
    column = "out_of_domain" if domain.is_known else "unseen_elements"
    return (
        f"Elements of the training crystals: {symbols}.\n\nPredictions for structures unlike the "
        f"training crystals are flagged in the column `{column}`:\n\n{reasons}"
    )


def _limits(measured: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    lines = ["- Ordered structures that are periodic in three directions."]
    if n_shared := measured.get("shared_compositions", {}).get("test"):
        n_test = measured["n_rows"]["test"]
        lines.append(f"- {n_shared} of {n_test} test crystals share a composition with training.")
    if n_pairs := measured.get("duplicates_across_splits"):
        pairs = plural(n_pairs, "pair")
        lines.append(f"- {pairs} of equal structures in different parts of the split.")
    method = (content["config"].get("dataset") or {}).get("split", {}).get("method")
    if measured.get("test") and method:
        lines.append(f"- Errors are those of the split `{method}`; other crystals may differ more.")
    for name, potential in _potentials(content):
        trained_on = potential.trained_on if potential else ""
        trained = f", which was trained on {trained_on}" * bool(trained_on)
        lines.append(
            f"- It reads site features of `{name}`{trained}. Errors on such properties, and on "
            "what follows from them, do not compare with those of models without it."
        )
    return "\n".join(lines)


def _potentials(content: Mapping[str, Any]) -> Iterator[tuple[str, Potential | None]]:
    """Yield the potentials whose site features a model reads; None for one of a plugin."""
    settings = GraphSettings(**(content["config"].get("graph") or {}))
    for name in settings.site_features:
        try:
            yield name, potential_of(name)
        except PotentialError:
            yield name, None


def _loading(path: Path, content: Mapping[str, Any]) -> str:
    plugins = f" plugins=[{','.join(content['plugins'])}]" if content["plugins"] else ""
    argument = f", plugins={content['plugins']}" if content["plugins"] else ""
    inputs = [one["name"] for one in content.get("inputs") or ()]
    values = f", {{{', '.join(f'{name!r}: ...' for name in inputs)}}}" if inputs else ""
    given = "".join(f" inputs.{name}=VALUE" for name in inputs)
    installed = [potential.install for _, potential in _potentials(content) if potential]
    needed = dict.fromkeys(["csgcnn", *installed])
    packages = [shlex.quote(name) for name in needed]
    return f"""\
SHA-256 of `{path.name}`: `{file_digest(path)}`

```bash
pip install {" ".join(packages)}
csgcnn predict {shlex.quote(f"ckpt={path.name}")} structures=structure.cif{given}{plugins}
```

```python
import csgcnn

model = csgcnn.load({path.name!r}{argument})
model.predict(["structure.cif"]{values}, as_frame=True)
```"""


def _metrics(target: Target, measured: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the known test metrics of a target."""
    for key in METRICS:
        value = measured.get("test", {}).get(target.name, {}).get(key)
        if isinstance(value, float | int):
            yield key, value


def _metric_title(key: str, target: Target) -> str:
    title, has_unit = METRICS[key]
    return f"{title} [{target.unit}]" if has_unit and target.unit else title


def _data_name(content: Mapping[str, Any]) -> str:
    """Return the name of the data file, without folders of its user."""
    return Path(str((content["config"].get("dataset") or {}).get("path") or "unknown")).name


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | int) else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = [
        [one_line(cell, 1000).replace("|", "\\|") if cell else "" for cell in line]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
