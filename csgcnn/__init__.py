"""csgcnn: crystal graph neural networks, from crystal files to trusted predictions."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from csgcnn.predictor import Predictor

__version__ = "0.1.0"


def load(path: "str | Path", device: str = "cpu") -> "Predictor":
    """Load a trained model from its checkpoint: `load("best.ckpt").predict(structures)`."""
    from csgcnn.predictor import Predictor  # torch is imported when a model is, not with the package

    return Predictor.load(path, device)
