"""Write a composed configuration so that it can be run again."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from csgcnn.io import write_text

REPEAT = """\
# csgcnn train --config-dir THIS_FOLDER --config-name config repeats the run in a new folder:
defaults: [train_schema, _self_]
hydra:
  job: {name: train, chdir: false}
  job_logging:
    formatters: {plain: {format: "%(message)s"}}
    handlers: {console: {formatter: plain}}
  output_subdir: null
  run: {dir: "${unique_dir:runs/${now:%Y-%m-%d}/${now:%H-%M-%S}_repeat}"}
"""


def save_resolved(cfg: DictConfig, path: Path) -> None:
    """Write a composed configuration as YAML that can be run again.

    Args:
        cfg: The configuration; interpolations are replaced by their values.
        path: File to write.
    """
    write_text(
        path, OmegaConf.to_yaml(OmegaConf.merge(cfg, {"resume": None}), resolve=True) + REPEAT
    )
