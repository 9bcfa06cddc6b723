"""Errors that are answers to a user: they are shown in a line or two, never as a traceback."""


class UserError(Exception):
    """Something the user can mend: the message names the culprit, what was expected and what to do."""

    exit_code = 1


class ConfigError(UserError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class StructureError(UserError):
    """One structure cannot be used; the message says why (disorder, unknown element, malformed file, ...)."""


class FailedJobError(UserError):
    """A job of a sweep failed; its message names the job and says why. A launcher may carry it between processes."""
