import logging
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from csgcnn.commands.devices import other_device, use_present_device
from csgcnn.commands.job import Job

ABSENT = "cuda:99"


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """The folder of a run that was started."""
    (tmp_path / "config.yaml").touch()
    return tmp_path


def device_of(folder: Path, resume: str | None, *overrides: str) -> str:
    cfg = OmegaConf.create({"resume": resume, "trainer": {"device": ABSENT}})
    use_present_device(cfg, Job(folder, overrides))
    return str(cfg.trainer.device)


def test_a_run_of_an_absent_gpu_resumes_on_a_present_device(
    started: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert device_of(started, str(started)) == "auto"
    assert f"the run names trainer.device={ABSENT}, which is not available here" in caplog.text


def test_a_device_on_the_command_line_is_not_replaced(started: Path, tmp_path: Path) -> None:
    assert device_of(started, str(started), f"trainer.device={ABSENT}") == ABSENT
    assert device_of(tmp_path / "new", "auto") == ABSENT
    assert device_of(started, None) == ABSENT


def test_a_change_of_the_device_is_noted() -> None:
    on_cpu = {"rng": {"cpu": torch.zeros(1)}}
    on_gpu = {"rng": {"cpu": torch.zeros(1), "cuda": torch.zeros(1)}}
    assert other_device(on_cpu, torch.device("cpu")) == ""
    assert other_device(on_gpu, torch.device("cuda", 0)) == ""
    assert other_device(on_gpu, torch.device("cpu")).startswith(
        "the run was on a GPU so far and continues on the CPU"
    )
