"""Tables of text: delimiter, quotes, comments and decimal signs recognized by their content."""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from csgcnn.crystals.records import Scalar, is_missing, parse_scalar
from csgcnn.crystals.text_files import ONE_STRUCTURE, text_lines
from csgcnn.errors import StructureError, UserError, one_line, plural

# Lines that are read ahead to recognize the form of the table.
_N_HEAD_LINES = 500
# In the order of preference, where several fit.
_DELIMITERS = ("\t", ";", ",")
# The first line by which spreadsheets name the delimiter.
_NAMED_DELIMITER = re.compile(r"""["']?sep=([,;\t])["']?\s*""", re.IGNORECASE)
_SINGLE_QUOTED = re.compile(r"(?:^|[,;\t])\s*'[^'\"]*'\s*(?=$|[,;\t])", re.MULTILINE)
_COMMA_NUMBER = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
# The comma may separate thousands.
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")


class CsvRow(NamedTuple):
    """A row of a table.

    Attributes:
        line: Number of its last line in the file.
        cells: Its cells, stripped.
    """

    line: int
    cells: list[str]


class CsvFile:
    """A table of text, read row by row; blank lines and lines that begin with `#` are skipped.

    Args:
        path: The file.

    Attributes:
        rows: The rows; raises UserError at a malformed one, or if there are none.
        comment: Cells of the last comment before the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = _lines(path)
        head = list(islice(lines, _N_HEAD_LINES))
        named = _NAMED_DELIMITER.fullmatch(head[0]) if head else None
        if named:
            head[0] = "\n"
        self._quote = _quote(head)
        self._delimiter = named[1] if named else self._best_delimiter(head)
        self.comment = self._comment(head)
        # The last row may continue behind the head.
        rows = [row.cells for row in islice(self._rows(iter(head), False), _N_HEAD_LINES)]
        self._comma_columns = {
            position: column
            for position, column in enumerate(
                zip(*(row for row in rows if len(row) == len(rows[0])), strict=True)
            )
            if _has_decimal_commas(column)
        }
        self.rows = self._rows(chain(head, lines), True)

    def value(self, cell: str, position: int, line: int) -> Scalar:
        """Return the number or text of a cell; None if it stands for a missing value.

        Args:
            cell: The cell.
            position: Position of its column.
            line: Number of its line, for messages.

        Raises:
            UserError: It is unclear which number the cell is.
        """
        column = self._comma_columns.get(position)
        if column is None or is_missing(cell):
            return parse_scalar(cell)
        if "," not in cell:
            if "." not in cell or isinstance(parse_scalar(cell), str):
                return parse_scalar(cell)
            reason = "has a decimal point, but other cells of this column have a decimal comma"
        elif all(map(_THOUSANDS.fullmatch, filter(_COMMA_NUMBER.fullmatch, column))):
            reason = "has a comma that may separate decimals or thousands"
        else:
            return parse_scalar(cell.replace(",", ".", 1))
        raise UserError(
            f"{self.path}: line {line}: {one_line(cell, 40)!r} {reason}; "
            "write numbers with a decimal point"
        )

    def _rows(self, lines: Iterator[str], is_checked: bool) -> Iterator[CsvRow]:
        """Yield the rows of some lines; errors end them silently unless they are checked."""
        # A cell may hold the text of a structure.
        csv.field_size_limit(int(ONE_STRUCTURE.max_bytes))
        reader = csv.reader(
            self._without_comments(lines),
            delimiter=self._delimiter,
            quotechar=self._quote,
            skipinitialspace=True,
            strict=is_checked,
        )
        length = 0
        try:
            for cells in reader:
                row = [_unquoted(cell.strip()) for cell in cells]
                if not any(row):
                    continue
                length = length or len(row)
                if is_checked and len(row) != length:
                    fields = plural(len(row), "field")
                    found = f"line {reader.line_num} has {fields}, expected {length}"
                    raise UserError(f"{self.path}: {found}")
                yield CsvRow(reader.line_num, row)
        except csv.Error as error:
            if is_checked:
                reason = f"line {reader.line_num} is not csv ({error})"
                raise UserError(f"{self.path}: {reason}") from None
        if is_checked and not length:
            raise UserError(f"{self.path}: the table is empty")

    def _without_comments(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the lines, blank in place of comments, so that their numbers stay right."""
        is_quoted = False
        for line in lines:
            if not is_quoted and line.lstrip().startswith("#"):
                yield "\n"
                continue
            is_quoted ^= bool(line.count(self._quote) % 2)
            yield line

    def _best_delimiter(self, head: Sequence[str]) -> str:
        """Return the delimiter that gives most rows as many cells as the first, at least two."""
        scores = {}
        for delimiter in (*_DELIMITERS, " "):
            self._delimiter = delimiter
            lengths = [len(row.cells) for row in self._rows(iter(head), False)]
            n_equal = lengths.count(lengths[0]) if lengths and lengths[0] > 1 else 0
            scores[delimiter] = n_equal / max(1, len(lengths))
        best = max(_DELIMITERS, key=scores.__getitem__)
        # Spaces occur in names, too.
        return best if scores[best] else " " if scores[" "] == 1 else ","

    def _comment(self, head: Sequence[str]) -> list[str]:
        comment = ""
        for line in head:
            if line.strip() and not line.lstrip().startswith("#"):
                break
            comment = line.strip() or comment
        cells = comment.lstrip("# ").split(self._delimiter)
        return [_unquoted(cell.strip()) for cell in cells]


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from text_lines(path)
    except StructureError as error:
        raise UserError(f"{path}: {error}") from None


def _quote(head: Sequence[str]) -> str:
    is_single = not any('"' in line for line in head)
    return "'" if is_single and any(map(_SINGLE_QUOTED.search, head)) else '"'


def _unquoted(cell: str) -> str:
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "'\""
    return cell[1:-1].strip() if is_quoted else cell


def _has_decimal_commas(column: Sequence[str]) -> bool:
    """Return whether a column holds numbers, some with a comma; its first cell may be a name."""
    first, *others = column
    cells = [cell for cell in others if not is_missing(cell)]
    if _COMMA_NUMBER.fullmatch(first):
        cells.append(first)
    is_number = (_COMMA_NUMBER.fullmatch(c) or not isinstance(parse_scalar(c), str) for c in cells)
    return all(is_number) and any(map(_COMMA_NUMBER.fullmatch, cells))
