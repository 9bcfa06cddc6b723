"""The commands without a configuration: they read paths and a few key=value."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from csgcnn.cli.spelling import PLAIN_KEYS
from csgcnn.errors import ConfigError, nearest


def _compare_runs(arguments: Sequence[str]) -> None:
    folders, _ = _parse(
        "table",
        arguments,
        ("DIR", "a run, a sweep, or a folder of them"),
        nargs="+",
        description="Compare all runs below the folders. Runs that differ only in seeds, fold and "
        "paths become one row: mean test error ± standard deviation (number of runs). table.md "
        "and table.csv are written to the first DIR.",
        epilog="example: csgcnn table runs sweeps/seeds",
    )
    from csgcnn.commands.table import leaderboard

    table, left_out = leaderboard(folders)
    print(table, end="")
    print(*left_out, sep="\n", end="\n" if left_out else "", file=sys.stderr)


def _import_cgcnn(arguments: Sequence[str]) -> None:
    (path,), given = _parse(
        "import-cgcnn",
        arguments,
        ("FILE.pth.tar", "checkpoint of CGCNN"),
        "output: the checkpoint to write, by default FILE.ckpt; name and unit of the "
        "property, by default those of the published model; overwrite=true replaces a file",
        usage="csgcnn import-cgcnn FILE.pth.tar [output=PATH] [name=NAME] [unit=UNIT]\n"
        "                           [overwrite=true]",
        description="Convert a checkpoint of the original CGCNN to one for csgcnn predict and "
        "evaluate. Nothing in the file is executed.",
        epilog="example: csgcnn import-cgcnn band-gap.pth.tar output=band_gap.ckpt",
    )
    stem = path.name.removesuffix(".tar").removesuffix(".pth")
    output = Path(given.get("output") or f"{stem}.ckpt").expanduser()
    from csgcnn.commands.import_cgcnn import import_cgcnn

    print(import_cgcnn(path, output, given.get("name"), given.get("unit"), _overwrite(given)))


def _write_card(arguments: Sequence[str]) -> None:
    (ckpt,), given = _parse(
        "card",
        arguments,
        ("CKPT", "a checkpoint, a run or a sweep"),
        "output: the file to write, by default README.md; license of the weights, such as "
        "mit; name of the model; overwrite=true replaces a file",
        usage="csgcnn card CKPT [output=README.md] [license=NAME] [name=NAME] [overwrite=true]",
        description="Write the model card of a checkpoint, or of the best one of a run: what it "
        "predicts, data, errors, domain, limits, how to load it.",
        epilog="example: csgcnn card runs/first license=cc-by-4.0",
    )
    output = Path(given.get("output") or "README.md").expanduser()
    from csgcnn.commands.card import card

    print(card(ckpt, output, given.get("license"), given.get("name"), _overwrite(given)))


def _report(arguments: Sequence[str]) -> None:
    paths, given = _parse(
        "report",
        arguments,
        ("PATH", "a run, a folder of runs, a folder of csgcnn evaluate, or predictions"),
        "output: the file, by default report.html in the first folder, which is replaced; "
        "structures: the data set or structure files, by default the data set of the run",
        nargs="+",
        usage="csgcnn report RUN|SWEEP|predictions.csv [...] [output=report.html]\n"
        "                     [structures=PATH]",
        description="Write a page that opens in any browser without a network: errors and "
        "baselines, what to check, where the model fails, and the crystals with the largest errors "
        "with their structures. Several runs are compared.",
        epilog="example: csgcnn report runs/first",
    )
    from csgcnn.commands.report import report

    print(report(*paths, output=given.get("output"), structures=given.get("structures")))


def _parse(
    command: str,
    arguments: Sequence[str],
    path: tuple[str, str],
    keys: str = "",
    nargs: int | str = 1,
    **about: str,
) -> tuple[list[Path], dict[str, str]]:
    """Return the paths, each with this name and help, and the key=value of a command."""
    parser = argparse.ArgumentParser(f"csgcnn {command}", **about)  # type: ignore[arg-type]
    parser.add_argument("paths", metavar=path[0], nargs=nargs, help=path[1])
    known = PLAIN_KEYS.get(command, ())
    if known:
        parser.add_argument("keys", metavar="key=value", nargs="*", default=[], help=keys)
    found = parser.parse_args(arguments)
    given = [*found.paths, *(found.keys if known else ())]
    texts = [text for text in given if re.match(r"\w+=", text) and not Path(text).exists()]
    settings = dict(text.partition("=")[::2] for text in texts)
    for key in settings.keys() - set(known):
        raise ConfigError(f"there is no key {key}{nearest(key, known)}")
    paths = [Path(text).expanduser() for text in given if text not in texts]
    if not paths or (nargs == 1 and len(paths) > 1):
        raise ConfigError(f"expected {'one ' if nargs == 1 else ''}{path[0]}, got {len(paths)}")
    return paths, settings


def _overwrite(given: Mapping[str, str]) -> bool:
    overwrite = given.get("overwrite", "false").lower()
    if overwrite not in ("true", "false"):
        raise ConfigError(f"overwrite={overwrite}: expected true or false")
    return overwrite == "true"


PLAIN: dict[str, Callable[[Sequence[str]], None]] = {
    "table": _compare_runs,
    "report": _report,
    "card": _write_card,
    "import-cgcnn": _import_cgcnn,
}
