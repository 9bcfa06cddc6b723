"""Errors that are answers to a user: they are shown in a line or two, never as a traceback."""

from collections.abc import Sequence
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend: the message names the culprit, what was expected and what to do."""

    exit_code = 1


class ConfigError(UserError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class StructureError(UserError):
    """One structure cannot be used; the message says why (disorder, unknown element, malformed file, ...)."""


class AbortError(Exception):
    """End the program, and a sweep with all its jobs; its cause is the reason."""


class FailedJobError(UserError):
    """A job of a sweep failed; its message names the job and says why. A launcher may carry it between processes."""


def nearest(word: str, options: Sequence[str]) -> str:
    """The end of an error message that proposes the option spelled most like `word`, or nothing."""
    matches = get_close_matches(word, options, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else ""


def first_line(error: BaseException, longest: int = 200) -> str:
    """Return the first line of an error's message, or the name of an error without one.

    Args:
        error: The error, whose message may come from an untrusted file.
        longest: Largest number of characters.

    Returns:
        Printable characters only, so that the line cannot control a terminal.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return "".join(filter(str.isprintable, line[:longest]))


def one_line(reason: object, longest: int = 200) -> str:
    """A message, or the name of an error without one, as one line of at most `longest` printable characters."""
    line = "".join(filter(str.isprintable, " ".join(str(reason).split()))) or type(reason).__name__
    return line if len(line) <= longest else line[: longest - 3] + "..."
