"""The parts of an override of the command line, and short names of keys and groups."""

import re
from typing import NamedTuple

ALIASES = {"edge": "edge_calculator", "global_features": "graph.global_features"}
# Short names of keys, accepted by the Python functions.
SHORT_NAMES = {
    "target": "dataset.targets",
    "targets": "dataset.targets",
    "units": "dataset.units",
    "max_epochs": "trainer.max_epochs",
    "batch_size": "trainer.batch_size",
    "patience": "trainer.patience",
    "lr": "optimizer.lr",
    "device": "trainer.device",
    "threads": "trainer.threads",
    "workers": "trainer.workers",
    "progress": "trainer.progress",
    "figures": "trainer.figures",
    "max_minutes": "trainer.max_minutes",
    "cutoff": "graph.cutoff",
    "max_neighbors": "graph.max_neighbors",
    "hidden": "model.hidden",
    "n_convolutions": "model.n_convolutions",
    "dropout": "model.dropout",
}
# Names of keys in other programs, for the messages about unknown keys.
OTHER_NAMES = {
    "epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "max_epoch": "trainer.max_epochs",
    "batchsize": "trainer.batch_size",
    "bs": "trainer.batch_size",
    "learning_rate": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "weight_decay": "optimizer.weight_decay",
    "early_stopping": "trainer.patience",
    "gpu": "trainer.device",
    "gpus": "trainer.device",
    "accelerator": "trainer.device",
    "n_threads": "trainer.threads",
    "num_workers": "trainer.workers",
    "layers": "model.n_convolutions",
    "n_layers": "model.n_convolutions",
    "num_layers": "model.n_convolutions",
    "n_conv": "model.n_convolutions",
    "hidden_dim": "model.hidden",
    "hidden_channels": "model.hidden",
    "width": "model.hidden",
    "radius": "graph.cutoff",
    "data": "dataset.path",
    "data_path": "dataset.path",
    "unit": "dataset.units",
    "folder": "hydra.run.dir",
    "output_dir": "hydra.run.dir",
    "checkpoint": "ckpt",
    "model_path": "ckpt",
    "checkpoint_path": "ckpt",
    "pretrained": "init_from",
    "finetune": "init_from",
    "restart": "resume",
}


class Override(NamedTuple):
    """An override, such as +model.width=3.

    Attributes:
        prefix: "+", "++", "~" or nothing.
        key: Full key or group.
        value: Value; None if there is no "=".
    """

    prefix: str
    key: str
    value: str | None

    def __str__(self) -> str:
        value = "" if self.value is None else f"={self.value}"
        return f"{self.prefix}{self.key}{value}"


def parse_override(text: str) -> Override | None:
    """Return the parts of an override, or None if the text is none."""
    match = re.fullmatch(r"(\+{1,2}|~)?([A-Za-z_][^=]*?)(?:=(.*))?", text, re.DOTALL)
    if match is None or (match[1] is None and match[3] is None):
        return None
    return Override(match[1] or "", full_key(match[2]), match[3])


def full_key(key: str) -> str:
    """Return a key with its first part spelled out, where that is an alias."""
    first, dot, rest = key.partition(".")
    return f"{ALIASES.get(first, first)}{dot}{rest}"
