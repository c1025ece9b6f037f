"""Who may import whom: the table of docs/architecture.md, held against the syntax trees of all modules.

Imports for type checking only are not counted; imports inside functions are, except where cycles and
the speed of `tciafs --help` are concerned, which depend on what happens while a module is imported.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.rooms import HEAVY, MAY_IMPORT, ONLY_IN, WITHOUT_TRIO

PACKAGE = Path(__file__).resolve().parents[1] / "tciafs"


@dataclass(frozen=True, slots=True)
class Import:
    """Module `by` imports `what`; `early` while it is imported itself, and not in a function."""

    by: str
    what: str
    early: bool


def room_of(module: str, rooms: Mapping[str, object] = MAY_IMPORT) -> str | None:
    """Return the longest name in `rooms` that is the module or a package around it."""
    fitting = [room for room in rooms if is_in(module, {room})]
    return max(fitting, key=len, default=None)


def is_in(module: str, rooms: frozenset[str] | set[str]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


@functools.cache
def modules() -> Mapping[str, Path]:
    """All modules by their name inside the package: "store.pack", "tciafs" for the package itself."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts).removesuffix("__init__").rstrip(".") or "tciafs"] = path
    return found


@functools.cache
def imports() -> tuple[Import, ...]:
    """All imports, ours by their name inside the package, libraries by their first name."""
    return tuple(
        Import(module, what, early)
        for module, path in modules().items()
        for statement, early in statements(ast.parse(path.read_text(encoding="utf-8")), early=True)
        for what in targets(statement)
    )


def statements(node: ast.AST, *, early: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield the imports below a node that happen when the program runs."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, early
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for otherwise in node.orelse:
            yield from statements(otherwise, early=early)
    else:
        early = early and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from statements(child, early=early)


def targets(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(statement, ast.Import):
        found = [alias.name for alias in statement.names]
    else:
        found = [f"{statement.module}.{alias.name}" for alias in statement.names]
    for name in found:
        first, _, rest = name.partition(".")
        if first != "tciafs":
            yield first
        else:
            yield rest if rest in modules() else rest.rpartition(".")[0] or "tciafs"


@pytest.mark.parametrize("module", sorted(modules().keys() - {"tciafs"}))
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    room = room_of(module)
    if room is None:
        assert modules()[module].name == "__init__.py", f"{module} has no row in MAY_IMPORT"
        room = module
    ours = {each.what for each in imports() if each.by == module and each.what in modules()}
    assert {what for what in ours if not is_in(what, MAY_IMPORT.get(room, frozenset()))} == set()


def test_the_package_itself_imports_nothing() -> None:
    assert not [each for each in imports() if each.by == "tciafs"]


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_stays_in_its_rooms(library: str) -> None:
    users = {each.by for each in imports() if each.what == library}
    assert users, "a row for a library that nobody uses"
    assert {module for module in users if not is_in(module, ONLY_IN[library])} == set()


def test_what_needs_no_event_loop_knows_none() -> None:
    assert {each.by for each in imports() if each.what == "trio" and is_in(each.by, WITHOUT_TRIO)} == set()


def test_the_tables_name_rooms_that_exist() -> None:
    named = WITHOUT_TRIO.union(MAY_IMPORT, *MAY_IMPORT.values(), *ONLY_IN.values())
    assert named - modules().keys() == set()


def test_no_import_goes_in_a_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for each in imports():
        if each.early and each.what in graph and each.what != each.by:
            graph[each.by].add(each.what)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_help_does_not_wait_for_heavy_libraries() -> None:
    script = "import sys, tciafs.cli; print(*tciafs.cli.commands.commands.values(), *sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert HEAVY.isdisjoint(loaded.stdout.split())
