"""Facts about a run that are not in its configuration: folder, overrides, search."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode


@dataclass(frozen=True, slots=True)
class Job:
    """Describe one run of a command.

    Attributes:
        folder: Folder of the run.
        overrides: Overrides of the command line.
        recipe: Name of the recipe that was chosen.
        is_trial: Whether the run is a trial of a search; `folder` is then named by its number.
        prune_after: Fraction of the epochs after which a trial may be pruned; None: never.
        min_trials: Trials of the search that must be finished before any is pruned.
        label: Which part of the command it is, such as "fold 1 of 5"; empty for all of it.
    """

    folder: Path
    overrides: Sequence[str] = ()
    recipe: str | None = None
    is_trial: bool = False
    prune_after: float | None = None
    min_trials: int = 5
    label: str = ""

    @classmethod
    def of_hydra(cls) -> "Job":
        """Return the job that Hydra is running."""
        config = HydraConfig.get()
        trial = config.sweeper.get("trial")
        label = "" if config.mode != RunMode.MULTIRUN else f"job {config.job.num}"
        return cls(
            folder=Path(config.runtime.output_dir),
            overrides=tuple(config.overrides.task),
            recipe=config.runtime.choices.get("recipe"),
            is_trial=trial is not None,
            prune_after=config.sweeper.get("prune_after"),
            min_trials=config.sweeper.get("min_trials", 5),
            label=label if trial is None else f"trial {trial}",
        )

    def within(self, name: str, label: str) -> "Job":
        """Return a part of the job, with a folder inside this one, created if needed.

        Args:
            name: Name of the folder.
            label: Which part it is, such as "fold 1 of 5".
        """
        (folder := self.folder / name).mkdir(parents=True, exist_ok=True)
        labels = filter(None, [self.label, label])
        return replace(self, folder=folder, label=", ".join(labels))
