"""The training loop: epochs, steps and validation."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from csgcnn import distributed
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.data.batch import GraphBatch, split_batches
from csgcnn.data.dataset import Dataset
from csgcnn.data.splits import Split
from csgcnn.evaluation.inference import in_batches, predict_rows
from csgcnn.evaluation.metrics import Metrics, target_metrics
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.training.cuda_graphs import RecordedStep, can_replay
from csgcnn.training.divergence import DivergenceGuard
from csgcnn.training.ema import ExponentialMovingAverage, copy_state
from csgcnn.training.labels import Labels
from csgcnn.training.length import Length
from csgcnn.training.parameter_groups import build_optimizer
from csgcnn.training.validation import no_metrics, shown_metrics, validation_score


class Trainer:
    """Train a network on split["train"] and keep the best epoch on split["val"], or the last.

    What the network standardizes and subtracts is fitted on the training rows. With
    `settings.ema` the moving average of the weights is validated and kept. `training_state` and
    `load_training_state` save and restore a training between two steps; on the CPU the result is
    bit-identical to that of an uninterrupted run.

    Several processes take the same steps as one: each predicts its shard of a batch, all compute
    the loss of the whole batch, and gradients are summed over the ranks.

    Args:
        model: The network.
        dataset: Graphs, which lie on the device to train on, and values of the targets.
        split: Rows of the parts train, val and test.
        loss: Loss(standardized outputs, standardized targets); its parameters are trained, too.
        make_optimizer: Builds the optimizer from parameter groups.
        make_scheduler: Builds the schedule from the optimizer and the number of steps.
        settings: Keys of the section `trainer`.
        augment: Changes a training batch, given the fraction of the training that is completed.

    Attributes:
        history: Row of metrics.csv for each epoch.
        best: Weights of the best epoch; `best_epoch` and `best_score` say which that is.
        n_steps: Optimizer steps taken.
        lr: Learning rate at the start of the current epoch.
        order: Shuffled training rows of the current epoch; empty between two epochs.
        losses: Loss of each batch of the current epoch [n_batches].
        n_done: Batches completed in the current epoch.
    """

    def __init__(
        self,
        model: CrystalGraphNetwork,
        dataset: Dataset,
        split: Split,
        loss: nn.Module,
        make_optimizer: Callable[[Any], Optimizer],
        make_scheduler: Callable[[Optimizer, int], LRScheduler | ReduceLROnPlateau],
        settings: TrainerSettings,
        augment: Callable[[GraphBatch, Tensor], GraphBatch] | None = None,
    ) -> None:
        self.store, self.targets, self.inputs = dataset.store, dataset.targets, dataset.inputs
        self.split, device, train_rows = split, self.store.device, split["train"]
        self.model = model.to(device)
        self.labels = Labels(model, dataset, train_rows)
        self.weights = dataset.loss_weights(train_rows, device)
        self.loss = loss.to(device)
        self.settings, self.augment = settings, augment
        self.make_optimizer, self.make_scheduler = make_optimizer, make_scheduler
        model.node_features.fit(self.store, train_rows)
        if model.global_features is not None:
            descriptors = torch.from_numpy(self.store.graphs.global_features)
            model.global_features.fit(descriptors[train_rows])
        for features in (one for one in (model.head_inputs, model.state) if one is not None):
            features.fit(self.store, train_rows)
        self.frozen = model.body if settings.freeze_body else []
        for module in self.frozen:
            module.requires_grad_(False)
        n_batches = len(split_batches(train_rows, settings.batch_size))
        self.set_length(Length.of_epochs(settings.max_epochs, n_batches))
        self.average = ExponentialMovingAverage(model, settings.ema) if settings.ema else None
        self.guard = DivergenceGuard(model, self.store.ids, settings.max_skipped)

        self.history: list[dict[str, float]] = []
        self.best_epoch, self.best_score = 0, math.inf
        self.best = copy_state(self.evaluated.state_dict())
        self.n_steps, self.lr, self.order = 0, math.nan, train_rows[:0]
        self.losses, self.n_done = torch.zeros(n_batches, device=device), 0
        self.progress = torch.zeros((), device=device)  # fraction of the schedule

        if rank := distributed.rank():  # other dropout and noise on each rank
            torch.manual_seed(torch.initial_seed() + rank)
        # dynamic: sizes differ between batches, and each would be compiled again
        forward = model.standardized
        self.forward = torch.compile(forward, dynamic=True) if settings.compile else forward
        work = (self.store, settings.batch_size, self.compute_gradients, self.trained)
        self.replay = RecordedStep(*work) if can_replay(settings, self.store) else None

    def set_length(self, length: Length) -> None:
        """Set the length, with a new optimizer and schedule, before the first step."""
        self.length, decay = length, self.settings.layer_decay
        self.optimizer = build_optimizer(self.make_optimizer, self.model, self.loss, decay)
        self.scheduler = self.make_scheduler(self.optimizer, length.n_scheduled)

    @property
    def trained(self) -> list[Tensor]:
        """Parameters that the optimizer changes."""
        return [weight for group in self.optimizer.param_groups for weight in group["params"]]

    @property
    def evaluated(self) -> CrystalGraphNetwork:
        """The network that is validated and kept."""
        return cast(CrystalGraphNetwork, self.average.module) if self.average else self.model

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return len(self.history)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are completed, or `patience` of them brought no improvement."""
        return bool(self.ended_by)

    @property
    def ended_by(self) -> str:
        """The key that ends the training: "trainer.max_epochs", "trainer.patience", or nothing."""
        if self.epoch >= self.length.n_epochs:
            return "trainer.max_epochs"
        patience = self.settings.patience or math.inf
        return "trainer.patience" if self.epoch - self.best_epoch >= patience else ""

    def initialize(self, weights: Mapping[str, Tensor]) -> None:
        """Replace initial weights before the first step."""
        self.model.load_state_dict({**self.model.state_dict(), **weights})
        self.labels.read_reference()
        self.evaluated.load_state_dict(self.model.state_dict())
        self.best = copy_state(self.evaluated.state_dict())

    def fit(self, on_step: Callable[[], None]) -> None:
        """Train until `is_over`.

        Args:
            on_step: Called after each step and each epoch; may save the state, or raise to stop.

        Raises:
            DivergenceError: A loss or a weight is not finite.
        """
        while not self.is_over:
            self.run_epoch(on_step)
            on_step()

    def run_epoch(self, on_step: Callable[[], None]) -> dict[str, float]:
        """Train and validate for the rest of the epoch; return its row of the history."""
        start, n_before = time.perf_counter(), self.n_done
        train_loss = self.train_epoch(on_step)
        seconds = time.perf_counter() - start
        val_loss, metrics = self.validate()
        n_graphs = len(self.order) - n_before * self.settings.batch_size
        row = {
            "epoch": self.epoch + 1,
            "lr": self.lr,
            "train_loss": train_loss,
            "val_loss": val_loss,
            **shown_metrics(metrics, self.targets),
            "seconds": time.perf_counter() - start,
            "graphs_per_second": n_graphs / seconds,
        }
        self.history.append(row)
        self.order, self.n_done = self.order[:0], 0
        score = validation_score(metrics, self.targets, self.labels.stds)
        if score < self.best_score or not len(self.split["val"]):
            self.best_score = min(self.best_score, score)  # infinity if the score is NaN
            self.best_epoch, self.best = self.epoch, copy_state(self.evaluated.state_dict())
        return row

    def train_epoch(self, on_step: Callable[[], None]) -> float:
        """Take the remaining steps of the epoch; return the mean loss of its rows."""
        if not len(self.order):
            order = distributed.broadcast_tensor(self.store.shuffled(self.split["train"]))
            self.order = self.length.cut(order, self.epoch, self.settings.batch_size)
            self.lr = self.optimizer.param_groups[0]["lr"]
        self.model.train()
        for module in self.frozen:  # batch norms keep their statistics
            module.eval()
        self.progress.fill_(self.length.progress(self.epoch))
        remaining = self.batch_rows[self.n_done :]
        for rows, batch in zip(remaining, self.load_batches(remaining), strict=True):
            self.losses[self.n_done] = self.train_step(rows, batch)
            if not isinstance(self.scheduler, ReduceLROnPlateau):
                self.scheduler.step()
            self.n_done += 1
            on_step()
        self.check_finite()
        return self.guard.mean_loss(self.losses, self.batch_rows)

    @property
    def batch_rows(self) -> tuple[Tensor, ...]:
        """Rows of each batch of the current epoch."""
        return split_batches(self.order, self.settings.batch_size)

    def load_batches(self, parts: Sequence[Tensor]) -> Iterable[GraphBatch | None]:
        """Return the batch of this rank for each part, or None if the step is replayed."""
        if self.replay is None:
            return self.store.batches(map(distributed.shard_rows, parts))
        return (None if self.replay.accepts(rows) else self.store.batch(rows) for rows in parts)

    def train_step(self, rows: Tensor, batch: GraphBatch | None) -> Tensor:
        """Update the weights with one batch.

        Args:
            rows: Rows of the batch on all ranks [n_rows], on the host.
            batch: Graphs of the rows of this rank; None: the step is replayed.

        Returns:
            Loss on the device, NaN if the batch was skipped.
        """
        self.guard.start_step()
        if self.replay and batch is None:
            loss = self.replay(rows)
        else:
            self.optimizer.zero_grad(set_to_none=True)
            on_device = rows.to(self.store.device, non_blocking=True)
            loss = self.compute_gradients(on_device, cast(GraphBatch, batch))
        if self.guard.skips(loss, self.epoch + 1, rows):
            return loss.new_tensor(math.nan)
        self.optimizer.step()
        self.n_steps += 1
        if self.average:
            self.average.update(self.model)
        return loss

    def compute_gradients(self, rows: Tensor, batch: GraphBatch) -> Tensor:
        """Compute the gradients of a batch and clip them.

        Args:
            rows: Rows of the batch on all ranks [n_rows], on the device.
            batch: Graphs of the rows of this rank.

        Returns:
            Loss; NaN if the gradient is not finite and the batch may be skipped.
        """
        settings = self.settings
        if self.augment:
            batch = self.augment(batch, self.progress)
        is_bfloat16 = settings.precision == "bfloat16"
        with torch.autocast(self.store.device.type, torch.bfloat16, is_bfloat16):
            outputs = self.forward(batch)
        target = self.labels.standardized(rows)
        weight = [] if self.weights is None else [self.weights.index_select(0, rows)]
        loss = self.loss(distributed.gather(outputs.float(), len(rows)), target, *weight)
        loss.backward()
        distributed.sum_gradients(self.model.parameters())
        if settings.grad_clip or settings.max_skipped:
            parameters = [*self.model.parameters(), *self.loss.parameters()]
            norm = nn.utils.clip_grad_norm_(parameters, settings.grad_clip or math.inf)
            if settings.max_skipped:
                return torch.where(norm.isfinite(), loss.detach(), math.nan)
        return loss.detach()

    def check_finite(self) -> None:
        """Raise DivergenceError unless the losses of the epoch and all weights are finite."""
        batches = self.batch_rows[: self.n_done]
        self.guard.check(self.losses[: self.n_done], batches, self.epoch + 1)

    @torch.no_grad()
    def validate(self) -> tuple[float, dict[str, Metrics]]:
        """Return the loss and the metrics of each target on the validation rows."""
        model, rows = self.evaluated, self.split["val"]
        if not len(rows):
            return math.nan, no_metrics(self.targets)
        size = 4 * self.settings.batch_size
        outputs = in_batches(model, model.standardized, self.store, rows, size).float()
        loss = self.loss(outputs, self.labels.standardized(rows)).item()
        if not math.isfinite(loss):
            culprits = rows[~outputs.isfinite().all(1).cpu()]
            self.guard.stop(f"the validation loss is {loss:.3g}", self.epoch + 1, culprits)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        predicted = self.labels.predicted(outputs, rows).cpu()
        return loss, target_metrics(predicted, self.values_of("val").cpu(), self.targets)

    def predict(self, part: str) -> Tensor:
        """Return predictions for a part of the split [n_rows, sum of n_outputs]."""
        batch_size = 4 * self.settings.batch_size
        return predict_rows(self.evaluated, self.store, self.split[part], batch_size)

    def values_of(self, part: str) -> Tensor:
        """Return the targets of a part of the split, NaN where missing: [n_rows, n_targets]."""
        return self.labels.values.index_select(0, self.split[part].to(self.store.device))
