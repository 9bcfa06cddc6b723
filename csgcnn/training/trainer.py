"""The training loop."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from csgcnn import distributed
from csgcnn.config.settings.trainer import TrainerSettings
from csgcnn.data.batch import GraphBatch, split_batches
from csgcnn.data.splits import Split
from csgcnn.data.store import GraphStore
from csgcnn.data.targets import Target
from csgcnn.errors import UserError
from csgcnn.evaluation.inference import in_batches, predict_rows
from csgcnn.evaluation.metrics import Metrics, target_metrics
from csgcnn.nn.network import CrystalGraphNetwork
from csgcnn.training.cuda_graphs import RecordedStep
from csgcnn.training.ema import ExponentialMovingAverage
from csgcnn.training.state import random_state, set_random_state

Row = dict[str, float]
UNFINISHED = (
    "model",
    "loss",
    "average",
    "optimizer",
    "scheduler",
)  # parts of the state that have a state_dict
PROGRESS = (
    "n_steps",
    "history",
    "best_epoch",
    "best_score",
    "best",
    "skipped",
    "lr",
    "order",
    "losses",
    "n_done",
)
LENGTH = (
    "total_steps",
    "_schedule_phases",
)  # what a schedule knows of max_epochs, which may change on resume


class DivergenceError(UserError):
    """A number is no longer finite; `culprits` are the ids of the crystals in the batches where that began."""

    def __init__(self, message: str, epoch: int, culprits: list[str]) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.culprits = culprits


class Trainer:
    """Trains on split["train"], chooses the epoch by its score on split["val"], never looks at split["test"].

    The score is a mean over the targets: of a number the MAE in standard deviations of the training rows, of a class
    the cross entropy, which judges the probabilities and does not tie between epochs as the accuracy of few rows does.

    `values` [n_graphs, n_targets] in physical units, NaN where missing; the model's scaler and global features are
    fitted on the training rows. With an `ema`, the moving average of the weights is what is validated and kept.
    Parameters of the `loss` are trained, too.

    A training that is cut off and continued by `state` and `load_state` ends as if it had not been, to the bit.

    Several `processes` take the same steps as one: each answers for its share of a batch, all compute the loss of the
    whole, and their gradients are added up.
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
        augment: Callable[[GraphBatch, Tensor], GraphBatch] | None = None,
    ) -> None:
        self.model = model.to(store.device)
        self.store = store
        self.targets = targets
        self.values = values.to(store.device)
        self.split = split
        self.loss = loss.to(store.device)
        self.settings = settings
        self.augment = augment  # (batch, share of the training that is over) -> batch
        self.progress = torch.zeros((), device=store.device)
        model.scaler.fit(values[split["train"]].to(store.device))
        if model.global_features is not None:
            model.global_features.fit(
                torch.from_numpy(store.graphs.global_features)[split["train"]]
            )
        self.frozen = model.body if settings.freeze_body else []
        for module in self.frozen:
            module.requires_grad_(False)
        self.optimizer = make_optimizer(_parameter_groups(model, loss, settings.layer_decay))
        for group in self.optimizer.param_groups:
            group["lr"] *= group.pop("factor", 1.0)
        n_batches = len(split_batches(split["train"], settings.batch_size))
        self.scheduler = make_scheduler(self.optimizer, settings.max_epochs * n_batches)
        self.n_steps = 0
        self.average = ExponentialMovingAverage(model, settings.ema) if settings.ema else None
        self.history: list[Row] = []  # a row of metrics per epoch
        self.best_epoch = 0
        self.best_score = math.inf
        self.best = _copied(self.evaluated.state_dict())
        self.skipped: list[dict[str, Any]] = []  # batches left out: epoch and ids
        self.lr = math.nan  # at the start of the present epoch
        self.order = split["train"][:0]  # of the rows in the present epoch; none between two epochs
        self.losses = torch.zeros(
            n_batches, device=store.device
        )  # of the batches done in the present epoch
        self.n_done = 0  # batches of it
        if distributed.rank():
            torch.manual_seed(
                torch.initial_seed() + distributed.rank()
            )  # dropout and noise of its own
        # dynamic: sizes differ from batch to batch, and each would be compiled anew
        self.answer = (
            torch.compile(model.standardized, dynamic=True)
            if settings.compile
            else model.standardized
        )
        trained = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self.replay = (
            RecordedStep(store, settings.batch_size, self._pass, trained)
            if self._may_replay
            else None
        )

    @property
    def evaluated(self) -> CrystalGraphNetwork:
        """The model that is validated and kept."""
        return cast(CrystalGraphNetwork, self.average.module) if self.average else self.model

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return len(self.history)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or `patience` of them brought nothing."""
        patience = self.settings.patience or math.inf
        return self.epoch >= self.settings.max_epochs or self.epoch - self.best_epoch >= patience

    @property
    def _may_replay(self) -> bool:
        """Whether passes are the same work each time, on a GPU and without a look at their results."""
        settings = self.settings
        differs = (
            settings.compile or settings.max_skipped or torch.are_deterministic_algorithms_enabled()
        )
        on_gpu = self.store.device.type == "cuda" and self.store.is_resident
        return settings.cuda_graphs and on_gpu and distributed.world_size() == 1 and not differs

    def initialize_from(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the initial values of these weights, before the first step."""
        self.model.load_state_dict({**self.model.state_dict(), **weights})
        self.evaluated.load_state_dict(self.model.state_dict())
        self.best = _copied(self.evaluated.state_dict())

    def fit(self, on_step: Callable[[], None]) -> None:
        """Train to the end; `on_step` is called after each batch and each epoch and may take the `state`, or stop.

        Raises:
            DivergenceError: a loss or a weight is no longer finite.
        """
        progress, total = self.settings.progress, self.settings.max_epochs
        with tqdm(
            total=total, initial=self.epoch, unit="epoch", disable=None if progress else True
        ) as bar:
            while not self.is_over:
                row = self._run_epoch(on_step)
                bar.set_postfix(
                    train=f"{row['train_loss']:.4f}",
                    val=f"{row['val_loss']:.4f}",
                    best=self.best_epoch,
                    refresh=False,
                )
                bar.update()
                on_step()

    def _run_epoch(self, on_step: Callable[[], None]) -> Row:
        start, n_before = time.perf_counter(), self.n_done
        train_loss = self._train_epoch(on_step)
        seconds = time.perf_counter() - start
        val_loss, metrics = self._validate()
        row = {
            "epoch": self.epoch + 1,
            "lr": self.lr,
            "train_loss": train_loss,
            "val_loss": val_loss,
        }
        for target in self.targets:
            shown = ("balanced_accuracy", "cross_entropy") if target.classes else ("mae",)
            row |= {f"val_{name}_{target.name}": metrics[target.name][name] for name in shown}
        row |= {
            "seconds": time.perf_counter() - start,
            "graphs_per_second": (len(self.order) - n_before * self.settings.batch_size) / seconds,
        }
        self.history.append(row)
        self.order, self.n_done = self.order[:0], 0
        score = self.score(metrics)
        if score < self.best_score:
            self.best_score, self.best_epoch = score, self.epoch
            self.best = _copied(self.evaluated.state_dict())
        return row

    def _train_epoch(self, on_step: Callable[[], None]) -> float:
        """One pass over the training rows in random order, or the rest of one; their mean loss."""
        rows = self.split["train"]
        if not len(self.order):
            self.order = distributed.broadcast_tensor(self.store.shuffled(rows))
            self.lr = self.optimizer.param_groups[0]["lr"]
        batches = split_batches(self.order, self.settings.batch_size)
        self.model.train()
        for module in self.frozen:  # batch norms keep their statistics, too
            module.eval()
        self.progress.fill_(self.epoch / self.settings.max_epochs)
        left = batches[self.n_done :]
        for batch_rows, batch in zip(left, self._batches(left), strict=True):
            self.losses[self.n_done] = self._step(batch_rows, batch)
            if not isinstance(self.scheduler, ReduceLROnPlateau):
                self.scheduler.step()
            self.n_done += 1
            on_step()
        self.check()
        sizes = torch.tensor(
            [float(len(batch_rows)) for batch_rows in batches], device=self.store.device
        )
        counted = torch.where(
            self.losses.isfinite(), sizes, 0.0
        )  # all, but for batches that were skipped
        return ((self.losses.nan_to_num(0.0) * counted).sum() / counted.sum()).item()

    def _batches(self, parts: Sequence[Tensor]) -> Iterable[GraphBatch | None]:
        """A batch for each of `parts`, or None where the pass over it is replayed."""
        if self.replay is None:
            return self.store.batches(map(distributed.shard_rows, parts))
        return (None if self.replay.takes(rows) else self.store.batch(rows) for rows in parts)

    def _step(self, rows: Tensor, batch: GraphBatch | None) -> Tensor:
        """One step on the batch of `rows`, or this process's share; its loss, on the device, NaN if it was skipped."""
        buffers = (
            [buffer.clone() for buffer in self.model.buffers()] if self.settings.max_skipped else []
        )
        if self.replay and batch is None:
            loss = self.replay(rows)
        else:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._pass(
                rows.to(self.store.device, non_blocking=True), cast(GraphBatch, batch)
            )
        if self.settings.max_skipped and not loss.isfinite():
            return self._skip(rows, buffers)
        self.optimizer.step()
        self.n_steps += 1
        if self.average:
            self.average.update(self.model)
        return loss

    def _pass(self, rows: Tensor, batch: GraphBatch) -> Tensor:
        """Loss of a batch, and its gradients, clipped; NaN for a batch to skip, whose gradient is not finite."""
        if self.augment:
            batch = self.augment(batch, self.progress)
        with torch.autocast(
            self.store.device.type, torch.bfloat16, self.settings.precision == "bfloat16"
        ):
            prediction = self.answer(batch)
        target = self.model.scaler.standardize(self.values.index_select(0, rows))
        loss = self.loss(distributed.gather(prediction.float(), len(rows)), target)
        loss.backward()
        distributed.sum_gradients(self.model.parameters())
        limit, may_skip = self.settings.grad_clip, self.settings.max_skipped > 0
        if limit or may_skip:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit or math.inf)
        return torch.where(norm.isfinite(), loss.detach(), math.nan) if may_skip else loss.detach()

    @torch.no_grad()
    def _skip(self, rows: Tensor, buffers: Sequence[Tensor]) -> Tensor:
        """Undo what a batch without a finite loss or gradient did."""
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        self.skipped.append({"epoch": self.epoch + 1, "ids": self._ids(rows)})
        if len(self.skipped) > self.settings.max_skipped:
            raise self._diverged(
                f"{len(self.skipped)} batches had no finite loss or gradient, more than trainer.max_skipped allows",
                [id_ for batch in self.skipped for id_ in batch["ids"]],
            )
        return self.losses.new_tensor(math.nan)

    def check(self) -> None:
        """Raise DivergenceError unless the losses of the present epoch and all weights are finite."""
        losses = self.losses[: 0 if self.settings.max_skipped else self.n_done]
        checked = [losses, *self.model.state_dict().values()]
        if torch.stack(
            [tensor.isfinite().all() for tensor in checked]
        ).all():  # one question to the device
            return
        if len(bad := (~losses.isfinite()).nonzero()):
            first, batches = int(bad[0]), split_batches(self.order, self.settings.batch_size)
            raise self._diverged(
                f"the loss of batch {first + 1} is {self.losses[first]:.3g}",
                self._ids(
                    torch.cat(batches[max(0, first - 1) : first + 1])
                ),  # a gradient spoils the next loss
            )
        last = split_batches(self.order, self.settings.batch_size)[: self.n_done][-1:]
        raise self._diverged(
            "the weights are not finite", [id_ for rows in last for id_ in self._ids(rows)]
        )

    def _diverged(self, what: str, culprits: list[str]) -> DivergenceError:
        advice = "a lower optimizer.lr usually helps; if single crystals are to blame, trainer.max_skipped=10"
        epoch = self.epoch + 1
        return DivergenceError(
            f"training diverged in epoch {epoch}: {what}; {advice}", epoch, culprits
        )

    def _ids(self, rows: Tensor) -> list[str]:
        return [self.store.ids[row] for row in rows.tolist()]

    @torch.no_grad()
    def _validate(self) -> tuple[float, dict[str, Metrics]]:
        """Loss, and metrics per target, on the validation rows."""
        model, values = self.evaluated, self.values_of("val")
        rows = self.split["val"]
        outputs = in_batches(
            model, model.standardized, self.store, rows, 4 * self.settings.batch_size
        )
        loss = self.loss(outputs.float(), model.scaler.standardize(values)).item()
        if not math.isfinite(loss):
            culprits = rows[~outputs.isfinite().all(1).cpu()]
            raise self._diverged(f"the validation loss is {loss:.3g}", self._ids(culprits))
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        return loss, target_metrics(model.scaler(outputs.float()).cpu(), values.cpu(), self.targets)

    def score(self, metrics: Mapping[str, Metrics]) -> float:
        """What decides which epoch is the best, of metrics on the validation rows; the lower the better."""
        stds = self.model.scaler.std.tolist()
        scores = [
            metrics[target.name]["cross_entropy"]
            if target.classes
            else metrics[target.name]["mae"] / std
            for target, std in zip(self.targets, stds, strict=True)
        ]
        known = [
            score for score in scores if not math.isnan(score)
        ]  # a target may be missing in all of these rows
        return sum(known) / len(known) if known else math.nan

    def predict(self, part: str) -> Tensor:
        """Values in physical units and probabilities for a part of the split: [n_rows, sum of n_outputs]."""
        return predict_rows(
            self.evaluated, self.store, self.split[part], 4 * self.settings.batch_size
        )

    def values_of(self, part: str) -> Tensor:
        """Values of the targets in a part of the split, NaN where missing: [n_rows, n_targets]."""
        return self.values.index_select(0, self.split[part].to(self.store.device))

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on, as plain data.

        Raises:
            DivergenceError: it is not worth keeping.
        """
        self.check()
        return {
            **{
                name: part.state_dict()
                for name in UNFINISHED
                if (part := getattr(self, name)) is not None
            },
            "scheduler": {k: v for k, v in self.scheduler.state_dict().items() if not callable(v)},
            **{name: getattr(self, name) for name in PROGRESS},
            "rng": {
                name: distributed.all_gather(state)
                for name, state in random_state(self.store.device).items()
            },
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken; the random numbers, too."""
        lengths = {
            name: value for name, value in self.scheduler.state_dict().items() if name in LENGTH
        }
        for name in UNFINISHED:
            part = getattr(self, name)
            if part is not None:
                part.load_state_dict(state[name] | lengths if name == "scheduler" else state[name])
        for name in PROGRESS:
            setattr(self, name, state[name])
        self.losses = self.losses.to(self.store.device)
        set_random_state(
            {name: states.view(-1, states.shape[-1]) for name, states in state["rng"].items()},
            self.store.device,
        )


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _parameter_groups(
    model: CrystalGraphNetwork, loss: nn.Module, layer_decay: float
) -> list[dict[str, Any]]:
    """The parameters that are trained; from stage to stage away from the head the rate is multiplied by `layer_decay`.

    Howard & Ruder, ACL 2018 (discriminative fine-tuning).
    """
    stages: list[list[nn.Module]] = [[model]] if layer_decay == 1 else model.stages[::-1]
    groups: list[dict[str, Any]] = []
    for depth, modules in enumerate(stages):
        trained = [
            weight for module in modules for weight in module.parameters() if weight.requires_grad
        ]
        groups += [{"params": trained, "factor": layer_decay**depth}] if trained else []
    if learned := list(loss.parameters()):
        groups.append(
            {"params": learned, "weight_decay": 0.0}
        )  # decay would push variances towards 1
    return groups
