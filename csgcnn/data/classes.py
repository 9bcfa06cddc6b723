"""Classes of a column: their labels and their order."""

from collections.abc import Sequence
from pathlib import Path

from csgcnn.crystals.records import Scalar, is_missing, is_missing_number
from csgcnn.errors import UserError

# Largest number of classes, that of the space groups; a column with more is rather a number.
MOST_CLASSES = 230
# Labels of a column of booleans; among other numbers they are 0 and 1.
TRUTHS = {"false": "0", "true": "1"}


def _label_of(value: float | int | str | bool) -> str:
    """Return the label of a class: 1, 1.0, true and "1" are the same class."""
    if isinstance(value, str):
        return value
    return str(int(value)) if isinstance(value, int) or value.is_integer() else repr(value)


def position_of(value: float | int | str | bool, classes: Sequence[str]) -> int | None:
    """Return the position of the class of a value, or None if it is another one.

    Args:
        value: A cell of the column; booleans are written true, True or 1.
        classes: Labels of the classes.
    """
    label = _label_of(value)
    if label not in classes and tuple(classes) == tuple(TRUTHS):
        label = {number: name for name, number in TRUTHS.items()}.get(label, label.lower())
    return classes.index(label) if label in classes else None


def classes_of(name: str, values: Sequence[Scalar], source: Path) -> tuple[str, ...]:
    """Return the sorted labels of the classes of a column.

    Args:
        name: Name of the column.
        values: Its cells.
        source: Path of the data, for messages.

    Raises:
        UserError: There is one class, or there are too many.
    """
    labels = labels_of(values)
    if len(labels) == 1:
        n_known = sum(value is not None and value == value for value in values)
        n_missing = len(values) - n_known
        rest = f", the other {n_missing} have no value" if n_missing else ""
        raise UserError(
            f"{source}: all {n_known} rows have {name} = {labels[0]}{rest}: there is nothing "
            "to learn; a classification target needs two classes"
        )
    if not 2 <= len(labels) <= MOST_CLASSES:
        some = ", ".join(labels[:3])
        raise UserError(
            f"{source}: {name} has {len(labels)} different values{f' ({some}, …)' if some else ''},"
            f" expected 2 to {MOST_CLASSES} classes. Make classes from numbers with "
            f"dataset.derived.NAME='{name} > 0'"
        )
    return labels


def labels_of(values: Sequence[Scalar]) -> tuple[str, ...]:
    """Return the sorted labels of the different values of a column."""
    known = [value for value in values if value is not None and value == value]
    if known and all(isinstance(value, bool) for value in known):
        labels = {str(value).lower() for value in known}
    else:
        labels = {_label_of(value) for value in known}
    if not any_text(values):
        labels = {label for label in labels if not is_missing_number(label)}
    return tuple(sorted(labels, key=_class_order))


def text_hint(name: str, values: Sequence[Scalar]) -> str:
    """Return the advice for a column that is predicted as a number but holds text only.

    Args:
        name: Name of the column.
        values: Its cells.

    Returns:
        The advice, or nothing if some cells are numbers.
    """
    known = [value for value in values if not is_missing(value)]
    if not known or not all(isinstance(value, str) for value in known):
        return ""
    return (
        f"{name} holds text such as {known[0]!r:.40}; for classes give "
        f"dataset.tasks.{name}=classification"
    )


def any_text(values: Sequence[Scalar]) -> bool:
    """Return whether some values are text and do not stand for a missing number."""
    return any(isinstance(value, str) and not is_missing_number(value) for value in values)


def _class_order(label: str) -> tuple[bool, float, str]:
    """Numbers first, in order, then text."""
    try:
        return False, float(label), label
    except ValueError:
        return True, 0.0, label
