"""csgcnn: crystal graph neural networks, from crystal files to trusted predictions."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from csgcnn.predictor import Predictor

__version__ = "0.2.0"


def load(path: "str | Path | Sequence[str | Path]", device: str = "cpu") -> "Predictor":
    """Load a trained model from its checkpoint (an ensemble from several): `load("best.ckpt").predict(structures)`."""
    from csgcnn.predictor import (
        Predictor,  # torch is imported when a model is, not with the package
    )

    return Predictor.load(path, device)
