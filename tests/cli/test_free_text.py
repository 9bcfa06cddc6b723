"""Units, names of columns and expressions are taken as they are typed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from csgcnn.cli.overrides import canonical
from csgcnn.config.compose import compose
from csgcnn.config.tree import select

Command = Callable[..., Any]


@pytest.mark.parametrize("unit", ["Å", "W/(m K)", "eV/Å^3", "10^3 cm", "1", "true", "a, b", ""])
@pytest.mark.parametrize("column", ["gap", "Eg (eV)", "ΔH", "a.b", "x: y"])
def test_units_and_columns_arrive_as_typed(unit: str, column: str) -> None:
    typed = [f"dataset.units.{column}={unit}", f"dataset.targets=[{column}, gap]"]
    cfg = compose("train", canonical("train", typed))
    assert cfg.dataset.units[column] == unit
    assert cfg.dataset.targets == [column, "gap"]


@pytest.mark.parametrize(
    ("typed", "key", "expected"),
    [
        ("dataset.units={Eg (eV): W/(m K)}", "dataset.units", {"Eg (eV)": "W/(m K)"}),
        ("dataset.targets=[log10(G_VRH)]", "dataset.targets", ["log10(G_VRH)"]),
        ("dataset.targets=['a, b',c]", "dataset.targets", ["a, b", "c"]),
        ("dataset.split.column=my column (2)", "dataset.split.column", "my column (2)"),
        ("dataset.id_column=№", "dataset.id_column", "№"),
    ],
)
def test_other_text_arrives_as_typed(typed: str, key: str, expected: object) -> None:
    cfg = compose("train", ["dataset=csv", *canonical("train", [typed])])
    found = select(dict(cfg), key)
    assert found == expected if not isinstance(expected, dict) else dict(found) == expected


def test_a_message_repeats_what_was_typed(csgcnn: Command) -> None:
    answer = csgcnn("train", "dataset.task_weights.Eg (eV)=x")
    assert answer.returncode == 2
    assert "dataset.task_weights.Eg (eV)=x: " in answer.stderr
    assert "++" not in answer.stderr


def test_the_advice_of_messages_can_be_followed(csgcnn: Command) -> None:
    answer = csgcnn("train", "dataset.targets=gap")
    advice = answer.stderr.split("expected a list: ")[1].strip()
    assert "list" not in csgcnn("train", advice, "--cfg", "job").stderr
    answer = csgcnn("train", "dataset.hint=a(b")
    advice = answer.stderr.rpartition('"')[0].rpartition('"')[2]
    assert advice == "dataset.hint='a(b'"
    assert "hint: a(b" in csgcnn("train", advice, "--cfg", "job").stdout


def test_an_entry_of_any_name_can_be_deleted(csgcnn: Command, tmp_path: Path) -> None:
    columns = ["gap", "Eg (eV)", "ΔH", "a.b", "x[0]"]
    units = {**dict.fromkeys(columns, "eV"), "other": "K"}
    text = yaml.safe_dump({"dataset": {"units": units}}, allow_unicode=True)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    words = ["--config-dir", ".", "--config-name", "mine", "--cfg", "job"]
    before = csgcnn("train", *words).stdout
    assert all(f"{column}: eV" in before for column in columns)
    for end in ("", "=eV"):
        answer = csgcnn("train", *words, *(f"~dataset.units.{column}{end}" for column in columns))
        assert "other: K" in answer.stdout, answer.stderr
        assert not any(f" {column}: " in answer.stdout for column in columns)


def test_deleting_an_absent_entry_repeats_its_name(csgcnn: Command) -> None:
    answer = csgcnn("train", "~dataset.units.Eg (eV)", "--cfg", "job")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert "'dataset.units.Eg (eV)' does not exist" in answer.stderr
