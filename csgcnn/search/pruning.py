"""Prune the trials of a hyperparameter search that are worse than others."""

import math
from pathlib import Path

import optuna
from optuna.pruners import MedianPruner

from csgcnn.search.storage import STUDY, open_storage, storage_errors

# Reports per training: the database takes some 20 ms for each.
MAX_REPORTS = 50


class Pruning:
    """Report the scores of a trial, and decide whether to prune it.

    A trial is pruned if its best score is worse than the median, after as many epochs, of the
    trials that were trained to the end.

    Args:
        folder: Run directory of the trial, named by its number.
        max_epochs: Epochs of the training.
        prune_after: Fraction of the epochs that each trial gets; None: no trial is pruned.
        min_trials: Trials that must have been trained to the end before any is pruned.

    Raises:
        UserError: The database cannot be used.
    """

    def __init__(
        self, folder: Path, max_epochs: int, prune_after: float | None, min_trials: int = 5
    ) -> None:
        self.folder = folder.parent
        self.max_epochs = max_epochs
        self.prune_after = prune_after
        with storage_errors(self.folder):
            self._storage = open_storage(self.folder)
            pruner = MedianPruner(min_trials, math.ceil((prune_after or 0) * max_epochs))
            self._study = optuna.load_study(study_name=STUDY, storage=self._storage, pruner=pruner)
            study_id = self._storage.get_study_id_from_name(STUDY)
            self._trial_id = self._storage.get_trial_id_from_study_id_trial_number(
                study_id, int(folder.name)
            )

    def __call__(self, epoch: int, score: float) -> bool:
        """Report the best score so far, and return whether to prune the trial.

        Args:
            epoch: Epochs that are done.
            score: Best validation score so far.
        """
        is_due = epoch % math.ceil(self.max_epochs / MAX_REPORTS) == 0
        if not is_due and epoch != self.max_epochs:
            return False
        with storage_errors(self.folder):
            self._storage.set_trial_intermediate_value(self._trial_id, epoch, score)
            if self.prune_after is None:
                return False
            return self._study.pruner.prune(self._study, self._storage.get_trial(self._trial_id))
