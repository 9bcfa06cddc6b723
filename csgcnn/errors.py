"""Errors that the user can fix: printed in one or two lines, without a traceback."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """An error the user can fix; the message names the cause, what was expected and what to do."""

    exit_code = 1


class ConfigError(UserError):
    """A mistake on the command line or in the configuration."""

    exit_code = 2


class CombinationError(ConfigError):
    """Values that are possible on their own, but not together."""


class StructureError(UserError):
    """A structure that cannot be used: disordered, of an unknown element, malformed, ..."""


class AbortError(Exception):
    """End the program, including a sweep with all its jobs; `__cause__` holds the reason."""


class FailedJobError(UserError):
    """A failed job of a sweep; picklable, because a launcher may pass it between processes."""


class DataWarning(UserWarning):
    """A structure or a prediction that may be wrong: corrected by a parser, unseen elements, ..."""


def nearest(word: str, options: Sequence[str]) -> str:
    """Return the end of an error message that proposes the most similar spelling.

    Args:
        word: What was given.
        options: What is allowed.

    Returns:
        "; did you mean OPTION?", or "" if none is similar.
    """
    matches = get_close_matches(word, options, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of an error without one.

    Of a message that may come from an untrusted file, 200 printable characters at most, so that
    the line cannot control a terminal.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return "".join(filter(str.isprintable, line[:200]))


def one_line(reason: object, longest: int = 200) -> str:
    """Return a whole message as one line, or the name of an error without a message.

    Args:
        reason: An error or a text, which may come from an untrusted file.
        longest: Largest number of characters; a longer line ends with "...".

    Returns:
        Printable characters only, so that the line cannot control a terminal.
    """
    line = "".join(filter(str.isprintable, " ".join(str(reason).split()))) or type(reason).__name__
    return line if len(line) <= longest else line[: longest - 3] + "..."


def plural(n: int, noun: str) -> str:
    """Return a number with its noun: "1 crystal", "2 crystals".

    Args:
        n: The number.
        noun: The noun in the singular.
    """
    return f"{n} {noun}{'s' * (n != 1)}"


@contextmanager
def log_level(name: str, level: int) -> Iterator[None]:
    """Leave out the messages of a library within the block.

    Args:
        name: Name of its logger.
        level: The lowest level of the messages that stay, such as `logging.ERROR`.
    """
    logger = logging.getLogger(name)
    former = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(former)
