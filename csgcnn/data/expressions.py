"""Expressions of columns, such as `log10(modulus)` or `band_gap == 0`; nothing is executed."""

import ast
import keyword
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from csgcnn.crystals.records import Scalar, is_missing_number

LONGEST = 1000  # characters
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
# Functions of one argument, and of two or more.
FUNCTIONS: dict[str, Callable[..., float]] = {
    "log10": math.log10,
    "log": math.log,
    "sqrt": math.sqrt,
    "abs": abs,
    "exp": math.exp,
}
REDUCTIONS: dict[str, Callable[..., float]] = {"min": min, "max": max}
EXPECTED = (
    "expected <column> <sign> <number> with one of < <= > >= == !=, or arithmetic of columns and "
    f"numbers with + - * / ** {' '.join([*FUNCTIONS, *REDUCTIONS])}"
)
_PLACEHOLDER = "column_of_number_"
# Columns in backticks, and text.
_QUOTED = re.compile(r"""(`[^`]*`|'[^']*'|"[^"]*")""")


class UnknownColumnError(ValueError):
    """An expression names a column that does not exist.

    Args:
        column: The name.
    """

    def __init__(self, column: str) -> None:
        super().__init__(f"no column {column!r}")
        self.column = column


class TextFoundError(ValueError):
    """A column holds text where a number is needed.

    Args:
        column: Name of the column.
        row: Position of the first such row.
        value: The text.
    """

    def __init__(self, column: str, row: int, value: str) -> None:
        super().__init__(f"{column} holds {value!r}")
        self.column, self.row, self.value = column, row, value


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression of columns.

    Attributes:
        columns: Names of the columns that it reads.
        texts: Those of them that are compared with text, such as `kind == 'metal'`.
        tree: The parsed expression; a name of a column is `names[name]`, or itself.
        names: Names of columns by the placeholders in `tree`.
    """

    columns: list[str]
    texts: frozenset[str]
    tree: ast.expr
    names: Mapping[str, str]

    def values(self, columns: Mapping[str, Sequence[Scalar]]) -> tuple[list[Scalar], list[int]]:
        """Return the value of each row, and the rows where it cannot be computed.

        Args:
            columns: Values by the names of the columns.

        Returns:
            Numbers, 0 and 1 of a comparison, or text; None where a value is missing or cannot be
            computed. The rows of the second kind, such as those of log10(0).

        Raises:
            TextFoundError: A column of numbers holds text.
        """
        rows = list(zip(*(columns[name] for name in self.columns), strict=True))
        found: list[Scalar] = [None] * len(rows)
        failed = []
        for row, of_row in enumerate(rows):
            cells = {
                name: self._cell(name, row, value)
                for name, value in zip(self.columns, of_row, strict=True)
            }
            if None in cells.values():
                continue
            try:
                found[row] = _result(self._evaluate(self.tree, cells))
            except (ArithmeticError, ValueError, TypeError):
                failed.append(row)
        return found, failed

    def _cell(self, name: str, row: int, value: Scalar) -> float | str | None:
        if value is None or value != value:
            return None
        if name in self.texts:
            return str(value)
        if is_missing_number(value):
            return None
        if isinstance(value, str):
            raise TextFoundError(name, row, value)
        return float(value)

    def _evaluate(self, node: ast.expr, cells: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else float(cast(int, node.value))
        if column := _column_name(node, self.names):
            return cells[column]
        if isinstance(node, ast.IfExp):
            is_true = self._evaluate(node.test, cells)
            return self._evaluate(node.body if is_true else node.orelse, cells)
        values = [self._evaluate(part, cells) for part in _parts(node)]
        if isinstance(node, ast.Call):
            name = node.func.id  # type: ignore[attr-defined]
            return (FUNCTIONS | REDUCTIONS)[name](*values)
        return OPERATORS[type(_operator(node))](*values)


def _result(value: Any) -> Scalar:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the result is not finite")
    if not isinstance(value, float | str):
        # a power of a negative number is complex
        raise TypeError("the result is not a number")
    return value


def parse_expression(text: str, columns: Collection[str]) -> Expression:
    """Parse an expression.

    Columns appear by name; an ambiguous name needs backticks: `a gap (eV)`.

    Args:
        text: A comparison, arithmetic, or `'text' if <comparison> else 'text'`.
        columns: Names of the columns of the data.

    Raises:
        UnknownColumnError: It names a column that does not exist.
        ValueError: It is not an expression, or ambiguous; the message says what was expected.
    """
    if len(text) > LONGEST:
        raise ValueError(f"expected at most {LONGEST} characters")
    source, names = _with_placeholders(text, columns)
    try:
        tree = ast.parse(source.strip(), mode="eval").body
        nodes = [tree, *_below(tree, names)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(EXPECTED) from None
    found = [name for node in nodes if (name := _column_name(node, names))]
    if not found:
        raise ValueError(EXPECTED)
    if unknown := [name for name in found if name not in columns]:
        raise UnknownColumnError(unknown[0])
    texts = frozenset(
        name
        for node in nodes
        if isinstance(node, ast.Compare) and any(map(_is_text, _parts(node)))
        for part in _parts(node)
        if (name := _column_name(part, names))
    )
    return Expression(list(dict.fromkeys(found)), texts, tree, names)


def _column_name(node: ast.expr, names: Mapping[str, str]) -> str | None:
    """Return the name of the column that a node stands for, or None."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (before := _column_name(node.value, {})):
        return f"{before}.{node.attr}"
    return None


def _below(node: ast.expr, names: Mapping[str, str]) -> list[ast.expr]:
    """Return the nodes below a node; raise ValueError if one of them is not allowed."""
    if _column_name(node, names) or (
        isinstance(node, ast.Constant) and type(node.value) in (int, float, str)
    ):
        return []
    parts = _parts(node)
    return [*parts, *(below for part in parts for below in _below(part, names))]


def _parts(node: ast.expr) -> list[ast.expr]:
    """Return the operands of a node; raise ValueError if it is not allowed."""
    match node:
        case ast.BinOp(left=left, right=right) if type(node.op) in OPERATORS:
            return [left, right]
        case ast.UnaryOp(operand=operand) if type(node.op) in OPERATORS:
            return [operand]
        case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in OPERATORS:
            return [left, right]
        case ast.IfExp(test=ast.Compare() as test, body=body, orelse=other):
            return [test, body, other]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            if (name in FUNCTIONS and len(arguments) == 1) or (
                name in REDUCTIONS and len(arguments) > 1
            ):
                return arguments
    raise ValueError(EXPECTED)


def _operator(node: ast.expr) -> ast.AST:
    return node.ops[0] if isinstance(node, ast.Compare) else node.op  # type: ignore[attr-defined]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _with_placeholders(text: str, columns: Collection[str]) -> tuple[str, dict[str, str]]:
    """Return the text with identifiers in place of names that are none, and the names by them."""
    names: dict[str, str] = {}

    def placeholder(name: str) -> str:
        key = f"{_PLACEHOLDER}{len(names)}"
        names[key] = name
        return f" {key} "

    odd = sorted(filter(_is_odd, columns), key=len, reverse=True)
    parts = _QUOTED.split(text)
    for i, part in enumerate(parts):
        if part.startswith("`"):
            parts[i] = placeholder(part[1:-1])
        if i % 2:
            continue
        for name in odd:
            if name in part and (pattern := _pattern(name)).search(part):
                _check_unambiguous(name, columns)
                part = pattern.sub(lambda _, name=name: placeholder(name), part)
        parts[i] = part
    return "".join(parts), names


def _check_unambiguous(name: str, columns: Collection[str]) -> None:
    others = [column for column in columns if column != name and _is_identifier(column)]
    try:
        parse_expression(name, others)
    except ValueError:
        return
    raise ValueError(
        f"{name} is a column, and an expression of other columns; put columns in backticks: "
        f"`{name}`"
    )


def _pattern(name: str) -> re.Pattern[str]:
    before = r"(?<![\w.])" if re.match(r"\w", name) else ""
    after = r"(?![\w.])" if re.search(r"\w$", name) else ""
    return re.compile(f"{before}{re.escape(name)}{after}")


def _is_odd(name: str) -> bool:
    """Return whether a name needs a placeholder; those of numbers and signs need backticks."""
    return bool(re.search(r"[^\W\d]", name)) and not _is_identifier(name) and not _is_number(name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_identifier(name: str) -> bool:
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
