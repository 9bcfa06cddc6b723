"""Scripts with which bash, zsh and fish complete `csgcnn`, and their installation."""

import os
from pathlib import Path

from csgcnn.cli.completion import OPEN_ENDS, SHELLS
from csgcnn.errors import ConfigError, UserError
from csgcnn.io import write_text

# A candidate that more text follows gets no blank.
_OPEN = "".join(OPEN_ENDS)
# bash replaces the part of a word behind the last "=" or ":" where these break words, so the part
# before is removed from the candidates.
BASH = rf"""# Completion of csgcnn for bash; csgcnn --install-completion bash writes it.
_csgcnn_completion() {{
    local program="${{1/#\~/$HOME}}" line="${{COMP_LINE:0:COMP_POINT}}"
    local current="${{COMP_WORDS[COMP_CWORD]}}" candidate before
    local breaks="${{COMP_WORDBREAKS//[^=:]/}}" IFS=$'\n'
    COMPREPLY=()
    [[ $current == [=:] ]] && current=
    for candidate in $("$program" --complete bash "$line" 2>/dev/null); do
        if [[ -n $breaks && $current != [\"\']* ]]; then
            before="${{line##*[[:space:]]}}"
            before="${{before%"$current"}}"
            [[ $before == *[$breaks] ]] && candidate="${{candidate#"$before"}}"
        fi
        COMPREPLY+=("$candidate")
    done
    [[ ${{#COMPREPLY[@]}} -gt 0 && ${{COMPREPLY[0]}} == *[{_OPEN}] ]] && compopt -o nospace
    return 0
}}
complete -F _csgcnn_completion csgcnn
"""
ZSH = rf"""#compdef csgcnn
# Completion of csgcnn for zsh; csgcnn --install-completion zsh writes it.
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}
_csgcnn_completion() {{
    local line="${{(j: :)words[1,CURRENT-1]}} $QIPREFIX$PREFIX"
    local -a found open closed
    found=("${{(@f)$("${{(Q)words[1]}}" --complete zsh "$line" 2>/dev/null)}}")
    open=(${{(M)found:#*[{_OPEN}]}})
    closed=(${{found:#*[{_OPEN}]}})
    (( $#open )) && compadd -Q -S '' -- $open
    (( $#closed )) && compadd -Q -- $closed
    return 0
}}
compdef _csgcnn_completion csgcnn
"""
FISH = """# Completion of csgcnn for fish; csgcnn --install-completion fish writes it.
complete -c csgcnn -f -a '(csgcnn --complete fish (commandline -cp) 2>/dev/null)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def chosen_shell(given: str | None) -> str:
    """Return the shell that is given, or the one of the environment.

    Args:
        given: Name of a shell.

    Raises:
        ConfigError: There is no completion for the shell.
    """
    shell = given or Path(os.environ.get("SHELL", "")).name
    if shell not in SCRIPTS:
        found = f"the shell {shell!r}" if shell else "no shell in $SHELL"
        raise ConfigError(f"--install-completion: {found}; expected {', '.join(SHELLS)}")
    return shell


def install_completion(shell: str) -> list[str]:
    """Install the completion of a shell for the user; a repetition changes nothing.

    Args:
        shell: bash, zsh or fish.

    Returns:
        Lines that say what was done.

    Raises:
        UserError: A file cannot be written.
    """
    home = Path(os.environ.get("HOME") or Path.home())
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        script, start = config / "fish" / "completions" / "csgcnn.fish", None
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
        script = data / "csgcnn" / f"completion.{shell}"
        folder = Path(os.environ.get("ZDOTDIR") or home) if shell == "zsh" else home
        start = folder / f".{shell}rc"
    try:
        lines = [_write(script, SCRIPTS[shell])]
        if start is not None:
            lines.append(_append(start, f'[ -r "{script}" ] && . "{script}"  # csgcnn'))
    except OSError as error:
        place = error.filename or script
        raise UserError(
            f"cannot write {place}: {error.strerror or error}; csgcnn --show-completion {shell} "
            "prints the script"
        ) from error
    return [*lines, f"start a new {shell} to complete csgcnn"]


def _write(path: Path, text: str) -> str:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return f"{path} is up to date"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return f"wrote {path}"


def _append(path: Path, line: str) -> str:
    before = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    if line in before.splitlines():
        return f"{path} reads it already"
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n" * bool(before and not before.endswith("\n")) + f"{line}\n")
    return f"added a line to {path}"
