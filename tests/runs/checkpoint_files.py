"""Helpers of tests of checkpoints."""

import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from refusals import refusal

from csgcnn import load

# csgcnn train model.hidden=8 model.n_convolutions=1 model.head_hidden=8 edge=rbf edge.n_basis=8
# node_features=learned node_features.learned.dim=4 trainer.max_epochs=3 trainer.device=cpu
FORMAT_1 = Path(__file__).with_name("format_1.ckpt")
STORED = Path(__file__).with_name("format_5.ckpt")
Content = dict[str, Any]


class Trap:
    """Create a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def refused(path: Path, *parts: str) -> None:
    message = refusal(load, path)
    assert all(part in message for part in parts), message


def write(path: Path, text: Any, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """Write a safetensors file with this description."""
    text = text if isinstance(text, str) else json.dumps(text)
    path.write_bytes(safetensors.torch.save(tensors or {}, {"csgcnn": text}))
    return path
