import platform

import torch

from csgcnn.cli.version import environment_lines, installed_extras


def test_versions_device_and_extras_are_listed() -> None:
    lines = environment_lines()
    assert lines[0].startswith(f"python {platform.python_version()}")
    assert f"torch {torch.__version__}" in lines
    assert any(line.startswith("hydra-core 1.3") for line in lines)
    assert lines[-2].startswith("device ")
    assert lines[-1].startswith("extras ")


def test_a_package_without_extras_has_none() -> None:
    assert installed_extras("absent-package") == []
