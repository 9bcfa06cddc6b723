"""Check the rules of docs/architecture.md that ruff, mypy and import-linter do not check."""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {"__init__", "__main__", "errors", "io", "distributed", "hardware", "predictor"}
PACKAGES = {"cli", "commands", "config", "crystals", "data", "evaluation", "nn", "runs"}
PACKAGES |= {"reports", "screening", "search", "training"}

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
CRYSTAL_LIBRARIES = {"pymatgen", "spglib", "gemmi", "ase"}
CONFIG_LIBRARIES = {"hydra", "omegaconf"}
CONFIG_PACKAGES = {"cli", "config", "commands", "search"}
# Names that are public in spite of their underscore: of named tuples and of configurations.
PUBLIC = {"_fields", "_replace", "_asdict", "_make", "_target_", "_partial_"}
BRITISH = re.compile(
    r"neighbour|colour|behaviour|(?<![.\\])centre|licence|artefact|learnt|favour|catalogue"
    r"|(?:standard|normal|initial|optim|recogn|organ|summar|serial|synchron|general|real)is(?:e|ing|ation)"
    r"|analys(?:e|ed|ing)\b|labelled|(?-i:[Cc]ancelled)|modelled|grey",
    re.IGNORECASE,
)


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


PACKAGE = python_files("csgcnn")
TESTS = [path for path in python_files("tests") if path != Path(__file__)]
CODE = PACKAGE + TESTS
PROSE = [
    *CODE,
    *python_files("benchmarks", "hydra_plugins", "examples"),
    *sorted((ROOT / "conf").rglob("*.yaml")),
    *sorted(ROOT.glob("*.md")),
    *(path for folder in ("docs", "data", "benchmarks") for path in (ROOT / folder).rglob("*.md")),
]


def every(files: list[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Check each file in one test, which names the files that fail."""

    def decorate(check: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            failures = {}
            for path in files:
                try:
                    check(path)
                except AssertionError as error:
                    failures[str(path.relative_to(ROOT))] = str(error)
            assert not failures

        return test

    return decorate


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def public_functions(node: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child)
        if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield child


def imports(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Yield module, name in the module ("" of a whole module) and name in the file."""
    for n in ast.walk(node):
        if isinstance(n, ast.Import):
            for alias in n.names:
                yield alias.name, "", alias.asname or alias.name.partition(".")[0]
        elif isinstance(n, ast.ImportFrom) and n.module:
            for alias in n.names:
                yield n.module, alias.name, alias.asname or alias.name


def libraries(path: Path) -> set[str]:
    return {module.partition(".")[0] for module, _, _ in imports(tree_of(path))}


def test_the_root_of_the_package_has_exactly_the_modules_of_the_architecture() -> None:
    found = {path.stem for path in (ROOT / "csgcnn").glob("*.py")}
    packages = {path.parent.name for path in (ROOT / "csgcnn").glob("*/__init__.py")}
    assert (found, packages) == (MODULES, PACKAGES)


@every(CODE)
def test_files_have_at_most_300_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@every(CODE)
def test_functions_have_at_most_60_lines(path: Path) -> None:
    long = {
        node.name: node.end_lineno - node.lineno + 1  # type: ignore[operator]
        for node in functions(tree_of(path))
        if node.end_lineno - node.lineno >= MAX_FUNCTION_LINES  # type: ignore[operator]
    }
    assert not long


@every(PACKAGE)
def test_public_functions_of_several_arguments_describe_them(path: Path) -> None:
    def needs_args(node: ast.FunctionDef) -> bool:
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        names = {argument.arg for argument in given} - {"self", "cls"}
        # The class docstring of a layer gives the shapes of what forward takes.
        is_overload = any(ast.unparse(mark) == "overload" for mark in node.decorator_list)
        return len(names) > 1 and node.name != "forward" and not is_overload

    undescribed = [
        node.name
        for node in public_functions(tree_of(path))
        if needs_args(node) and "Args:" not in (ast.get_docstring(node) or "")
    ]
    assert not undescribed


@every(PACKAGE)
def test_only_the_packages_in_charge_import_hydra_or_pymatgen(path: Path) -> None:
    package = path.relative_to(ROOT / "csgcnn").parts[0]
    found = libraries(path)
    assert package in CONFIG_PACKAGES or not found & CONFIG_LIBRARIES
    assert package == "crystals" or not found & CRYSTAL_LIBRARIES


@every(PACKAGE)
def test_packages_import_no_private_names_of_others(path: Path) -> None:
    private = [
        f"{module}.{name}"
        for module, name, _ in imports(tree_of(path))
        if module.startswith("csgcnn") and re.search(r"(^|\.)_[a-z]", f"{module}.{name}")
    ]
    assert not private


@every(TESTS)
def test_tests_neither_use_nor_patch_private_names_or_constants(path: Path) -> None:
    tree = tree_of(path)
    own = {name for module, _, name in imports(tree) if module.startswith("csgcnn")}
    others = {name for _, _, name in imports(tree)} - own
    found = [f"{m}.{n}" for m, n, _ in imports(tree) if m.startswith("csgcnn") and is_private(n)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if root_name(node) not in others | {"self", "cls"}:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"csgcnn(\.\w+)*\.(_[a-z]\w*|[A-Z][A-Z0-9_]+)", node.value):
                found.append(node.value)
        elif isinstance(node, ast.Call) and is_patch(node):
            name = getattr(node.args[1], "value", None)
            is_own = root_name(node.args[0]) not in others | {""}
            if is_own and re.fullmatch(r"_[a-z]\w*|[A-Z][A-Z0-9_]+", str(name)):
                found.append(ast.unparse(node))
    assert not found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in {"_"} | PUBLIC


def is_patch(node: ast.Call) -> bool:
    patches = ("setattr", "delattr", "object")
    return isinstance(node.func, ast.Attribute) and node.func.attr in patches and len(node.args) > 1


def root_name(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


@every(PROSE)
def test_spelling_is_american(path: Path) -> None:
    assert not set(BRITISH.findall(path.read_text(encoding="utf-8")))
