"""Crystal graph neural networks: train on crystal structures, predict their properties.

    >>> import csgcnn
    >>> result = csgcnn.train(dataset="dielectric", target="band_gap", max_epochs=50)
    >>> result.predictor.predict(structures, as_frame=True)

The names in `__all__` are the public API. They are imported when they are used, because torch takes
seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csgcnn.commands.api import (
        EvaluationResult,
        TrainingResult,
        describe,
        evaluate,
        learning_curve,
        train,
    )
    from csgcnn.commands.card import model_card
    from csgcnn.commands.explanations import explain
    from csgcnn.commands.report import report
    from csgcnn.crystals.crystal import Crystal
    from csgcnn.data.store import GraphStore
    from csgcnn.data.targets import Target
    from csgcnn.errors import ConfigError, DataWarning, StructureError, UserError
    from csgcnn.evaluation.data_report import DataReport
    from csgcnn.predictor import Predictor, load
    from csgcnn.runs.explanations import Explanations
    from csgcnn.screening.acquisition import Rule, select
    from csgcnn.screening.embedding import Embedding, embed

__version__ = "0.2.0"

__all__ = [
    "ConfigError",
    "Crystal",
    "DataReport",
    "DataWarning",
    "Embedding",
    "EvaluationResult",
    "Explanations",
    "GraphStore",
    "Predictor",
    "Rule",
    "StructureError",
    "Target",
    "TrainingResult",
    "UserError",
    "__version__",
    "describe",
    "embed",
    "evaluate",
    "explain",
    "learning_curve",
    "load",
    "model_card",
    "report",
    "select",
    "train",
]

_MODULES = {
    "ConfigError": "csgcnn.errors",
    "Crystal": "csgcnn.crystals.crystal",
    "DataReport": "csgcnn.evaluation.data_report",
    "DataWarning": "csgcnn.errors",
    "Embedding": "csgcnn.screening.embedding",
    "EvaluationResult": "csgcnn.commands.api",
    "Explanations": "csgcnn.runs.explanations",
    "GraphStore": "csgcnn.data.store",
    "Predictor": "csgcnn.predictor",
    "Rule": "csgcnn.screening.acquisition",
    "StructureError": "csgcnn.errors",
    "Target": "csgcnn.data.targets",
    "TrainingResult": "csgcnn.commands.api",
    "UserError": "csgcnn.errors",
    "describe": "csgcnn.commands.api",
    "embed": "csgcnn.screening.embedding",
    "evaluate": "csgcnn.commands.api",
    "explain": "csgcnn.commands.explanations",
    "learning_curve": "csgcnn.commands.api",
    "load": "csgcnn.predictor",
    "model_card": "csgcnn.commands.card",
    "report": "csgcnn.commands.report",
    "select": "csgcnn.screening.acquisition",
    "train": "csgcnn.commands.api",
}


def __getattr__(name: str) -> Any:
    """Import a name of the public API when it is used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
