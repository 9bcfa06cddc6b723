"""Helpers of tests that compose folders of untrusted configurations."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from csgcnn.config.compose import compose
from csgcnn.errors import ConfigError

CALL = "{_target_: os.system, command: 'touch executed'}"


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def compose_from(folder: Path, name: str = "config", *overrides: str) -> DictConfig:
    return compose("train", overrides, config_dirs=[folder], config_name=name)


def refused(folder: Path, *culprits: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_from(folder)
    for culprit in culprits:
        assert culprit in str(caught.value)
    assert str(caught.value).isprintable()
