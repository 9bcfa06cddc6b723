"""Functions that several tests of trainings use."""

from csgcnn.training.trainer import Trainer

TIMES = ("seconds", "graphs_per_second")


def trained(trainer: Trainer) -> list[dict[str, float]]:
    """Train to the end and return the history."""
    trainer.fit(lambda: None)
    return trainer.history


def timeless(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return rows of a history without their times."""
    return [{name: v for name, v in row.items() if name not in TIMES} for row in rows]
