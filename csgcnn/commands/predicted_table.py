"""The table that `csgcnn predict` writes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig

from csgcnn.data.targets import with_unit
from csgcnn.errors import plural
from csgcnn.predictor import Predictor
from csgcnn.runs.predictions import IN_TRAINING, NEAREST_NUMBERS, TRUE, DomainSummary
from csgcnn.runs.tables import predicted_columns
from csgcnn.screening.selection import Selection, selection
from csgcnn.screening.table_files import write_table


class PredictedTable:
    """The table of predictions: its columns, the rows to keep, and those outside the domain."""

    def __init__(self, predictor: Predictor, cfg: DictConfig) -> None:
        targets = predictor.targets
        self.texts = [*predictor.empty().texts]
        inputs = [column for column in predictor.input_columns if not column.is_reference]
        columns = [("id", ""), *((column.name, "") for column in inputs)]
        columns += predicted_columns(targets, predictor.has_std, predictor.has_intervals)
        columns += [(name, "") for name in self.texts]
        text_names = {"id", *self.texts, *(target.name for target in targets if target.classes)}
        text_names -= {*NEAREST_NUMBERS}
        text_names |= {column.name for column in inputs if column.categories}
        names = [name for name, _ in columns]
        self.header = [with_unit(name, unit) for name, unit in columns]
        self.is_number = [name not in text_names for name in names]
        self._vectors = {
            target.name: (names.index(target.outputs[0]), target.grid)
            for target in targets
            if target.grid
        }
        self.summary = DomainSummary()
        self.n_in_training, self._last = 0, ""
        self.has_fingerprints = predictor.training_set.fingerprints is not None
        default = targets[0].name if len(targets) == 1 and targets[0].n_outputs == 1 else None
        self.selection: Selection = selection(
            names, self.is_number, cfg.where, cfg.top, cfg.by, cfg.order, default
        )

    def write(self, path: Path, rows: Iterator[Sequence[str]]) -> int:
        """Write the selected rows; return their number.

        Args:
            path: File whose suffix is the format of the table.
            rows: All rows.
        """
        counted = map(self._count, rows)
        selected = self.selection.of(counted)
        return write_table(path, self.header, self.is_number, selected, self._vectors)

    def _count(self, row: Sequence[str]) -> Sequence[str]:
        texts = dict(zip(self.texts, row[-len(self.texts) :], strict=True))
        self.summary.add(row[0], texts)
        # A crystal with several values of an input has several rows.
        self.n_in_training += texts[IN_TRAINING] == TRUE and row[0] != self._last
        self._last = row[0]
        return row

    def lines(self) -> list[str]:
        """Return warnings about training crystals, and about crystals unlike these."""
        lines = self.summary.lines()
        if self.n_in_training:
            by_id = "" if self.has_fingerprints else ", by ids alone: the checkpoint is an old one"
            verb = "is" if self.n_in_training == 1 else "are"
            lines.append(
                f"{plural(self.n_in_training, 'structure')} {verb} in the training set (column "
                f"{IN_TRAINING}{by_id}); the errors of these predictions are optimistic"
            )
        return lines
