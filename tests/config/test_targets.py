import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csgcnn.config.plugins import check_opt_in, plugins_loaded
from csgcnn.config.targets import (
    allowed_plugins,
    check_targets,
    is_allowed,
    plugin_of,
    plugins_allowed,
    plugins_in,
)
from csgcnn.errors import ConfigError

PACKAGE = "my_convolutions"
POOLING = f"{PACKAGE}.poolings.Median"
OPTION = {"_target_": POOLING, "_partial_": True}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that says when it is imported."""
    folder = tmp_path / "packages" / PACKAGE
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').close()\n")
    (folder / "poolings.py").write_text("class Median:\n    pass\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    return folder


def test_classes_of_a_plugin_need_an_opt_in() -> None:
    with pytest.raises(ConfigError, match=rf"pooling\._target_.*add plugins=\[{PACKAGE}\]"):
        check_targets({"pooling": OPTION})
    with plugins_allowed([PACKAGE]):
        check_targets({"pooling": OPTION})
        assert is_allowed(POOLING)
    assert not is_allowed(POOLING)
    assert PACKAGE not in allowed_plugins()


@pytest.mark.parametrize("place", ["node_features.mine.table.deeper", "edge_calculator.other"])
def test_a_plugin_may_be_named_at_the_places_of_options_only(place: str) -> None:
    config: Any = OPTION
    for name in reversed(place.split(".")):
        config = {name: config}
    if "edge_calculator" in config:
        config["edge_calculator"]["_target_"] = "csgcnn.nn.edge_calculators.RadialBasis"
    with plugins_allowed([PACKAGE]), pytest.raises(ConfigError, match="expected none here"):
        check_targets(config)


@pytest.mark.parametrize("name", ["", "a.b", "os;", "1a", "../a", "a b"])
def test_an_opt_in_is_the_name_of_a_package(name: str) -> None:
    with pytest.raises(ConfigError, match="expected names of packages"), plugins_allowed([name]):
        pass


def test_plugins_are_found_in_a_configuration() -> None:
    nested = {"a": [{"_target_": "other.B"}], "b": {"_target_": "csgcnn.nn.pooling.MeanPooling"}}
    assert plugins_in({"pooling": OPTION, "nested": nested}) == {PACKAGE, "other"}
    assert plugin_of("torch.optim.Adam") is None
    assert plugin_of("os") is None
    assert plugin_of(7) is None


def test_a_plugin_is_imported_with_the_opt_in_only(package: Path, tmp_path: Path) -> None:
    with plugins_loaded([]):
        assert not (tmp_path / "imported").exists()
    with plugins_loaded([PACKAGE]):
        assert (tmp_path / "imported").exists()


def test_an_installed_plugin_needs_no_opt_in(package: Path, tmp_path: Path) -> None:
    info = package.parent / f"{PACKAGE}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[csgcnn.plugins]\nmine = {PACKAGE}\n")
    assert PACKAGE in allowed_plugins()
    assert is_allowed(POOLING)
    with plugins_loaded([]):
        assert (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "there is no package absent_package"),
        ("import absent_requirement", "it needs absent_requirement"),
        ("1 / 0", "its import fails: division by zero"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line(
    text: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "absent_package" if text is None else "broken_package"
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(ConfigError, match=expected), plugins_loaded([name]):
        pass


def test_a_configuration_cannot_opt_in() -> None:
    check_opt_in(["a"], ["a", "b"])
    with pytest.raises(ConfigError, match=r"names the plugins b, .* add plugins=\[a,b\]"):
        check_opt_in(["a", "b"], ["a"])


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def csgcnn(package: Path, tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        root = Path(__file__).parents[2]
        path = f"{package.parent}:{root}"
        command = [sys.executable, "-m", "csgcnn", *arguments]
        environment = {"PYTHONPATH": path, "PATH": "", "HOME": str(tmp_path)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
        )

    return run


@pytest.mark.slow
def test_a_configuration_file_with_plugins_is_refused_without_the_override(
    csgcnn: Run, tmp_path: Path
) -> None:
    (tmp_path / "configs").mkdir()
    text = f"defaults: [train, _self_]\nplugins: [{PACKAGE}]\n"
    (tmp_path / "configs" / "mine.yaml").write_text(text)
    given = ["train", "--config-dir", "configs", "--config-name", "mine", "dataset.path=absent"]
    done = csgcnn(*given)
    assert done.returncode == 2
    assert f"add plugins=[{PACKAGE}]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "imported").exists()
    done = csgcnn(*given, f"plugins=[{PACKAGE}]")
    assert "no data at" in done.stderr
    assert (tmp_path / "imported").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "ckpt=absent.ckpt", "structures=absent.cif"],
        ["evaluate", "ckpt=absent.ckpt", "dataset=elastic"],
        ["build", "dataset.path=absent", "output=out"],
        ["benchmark", "task=matbench_phonons", "folds=0"],
    ],
)
def test_every_command_loads_plugins(arguments: list[str], csgcnn: Run, tmp_path: Path) -> None:
    done = csgcnn(*arguments, f"plugins=[{PACKAGE}]")
    assert done.returncode in (1, 2)
    assert "absent" in done.stderr or "no data at" in done.stderr
    assert (tmp_path / "imported").exists()
    assert "no package nowhere" in csgcnn(*arguments, "plugins=[nowhere]").stderr


@pytest.mark.slow
def test_jobs_in_other_processes_load_plugins(csgcnn: Run, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    given = ["train", "--multirun", "hydra/launcher=joblib", "seed=0,1", "dataset.path=absent"]
    given += ["hydra.launcher.n_jobs=2", f"pooling._target_={POOLING}"]
    done = csgcnn(*given, f"plugins=[{PACKAGE}]")
    assert (tmp_path / "imported").exists()
    assert "no data at" in done.stderr
    assert "add plugins" in csgcnn(*given).stderr
