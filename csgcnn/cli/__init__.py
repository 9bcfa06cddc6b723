"""Command line: sub-commands, overrides and error messages."""
