"""Record a training in MLflow."""

import os
import re
import time
from collections.abc import Mapping
from typing import Annotated

from csgcnn.config.settings import Setting
from csgcnn.config.tree import leaves
from csgcnn.runs.loggers.record import End, Start, require

STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowLogger:
    """Record a run of an experiment, with the keys as parameters and the figures as artifacts."""

    def __init__(
        self,
        experiment: Annotated[
            str, Setting("Experiment of the runs.", effect="execution")
        ] = "csgcnn",
        tracking_uri: Annotated[
            str | None,
            Setting(
                "Address of the server, or sqlite:///FILE.",
                null="the variable MLFLOW_TRACKING_URI, or sqlite:///mlflow.db",
                effect="execution",
            ),
        ] = None,
    ) -> None:
        require("mlflow")
        self.experiment, self.uri = experiment, tracking_uri

    def start(self, run: Start) -> str:
        """Start a run, or continue it."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        self.client, self.epoch, self.logged = MlflowClient(uri), run.epoch, set[int]()
        if run.id:
            self.id = run.id
            history = self.client.get_metric_history(self.id, "train_loss")
            self.logged = {metric.step for metric in history}
        else:
            found = self.client.get_experiment_by_name(self.experiment)
            home = found.experiment_id if found else self.client.create_experiment(self.experiment)
            self.id = self.client.create_run(home, run_name=run.folder.name).info.run_id
            params = [Param(name, str(value)[:500]) for name, value in leaves(run.config)]
            # a batch has at most 100 parameters
            for first in range(0, len(params), 100):
                self.client.log_batch(self.id, params=params[first : first + 100])
        self.client.update_run(self.id, status="RUNNING")
        return str(self.id)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Log the columns as metrics, with the epoch as their step."""
        self.epoch = int(row["epoch"])
        if self.epoch not in self.logged:
            self._log({name: value for name, value in row.items() if name != "epoch"})

    def finish(self, end: End) -> None:
        """Log the final metrics and the figures."""
        self._log(end.metrics)
        for path in end.figures:
            self.client.log_artifact(self.id, str(path), "figures")
        self.client.set_terminated(self.id, STATUS[end.outcome])

    def _log(self, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now, names = int(1000 * time.time()), {k: re.sub(r"[^\w\-./ ]", "_", k) for k in values}
        found = [Metric(names[k], value, now, self.epoch) for k, value in values.items()]
        if found:
            self.client.log_batch(self.id, metrics=found)
