"""The command line: a table of sub-commands.

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong, 75, 130 and 143
interrupted.
"""

import logging
import sys
from collections.abc import Callable, Sequence

from csgcnn import __version__
from csgcnn.cli.plain import PLAIN
from csgcnn.cli.spelling import check_spelling
from csgcnn.config.settings.commands import COMMANDS as SETTINGS
from csgcnn.errors import ConfigError, UserError, nearest
from csgcnn.hardware import Rank, read_rank
from csgcnn.training.interruption import Interruption

USAGE = """\
csgcnn: train crystal graph neural networks and predict with them

  csgcnn train    [group=option ...] [key=value ...] [--multirun]       train a model
  csgcnn predict  ckpt=PATH structures=PATH [output=predictions.csv]    predict with a trained model
  csgcnn explain  ckpt=PATH structures=PATH [output=explanation]        what sites contribute
  csgcnn evaluate ckpt=PATH dataset=OPTION [split=train|val|test]       measure a trained model
  csgcnn describe dataset=OPTION [output=report.json]                   report what a data set holds
  csgcnn embed    ckpt=PATH structures=PATH [map=pca|tsne|umap]         write vectors of crystals
  csgcnn select   ckpt=PATH structures=PATH n=N by=RULE                 choose what to compute next
  csgcnn build    dataset=OPTION output=FOLDER                          build and store graphs
  csgcnn table    DIR [DIR ...]                                         compare runs
  csgcnn report   RUN|predictions.csv [...] [output=report.html]        look at errors and crystals
  csgcnn benchmark task=OPTION [recipe=OPTION] [folds=[0,1,...]]        train on the folds of a task
  csgcnn benchmark folds=N dataset=OPTION [repeats=N]                   cross-validate your own data
  csgcnn learning-curve dataset=OPTION [sizes=[50,100,all]]             errors with more data
  csgcnn card     CKPT [output=README.md] [license=NAME]                write a model card
  csgcnn import-cgcnn FILE.pth.tar [output=PATH]                        convert a model of CGCNN

  csgcnn COMMAND --help    groups, keys and examples of a command
  csgcnn --version [-v]    the version; with -v also those of libraries, and the device
  csgcnn --install-completion [bash|zsh|fish]    complete commands, keys and values with Tab"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Arguments of the command line, by default those of the program.

    Returns:
        The exit code.

    Raises:
        SystemExit: The command failed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        print(USAGE, file=sys.stderr)
        return 2
    for text in arguments:
        if not text.isascii() and not _is_unicode(text):
            reason = "its characters are not those of the locale; set LC_ALL=C.UTF-8"
            print(f"csgcnn: cannot read {text!a}: {reason}", file=sys.stderr)
            return 2
    command, *rest = arguments
    if command in ("--help", "-h"):
        print(USAGE)
        return 0
    if command in COMPLETION_FLAGS:
        return _run_completion(command, rest)
    if "--version" in arguments:
        _print_version(is_verbose="-v" in arguments)
        return 0
    if command in COMMANDS:
        return COMMANDS[command](command, rest)
    hint = "" if "=" in command else nearest(command, list(COMMANDS))
    expected = hint or f"; expected {', '.join(COMMANDS)}"
    print(f"csgcnn: there is no command {command!r}{expected}", file=sys.stderr)
    return 2


def _is_unicode(text: str) -> bool:
    """Return whether a text has no bytes that Python could not decode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _print_version(is_verbose: bool) -> None:
    """Print the version, or all versions that a bug report needs."""
    print(f"csgcnn {__version__}")
    if is_verbose:
        from csgcnn.cli.version import environment_lines

        print(*environment_lines(), sep="\n")


def _run_completion(flag: str, arguments: Sequence[str]) -> int:
    """Answer a shell that completes a command line, or install or print what makes it ask."""
    from csgcnn.cli.completion import completions
    from csgcnn.cli.install_completion import SCRIPTS, chosen_shell, install_completion

    if flag == "--complete":
        shell, line = [*arguments, "", ""][:2]
        print(*completions(line, shell, list(COMMANDS)), sep="\n")
        return 0
    try:
        if len(arguments) > 1:
            raise ConfigError(f"{flag}: give one shell, not {' '.join(arguments)}")
        shell = chosen_shell(arguments[0] if arguments else None)
        is_shown = flag == "--show-completion"
        print(SCRIPTS[shell] if is_shown else "\n".join(install_completion(shell)), end="")
        print(end="" if is_shown else "\n")
    except UserError as error:
        print(f"csgcnn: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run_command(command: str, arguments: Sequence[str]) -> int:
    """Run a command that has a configuration, on one rank or on all ranks of a launcher."""
    own = read_rank()
    try:
        check_spelling(command, arguments)
    except ConfigError as error:
        if own.rank == 0:
            print(f"csgcnn {command}: {error}", file=sys.stderr)
        return error.exit_code
    # Signals are handled while Hydra and torch are imported, too.
    with Interruption():
        if own.world_size > 1:
            return _run_on_rank(command, arguments, own)
        from csgcnn.cli.application import run_application

        return run_application(command, arguments)


def _run_on_rank(command: str, arguments: Sequence[str], own: Rank) -> int:
    """Run the command on this rank; rank 0 composes and broadcasts the configuration."""
    if command != "train":
        reason = f"runs in one process, but {own.world_size} were started together"
        print(f"csgcnn {command}: {reason}", file=sys.stderr)
        return 2
    from csgcnn import distributed
    from csgcnn.cli.application import run_application
    from csgcnn.cli.messages import print_error
    from csgcnn.cli.overrides import opted_in
    from csgcnn.commands import train
    from csgcnn.config.plugins import plugins_loaded

    try:
        with distributed.process_group(own):
            if own.rank:
                logging.disable()
                with plugins_loaded(opted_in(arguments)):
                    return train.follow()
            code = run_application(command, arguments)
            # An empty text ends the other ranks.
            distributed.broadcast_text()
            return code
    except Exception as error:
        return print_error(f"{command} (process {own.rank} of {own.world_size})", error)


def _run_plain(command: str, arguments: Sequence[str]) -> int:
    """Run a command without a configuration."""
    try:
        PLAIN[command](arguments)
    except BrokenPipeError:
        raise
    except Exception as error:
        from csgcnn.cli.messages import print_error

        return print_error(command, error)
    return 0


COMPLETION_FLAGS = ("--install-completion", "--show-completion", "--complete")
COMMANDS: dict[str, Callable[[str, Sequence[str]], int]] = {
    **dict.fromkeys(SETTINGS, _run_command),
    **dict.fromkeys(PLAIN, _run_plain),
}
