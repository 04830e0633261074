"""Imports go one way, and each library has its door."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "containerfs"
ANYWHERE = None

# A layer is a folder or a module of the package; "containerfs" is its __init__.
MAY_IMPORT = {
    "containerfs": set(),
    "errors": set(),
    "values": set(),
    "directories": set(),
    "setting": {"values"},
    "options": {"directories", "setting", "values"},
    "configuration": {"directories", "options", "setting", "values"},
    "systemd": set(),
    "mountpoint": {"errors"},
    "mounts": {"mountpoint"},
    "relaying": set(),
    "embedded": {"containerfs", "mountpoint", "relaying"},
    "api": {"containerfs", "errors"},
    "account": {"api"},
    "accounts": {"errors", "cache", "upload"},
    "unsent": {"errors", "cache", "upload", "accounts"},
    "discarding": {"errors", "cache", "upload", "accounts", "unsent"},
    "cache": {"errors", "api"},
    "upload": {"errors", "api"},
    "fs": {"errors", "api", "cache", "upload"},
    "server": set(),
}
MAY_IMPORT["parts"] = set(MAY_IMPORT)
MAY_IMPORT["assembly"] = set(MAY_IMPORT)
MAY_IMPORT["daemon"] = set(MAY_IMPORT)
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["__main__"] = {"cli"}

# Inside `fs`, from the bottom to the top: a folder or module imports only those before it.
FS = (
    *("turns", "patience"),
    *("names", "tree", "kernel", "outgoing", "listings", "files", "entries", "operations"),
)

# Where each library outside the standard one may be imported: layers or modules.
DOORS = {
    "trio": ANYWHERE,
    "httpx": {"api"},
    "cachetools": {"cache"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "httptools": {"server"},
    "python_multipart": {"server"},
    "pyfuse3": {"fs/operations.py", "fs/kernel/boundary.py", "fs/kernel/pages.py", "daemon.py"},
    "click": {"cli"},
    "rich": {"cli"},
    "yaml": {"cli"},
}

MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def layer(module: Path) -> str:
    name = module.parts[0].removesuffix(".py")
    return "containerfs" if name == "__init__" else name


def imported(module: Path) -> Iterator[tuple[str, ...]]:
    """The dotted names a module imports, also inside functions, as tuples of their parts."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_bytes())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = tuple((node.module or "").split("."))
            if names == ("containerfs",):
                yield from ((*names, alias.name) for alias in node.names)
            else:
                yield names


def imported_layers(module: Path) -> set[str]:
    ours = (names for names in imported(module) if names[0] == "containerfs")
    return {names[1] if names[1:] and names[1] in MAY_IMPORT else names[0] for names in ours}


def imported_libraries(module: Path) -> set[str]:
    outside = {names[0] for names in imported(module)} - {"containerfs"}
    return outside - sys.stdlib_module_names


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_layer_imports_only_what_is_below_it(module):
    here = layer(module)
    assert here in MAY_IMPORT, f"{module} belongs to no layer"
    assert imported_layers(module) <= MAY_IMPORT[here] | {here}


@pytest.mark.parametrize("module", [each for each in MODULES if each.parts[0] == "fs"], ids=str)
def test_a_part_of_the_file_system_imports_only_what_is_below_it(module):
    here = module.parts[1].removesuffix(".py")
    ours = {names[2] for names in imported(module) if names[:2] == ("containerfs", "fs")}
    allowed = () if here == "__init__" else FS[: FS.index(here) + 1]
    assert ours <= set(allowed)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_library_is_imported_only_through_its_door(module):
    for library in imported_libraries(module):
        assert library in DOORS, f"{module} imports {library}"
        doors = DOORS[library]
        assert doors is ANYWHERE or doors & {layer(module), str(module)}, f"{module}: {library}"


def test_the_map_has_no_circles():
    for name, below in MAY_IMPORT.items():
        for other in below:
            assert name not in MAY_IMPORT[other], f"{name} and {other} import each other"
