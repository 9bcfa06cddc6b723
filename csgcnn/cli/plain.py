"""The commands without a configuration: they read paths and a few key=value."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from csgcnn.cli.spelling import PLAIN_KEYS
from csgcnn.errors import ConfigError, nearest


def _compare_runs(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "csgcnn table",
        description="Compare all runs below the folders. Runs that differ only in seeds, fold and "
        "paths become one row: mean test error ± standard deviation (number of runs). table.md "
        "and table.csv are written to the first DIR.",
        epilog="example: csgcnn table runs sweeps/seeds",
    )
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="a run, a sweep, or a folder of them"
    )
    folders = parser.parse_args(arguments).folders
    from csgcnn.commands.table import leaderboard

    table, left_out = leaderboard(folders)
    print(table, end="")
    print(*left_out, sep="\n", end="\n" if left_out else "", file=sys.stderr)


def _import_cgcnn(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "csgcnn import-cgcnn",
        usage="csgcnn import-cgcnn FILE.pth.tar [output=PATH] [name=NAME] [unit=UNIT]\n"
        "                           [overwrite=true]",
        description="Convert a checkpoint of the original CGCNN to one for csgcnn predict and "
        "evaluate. Nothing in the file is executed.",
        epilog="example: csgcnn import-cgcnn band-gap.pth.tar output=band_gap.ckpt",
    )
    parser.add_argument("file", metavar="FILE.pth.tar", type=Path, help="checkpoint of CGCNN")
    parser.add_argument(
        "settings",
        metavar="key=value",
        nargs="*",
        default=[],
        help="output: the checkpoint to write, by default FILE.ckpt; name and unit of the "
        "property, by default those of the published model; overwrite=true replaces a file",
    )
    found = parser.parse_args(arguments)
    given = _settings(found.settings, "import-cgcnn")
    path = found.file.expanduser()
    stem = path.name.removesuffix(".tar").removesuffix(".pth")
    output = Path(given.get("output") or f"{stem}.ckpt").expanduser()
    from csgcnn.commands.import_cgcnn import import_cgcnn

    print(import_cgcnn(path, output, given.get("name"), given.get("unit"), _overwrite(given)))


def _write_card(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "csgcnn card",
        usage="csgcnn card CKPT [output=README.md] [license=NAME] [name=NAME] [overwrite=true]",
        description="Write the model card of a checkpoint, or of the best one of a run: what it "
        "predicts, data, errors, domain, limits, how to load it.",
        epilog="example: csgcnn card runs/first license=cc-by-4.0",
    )
    parser.add_argument("ckpt", metavar="CKPT", type=Path, help="a checkpoint, a run or a sweep")
    parser.add_argument(
        "settings",
        metavar="key=value",
        nargs="*",
        default=[],
        help="output: the file to write, by default README.md; license of the weights, such as "
        "mit; name of the model; overwrite=true replaces a file",
    )
    found = parser.parse_args(arguments)
    given = _settings(found.settings, "card")
    output = Path(given.get("output") or "README.md").expanduser()
    from csgcnn.commands.card import card

    ckpt, license_, name = found.ckpt.expanduser(), given.get("license"), given.get("name")
    print(card(ckpt, output, license_, name, _overwrite(given)))


def _report(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "csgcnn report",
        usage="csgcnn report RUN|SWEEP|predictions.csv [...] [output=report.html]\n"
        "                     [structures=PATH]",
        description="Write a page that opens in any browser without a network: errors and "
        "baselines, what to check, where the model fails, and the crystals with the largest errors "
        "with their structures. Several runs are compared.",
        epilog="example: csgcnn report runs/first",
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="a run, a folder of runs, a folder of csgcnn evaluate, or a table of predictions; "
        "output: the file, by default report.html in the first folder, which is replaced; "
        "structures: the data set or structure files, by default the data set of the run",
    )
    given = parser.parse_args(arguments).paths
    texts = [text for text in given if re.match(r"\w+=", text) and not Path(text).exists()]
    paths = [Path(text).expanduser() for text in given if text not in texts]
    settings = _settings(texts, "report")
    output = settings.get("output")
    from csgcnn.commands.report import report

    print(report(paths, Path(output).expanduser() if output else None, settings.get("structures")))


def _settings(given: Sequence[str], command: str) -> dict[str, str]:
    """Return key=value arguments of a command without a configuration."""
    known = PLAIN_KEYS[command]
    found = dict(text.partition("=")[::2] for text in given)
    for key in found.keys() - set(known):
        raise ConfigError(f"there is no key {key}{nearest(key, known)}")
    return found


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
