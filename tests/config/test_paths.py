import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from csgcnn.config.paths import (
    INCLUDED_DATA,
    benchmark_directory,
    claim_directory,
    curve_directory,
    data_path,
    overrides_of_result,
)
from csgcnn.errors import ConfigError, UserError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without a folder of data in the environment."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CSGCNN_DATA", raising=False)
    return folder


def test_data_are_found_as_typed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "mine.json").touch()
    monkeypatch.setenv("HOME", str(here))
    assert data_path("mine.json") == here / "mine.json"
    assert data_path(str(here / "mine.json")) == here / "mine.json"
    assert data_path("~/mine.json") == here / "mine.json"


def test_included_data_are_found_from_anywhere(here: Path) -> None:
    assert data_path("data/elastic.json.gz") == INCLUDED_DATA / "elastic.json.gz"
    assert data_path("elastic.json.gz") == INCLUDED_DATA / "elastic.json.gz"


def test_the_environment_adds_a_place_to_look(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.setenv("CSGCNN_DATA", str(mine))
    assert data_path("data/elastic.json.gz") == INCLUDED_DATA / "elastic.json.gz"
    (mine / "elastic.json.gz").touch()
    assert data_path("data/elastic.json.gz") == mine / "elastic.json.gz"
    (here / "data").mkdir()
    (here / "data" / "elastic.json.gz").touch()
    assert data_path("data/elastic.json.gz") == here / "data" / "elastic.json.gz"


def test_absent_data_are_answered_with_all_places(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSGCNN_DATA", str(tmp_path / "mine"))
    with pytest.raises(UserError) as caught:
        data_path("data/absent.json", hint="download it", included=tmp_path / "included")
    for part in (
        str(here / "data" / "absent.json"),
        str(tmp_path / "mine" / "absent.json"),
        str(tmp_path / "included" / "absent.json"),
        "(download it)",
        "CSGCNN_DATA to a folder",
        "dataset.path=",
    ):
        assert part in str(caught.value)
    with pytest.raises(UserError) as caught:
        data_path(str(here / "absent.json"))
    assert str(caught.value).startswith(f"no data at {here / 'absent.json'}; ")


def test_a_hundred_runs_in_one_second_get_a_hundred_directories(tmp_path: Path) -> None:
    wanted = str(tmp_path / "runs" / "06-51-48")
    with ThreadPoolExecutor(20) as pool:
        claimed = list(pool.map(claim_directory, [wanted] * 100))
    assert set(claimed) == {wanted, *(f"{wanted}-{i}" for i in range(1, 100))}
    assert all(os.path.isdir(path) for path in claimed)


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(UserError, match=r"^cannot make the folder /proc/none/run: "):
        claim_directory("/proc/none/run")


def test_the_folder_of_a_benchmark_depends_on_the_overrides_that_change_results() -> None:
    plain = benchmark_directory("matbench_phonons", "fast", ["task=matbench_phonons"])
    assert plain == "runs/matbench_phonons/fast"
    same = ["trainer.device=cpu", "folds=[0]", "dataset.cache_dir=/x", "trainer.max_minutes=3"]
    assert benchmark_directory("matbench_phonons", "fast", same) == plain
    other = benchmark_directory("matbench_phonons", "fast", ["model=csgcnn", "seed=1", *same])
    assert other.startswith(f"{plain}_")
    swapped = benchmark_directory("matbench_phonons", "fast", ["seed=1", "model=csgcnn"])
    assert swapped == other
    assert overrides_of_result(["recipe=fast", "+model.x=1", *same]) == ["+model.x=1"]


def test_more_sizes_and_repeats_keep_the_folder_of_a_learning_curve() -> None:
    plain = curve_directory("fast", ["sizes=[50,all]"], "dielectric")
    assert plain == "runs/learning-curve/dielectric/fast"
    assert curve_directory("fast", ["repeats=5", "trainer.device=cpu"], "dielectric") == plain
    assert curve_directory("fast", ["seed=1"], "dielectric").startswith(f"{plain}_")


def test_a_benchmark_needs_a_task() -> None:
    with pytest.raises(ConfigError, match=r"task=.*matbench_phonons"):
        benchmark_directory(None, "fast", [])
