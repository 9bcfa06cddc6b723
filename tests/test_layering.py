"""The imports between the parts of the package point one way only, checked on the syntax trees."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "csgcnn"
BELOW = {
    "errors": set(),
    "files": set(),
    "machine": set(),
    "processes": {"machine"},
    "crystals": {"machine"},
    "data": {"crystals"},
    "nn": {"data", "processes"},
    "training": {"crystals", "data", "nn", "processes"},
    "screening": {"crystals", "data", "machine"},
    "schemas": set(),
    "config": {"schemas"},
    "explain": {"config"},
    "cli": {"config", "explain", "foreign", "machine", "training"},
    "search": set(),
    "__main__": {"cli"},
}
ROOMS = {*BELOW, *(path.name for path in PACKAGE.iterdir() if path.is_dir())}
KNOWS_HYDRA = {"benchmark", "build", "cli", "explain", "config", "schemas", "train", "predict", "evaluate", "table"}
KNOWS_HYDRA |= {"ensemble", "init_from", "search"}
HEAVY = {"torch", "torch_geometric", "pymatgen", "matplotlib", "scipy", "numpy"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only: the arrows can then be read"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(name: str) -> str:
    return name.split(".")[1] if name.startswith("csgcnn.") else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = imported(ast.parse(path.read_text(encoding="utf-8")))
    rooms = {room_of(name) for name in names} & ROOMS
    libraries = {name.partition(".")[0] for name in names}
    if room != "__main__":
        assert "cli" not in rooms
    if room in BELOW:
        assert rooms <= BELOW[room] | {room, "errors", "files"}
    if room not in KNOWS_HYDRA:
        assert not libraries & {"hydra", "omegaconf"}
    if room == "crystals":
        assert not libraries & {"torch", "torch_geometric"}
    else:
        assert "pymatgen" not in libraries


@pytest.mark.parametrize("name", ["__init__", "cli", "explain", "config", "errors", "files", "__main__"])
def test_the_front_door_is_light(name: str) -> None:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    at_import = ast.Module(
        [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.If)], type_ignores=[]
    )
    assert not {name.partition(".")[0] for name in imported(at_import)} & HEAVY
