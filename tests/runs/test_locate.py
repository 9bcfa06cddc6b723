import json
from pathlib import Path

import pytest

from csgcnn.errors import UserError
from csgcnn.runs.locate import find_checkpoint, find_run


def make_run(folder: Path, score: float, split: str = "{}") -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").touch()
    (folder / "config.yaml").touch()
    (folder / "splits.json").write_text(split)
    metrics = {"units": {"gap": "eV"}, "val_score": score}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_a_checkpoint_is_found_in_its_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    best = make_run(tmp_path / "a", 1.0) / "checkpoints" / "best.ckpt"
    assert find_checkpoint(best, "ckpt") == best
    with caplog.at_level("INFO"):
        assert find_checkpoint(tmp_path / "a", "ckpt") == best
    assert caplog.messages == [f"ckpt={tmp_path / 'a'}: taking {best}"]
    assert find_checkpoint(best.parent, "ckpt") == best


def test_the_best_run_of_a_sweep_is_taken(tmp_path: Path) -> None:
    for number, score in enumerate((0.3, 0.1, 0.2)):
        make_run(tmp_path / str(number), score)
    assert find_checkpoint(tmp_path, "ckpt") == tmp_path / "1/checkpoints/best.ckpt"


def test_runs_that_cannot_be_compared_are_listed(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0.1), make_run(tmp_path / "b", 0.2, '{"train": []}')
    with pytest.raises(UserError, match=r"ckpt=.* holds 2 runs .*give one of .*/a, .*/b"):
        find_checkpoint(tmp_path, "ckpt")
    with pytest.raises(UserError, match=r"resume=.* holds 2 runs; give one of .*/a, .*/b"):
        find_run(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"init_from=.*holds no run"):
        find_checkpoint(tmp_path, "init_from")
    with pytest.raises(UserError, match="holds no run"):
        find_run(tmp_path)
    with pytest.raises(UserError, match="there is no run"):
        find_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "checkpoints", "checkpoints/best.ckpt", "config.yaml"])
def test_a_run_is_found_from_what_it_holds(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "a", 1.0)
    assert find_run(run / name) == run
    assert find_run(tmp_path) == run
