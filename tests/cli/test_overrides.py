from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from csgcnn.cli.overrides import canonical, opted_in, parse_override, resumed
from csgcnn.errors import ConfigError, UserError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("edge=rbf", "edge_calculator=rbf"),
        ("global_features=lattice", "graph.global_features=lattice"),
        ("edge=gaussian,rbf", "edge_calculator=gaussian,rbf"),
        ("edge.cutoff=5", "edge_calculator.cutoff=5"),
        ("+edge.new=1", "+edge_calculator.new=1"),
        ("++edge.cutoff=1", "++edge_calculator.cutoff=1"),
        ("~edge.embedding", "~edge_calculator.embedding"),
        ("~edge", "~edge_calculator"),
        ("edges=1", "edges=1"),
        ("edge_calculator=rbf", "edge_calculator=rbf"),
        ("model.edge=1", "model.edge=1"),
        ("--config-dir", "--config-dir"),
        ("edge", "edge"),
        ("edge.yaml", "edge.yaml"),
        ("init_from='a b.ckpt'", "init_from='a b.ckpt'"),
        ('init_from="a b.ckpt"', 'init_from="a b.ckpt"'),
        ("dataset.path=[a.cif,b.cif]", "dataset.path=[a.cif,b.cif]"),
        ("init_from=null", "init_from=null"),
        ("trainer.device=cuda:1", "trainer.device=cuda:1"),
        ("dataset.units.band_gap=eV", "++dataset.units.band_gap=eV"),
        ("dataset.units.outputs.pbe.gap=eV", "++dataset.units={outputs.pbe.gap: eV}"),
        ("dataset.derived.stable=e <= 0", "++dataset.derived.stable='e <= 0'"),
        (
            "dataset.derived.k='a' if e > 0 else 'b'",
            r"++dataset.derived.k='\'a\' if e > 0 else \'b\''",
        ),
    ],
)
def test_aliases_and_paths_are_rewritten(given: str, expected: str) -> None:
    assert canonical("train", [given]) == [expected]


def test_flags_come_first_with_their_values() -> None:
    given = ["seed=1", "--config-dir", "a=b", "edge=rbf", "-m"]
    flags, overrides = ["--config-dir", "a=b", "-m"], ["seed=1", "edge_calculator=rbf"]
    assert canonical("train", given) == flags + overrides


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("predict", "ckpt"),
        ("predict", "structures"),
        ("predict", "output"),
        ("train", "dataset.path"),
        ("train", "dataset.split.file"),
        ("train", "hydra.run.dir"),
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "runs/a=b (1).ckpt",
        "Ca(OH)2.cif",
        "~/x.cif",
        "cifs/[ab]*.cif",
        "it's, {odd}.cif",
        "a\\b\\",
        "$x#é:%.cif",
        "12",
    ],
)
def test_paths_arrive_as_typed(command: str, key: str, path: str) -> None:
    (override,) = OverridesParser.create().parse_overrides(canonical(command, [f"{key}={path}"]))
    assert override.value() == path
    assert not override.is_sweep_override()


def test_a_comma_sweeps_over_paths_in_a_multirun() -> None:
    given = canonical("train", ["--multirun", "dataset.path=a (1).json,~/b.json"])
    (override,) = OverridesParser.create().parse_overrides(given[1:])
    assert override.is_sweep_override()
    values = [str(value) for value in override.sweep_string_iterator()]
    assert values == ["'a (1).json'", "'~/b.json'"]


@pytest.mark.parametrize(
    "given",
    [
        "graph.vectors=false",
        "+trainer.sync_norm=true",
        "augment=[none,coordinate_noise]",
        "~graph.vectors",
    ],
)
def test_removed_keys_are_refused_by_name(given: str) -> None:
    with pytest.raises(ConfigError, match="no longer exists: "):
        canonical("train", [given])


@pytest.mark.parametrize(
    ("given", "packages"),
    [
        (["seed=1"], []),
        (["plugins=[]"], []),
        (["plugins=[a,b_c]"], ["a", "b_c"]),
        (["++plugins=['a', \"b\"]"], ["a", "b"]),
        (["--multirun", "plugins=[a],[b]"], ["a", "b"]),
        (["model.plugins=[a]", "dataset.path=plugins=[a]"], []),
    ],
)
def test_plugins_are_read_from_the_command_line(given: list[str], packages: list[str]) -> None:
    assert opted_in(given) == packages


def test_an_override_is_written_as_it_was_read() -> None:
    for text in ("a.b=c", "+a=", "~a", "++a.b=[1,2]", "a/b@c=d"):
        assert str(parse_override(text)) == text
    assert parse_override("a") is None
    assert parse_override("--a=b") is None


def test_resume_stands_for_the_folder_and_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    folder, own = str(tmp_path), ["--config-dir", str(tmp_path), "--config-name", "config"]
    given = [f"resume={folder}", "trainer.max_epochs=3"]
    assert resumed(given) == [*own, *given, f"hydra.run.dir={folder}"]
    for extra in ("model=csgcnn", "edge=rbf", "--config-name=other"):
        assert resumed([*given, extra]) == [*given, extra, f"hydra.run.dir={folder}"]
    for unchanged in (["seed=1"], ["resume=auto"], ["resume=null"], ["resume="]):
        assert resumed(unchanged) == unchanged


def test_resume_needs_a_run_and_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        resumed([f"resume={tmp_path}"])
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match="for a sweep give resume=auto"):
        resumed(["--multirun", f"resume={tmp_path}"])
