"""Record a training in TensorBoard's event files, in the folder tensorboard of the run."""

import json
from collections.abc import Mapping

import numpy as np

from csgcnn.runs.loggers.record import End, Start, require


class TensorBoardLogger:
    """Write event files, which `tensorboard --logdir RUNS` shows."""

    def __init__(self) -> None:
        require("tensorboard")

    def start(self, run: Start) -> str:
        """Open the event files; epochs that are logged again replace the earlier ones."""
        from torch.utils.tensorboard import SummaryWriter

        self.epoch = run.epoch
        purge = None if run.id is None else run.epoch
        self.writer = SummaryWriter(run.folder / "tensorboard", purge_step=purge)
        if run.id is None:
            self.writer.add_text("config", f"```json\n{json.dumps(run.config, indent=2)}\n```")
        return "tensorboard"

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Write a scalar for each column."""
        self.epoch = int(row["epoch"])
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, self.epoch)
        self.writer.flush()

    def finish(self, end: End) -> None:
        """Write the metrics as scalars of the last epoch, and the png files as images."""
        from PIL import Image

        for name, value in end.metrics.items():
            self.writer.add_scalar(name, value, self.epoch)
        for path in end.figures:
            if path.suffix == ".png":
                pixels = np.asarray(Image.open(path).convert("RGB"))
                self.writer.add_image(path.stem, pixels, self.epoch, dataformats="HWC")
        self.writer.close()
