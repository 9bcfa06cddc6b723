"""The training loop."""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from csgcnn.data.batch import GraphBatch
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.errors import UserError
from csgcnn.nn.models import CrystalGraphNetwork
from csgcnn.training.metrics import Metrics, target_metrics

Row = dict[str, float]


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """How to train; `schemas.TrainerConfig` says what each means."""

    max_epochs: int
    batch_size: int
    patience: int | None = None
    grad_clip: float | None = None
    ema: float | None = None
    precision: str = "float32"
    progress: bool = True


class Trainer:
    """Trains on split["train"], chooses the epoch by its score on split["val"], never looks at split["test"].

    The score is a mean over the targets: of a number the MAE in standard deviations of the training rows, of a class
    the cross entropy, which judges the probabilities and does not tie between epochs as the accuracy of few rows does.

    `values` [n_graphs, n_targets] in physical units, NaN where missing; the model's scaler and global features are
    fitted on the training rows. With an `ema`, the moving average of the weights is what is validated and kept.
    Parameters of the `loss` are trained, too.
    """

    def __init__(
        self,
        model: CrystalGraphNetwork,
        store: GraphStore,
        targets: Sequence[Target],
        values: Tensor,
        split: Split,
        loss: nn.Module,
        make_optimizer: Callable[[Any], Optimizer],
        make_scheduler: Callable[[Optimizer, int], LRScheduler | ReduceLROnPlateau],
        settings: TrainerSettings,
        augment: Callable[[GraphBatch, float], GraphBatch] | None = None,
    ) -> None:
        self.model = model.to(store.device)
        self.store = store
        self.targets = targets
        self.values = values.to(store.device)
        self.split = split
        self.loss = loss.to(store.device)
        self.settings = settings
        self.augment = augment  # (batch, share of the training that is over) -> batch
        model.scaler.fit(values[split["train"]].to(store.device))
        if model.global_features is not None:
            model.global_features.fit(torch.from_numpy(store.graphs.global_features)[split["train"]])
        self.optimizer = make_optimizer(_parameter_groups(model, loss))
        n_batches = math.ceil(len(split["train"]) / settings.batch_size)
        self.scheduler = make_scheduler(self.optimizer, settings.max_epochs * n_batches)
        self.average = (
            AveragedModel(model, multi_avg_fn=_moving_average(settings.ema), use_buffers=True) if settings.ema else None
        )
        self.epoch = 0
        self.best_epoch = 0
        self.best_score = math.inf

    @property
    def evaluated(self) -> CrystalGraphNetwork:
        """The model that is validated and kept."""
        return cast(CrystalGraphNetwork, self.average.module) if self.average else self.model

    def fit(self, on_epoch: Callable[[Row, bool], None]) -> None:
        """Train to the end; after each epoch `on_epoch(its row of metrics, whether it is the best so far)`.

        Raises:
            UserError: the loss is no longer finite.
        """
        max_epochs, patience = self.settings.max_epochs, self.settings.patience
        with tqdm(total=max_epochs, unit="epoch", disable=None if self.settings.progress else True) as bar:
            while self.epoch < max_epochs and not (patience and self.epoch - self.best_epoch >= patience):
                row = self._run_epoch()
                improved = self.best_epoch == self.epoch
                on_epoch(row, improved)
                bar.set_postfix(
                    train=f"{row['train_loss']:.4f}", val=f"{row['val_loss']:.4f}", best=self.best_epoch, refresh=False
                )
                bar.update()

    def _run_epoch(self) -> Row:
        start, lr = time.perf_counter(), self.optimizer.param_groups[0]["lr"]
        train_loss = self._train_epoch()
        seconds = time.perf_counter() - start
        val_loss, metrics = self._validate()
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise UserError(
                f"training diverged in epoch {self.epoch + 1}: training loss {train_loss:.3g}, "
                f"validation loss {val_loss:.3g}. A lower optimizer.lr usually helps"
            )
        self.epoch += 1
        score = self._score(metrics)
        if score < self.best_score:
            self.best_score, self.best_epoch = score, self.epoch
        row = {"epoch": self.epoch, "lr": lr, "train_loss": train_loss, "val_loss": val_loss}
        for target in self.targets:
            shown = ("balanced_accuracy", "cross_entropy") if target.classes else ("mae",)
            row |= {f"val_{name}_{target.name}": metrics[target.name][name] for name in shown}
        row |= {
            "seconds": time.perf_counter() - start,
            "graphs_per_second": len(self.split["train"]) / seconds,
        }
        return row

    def _train_epoch(self) -> float:
        """One pass over the training rows in random order; their mean loss."""
        self.model.train()
        rows = self.split["train"]
        total = torch.zeros((), device=self.store.device)
        for batch_rows in rows[torch.randperm(len(rows))].split(self.settings.batch_size):
            total += self._step(batch_rows) * len(batch_rows)
            if self.average:
                self.average.update_parameters(self.model)
            if not isinstance(self.scheduler, ReduceLROnPlateau):
                self.scheduler.step()
        return total.item() / len(rows)

    def _step(self, rows: Tensor) -> Tensor:
        """One step on a batch; its loss, still on the device."""
        batch = self.store.batch(rows)
        if self.augment:
            batch = self.augment(batch, self.epoch / self.settings.max_epochs)
        target = self.values.index_select(0, rows.to(self.store.device, non_blocking=True))
        with torch.autocast(self.store.device.type, torch.bfloat16, self.settings.precision == "bfloat16"):
            prediction = self.model.standardized(batch)
        loss = self.loss(prediction.float(), self.model.scaler.standardize(target))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.grad_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.grad_clip)
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def _validate(self) -> tuple[float, dict[str, Metrics]]:
        """Loss, and metrics per target, on the validation rows."""
        model, values = self.evaluated, self.values_of("val")
        outputs = _in_batches(model, model.standardized, self.store, self.split["val"], 4 * self.settings.batch_size)
        loss = self.loss(outputs.float(), model.scaler.standardize(values)).item()
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        return loss, target_metrics(model.scaler(outputs.float()).cpu(), values.cpu(), self.targets)

    def _score(self, metrics: Mapping[str, Metrics]) -> float:
        stds = self.model.scaler.std.tolist()
        scores = [
            metrics[target.name]["cross_entropy"] if target.classes else metrics[target.name]["mae"] / std
            for target, std in zip(self.targets, stds, strict=True)
        ]
        known = [score for score in scores if not math.isnan(score)]  # a target may be missing in all of these rows
        return sum(known) / len(known) if known else math.nan

    def predict(self, part: str) -> Tensor:
        """Values in physical units and probabilities for a part of the split: [n_rows, sum of n_outputs]."""
        return predict_rows(self.evaluated, self.store, self.split[part], 4 * self.settings.batch_size)

    def values_of(self, part: str) -> Tensor:
        """Values of the targets in a part of the split, NaN where missing: [n_rows, n_targets]."""
        return self.values.index_select(0, self.split[part].to(self.store.device))

    def state(self) -> dict[str, Any]:
        """All that makes up the state of the training, as plain data."""
        return {
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {k: v for k, v in self.scheduler.state_dict().items() if not callable(v)},
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "rng": torch.get_rng_state(),
        }


def _parameter_groups(model: nn.Module, loss: nn.Module) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if learned := list(loss.parameters()):
        groups.append({"params": learned, "weight_decay": 0.0})  # decay would push variances towards 1
    return groups


def predict_rows(model: CrystalGraphNetwork, store: GraphStore, rows: Tensor, batch_size: int) -> Tensor:
    """Values in physical units and probabilities of classes: [n_rows, sum of n_outputs] on the store's device."""
    return _in_batches(model, model, store, rows, batch_size)


@torch.inference_mode()
def _in_batches(
    model: nn.Module, answer: Callable[[GraphBatch], Tensor], store: GraphStore, rows: Tensor, batch_size: int
) -> Tensor:
    was_training = model.training
    model.eval()
    parts = [answer(store.batch(part)) for part in rows.split(batch_size)]
    model.train(was_training)
    return torch.cat(parts)


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average whose memory grows with the steps taken, up to `decay`."""

    count = itertools.count(1)

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], _: Tensor | int) -> None:
        steps = next(count)  # torch's own counter lies on the device: reading it would stop the queue at every step
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))

    return update
