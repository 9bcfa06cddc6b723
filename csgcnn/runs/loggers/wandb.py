"""Record a training in Weights & Biases."""

from collections.abc import Mapping
from typing import Annotated, Any, cast

from csgcnn.config.settings import Setting
from csgcnn.runs.loggers.record import End, Start, require


class WandbLogger:
    """Record a run of a project."""

    def __init__(
        self,
        project: Annotated[str, Setting("Project of the runs.", effect="execution")] = "csgcnn",
        mode: Annotated[
            str,
            Setting(
                "online sends the record; offline writes it to the folder wandb of the run, for "
                "`wandb sync`.",
                choices=("online", "offline"),
                effect="execution",
            ),
        ] = "online",
    ) -> None:
        require("wandb")
        # Any: W&B declares its choices, which mypy does not read from a Setting.
        self.project, self.mode = project, cast(Any, mode)

    def start(self, run: Start) -> str:
        """Start a run, or continue it."""
        import wandb

        self.run = wandb.init(
            project=self.project,
            mode=self.mode,
            id=run.id,
            resume="allow",
            name=run.folder.name,
            dir=run.folder,
            config=dict(run.config),
            settings=wandb.Settings(silent=True, console="off"),
        )
        return str(self.run.id)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Log the columns, with the epoch as their step."""
        self.run.log(dict(row), step=int(row["epoch"]))

    def finish(self, end: End) -> None:
        """Write the final metrics to the summary, and the png files as images."""
        import wandb

        for path in end.figures:
            if path.suffix == ".png":
                self.run.log({path.stem: wandb.Image(str(path))}, commit=False)
        self.run.summary.update({**end.metrics, "outcome": end.outcome})
        self.run.finish(exit_code=int(end.outcome == "failed"))
