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

PACKAGE = Path(__file__).resolve().parents[1] / "tciafs"


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAY_IMPORT: Mapping[str, frozenset[str]] = {
    room: names(may)
    for room, may in {
        # The ground floor.
        "errors": "",
        "model": "",
        "naming": "errors model",
        "headers": "",
        "setting_kinds": "",
        "settings": "errors setting_kinds",
        "request_ids": "",
        "logs": "errors settings control.report request_ids",
        # Both ends of the control socket; what stands behind a command is handed to the server.
        "control": "",
        "control.known_values": "",
        "control.series_values": "",
        "control.manifest_values": "",
        "control.usage_values": "",
        "control.manifest_client": "control.client control.manifest_values",
        "control.commands": "control.usage_values control.known_values control.manifest_values "
        "control.series_values "
        "control.values",
        "control.place": "",
        "control.report": "control.values",
        "control.speeds": "control.values",
        "control.failed_table": "control.report control.values",
        "control.client": "errors control.usage_values control.known_values control.place "
        "control.report control.series_values "
        "control.values",
        "control.server": "errors control.usage_values request_ids control.commands "
        "control.known_values control.manifest_values "
        "control.metrics control.series_values control.values",
        "control.metrics": "control.report control.values",
        # Archives speak to servers and know nothing of disks and kernels.
        "archives": "errors model archives",
        "archives.unzip": "errors",
        "archives.http": "tciafs errors archives.http_asking archives.http_body archives.http_bulk "
        "archives.http_errors archives.http_limits archives.http_pace",
        "archives.http_asking": "errors archives.http_limits",
        "archives.probe": "errors archives.http archives.http_errors archives.http_limits",
        "archives.login": "errors archives.http archives.http_errors archives.http_limits",
        "archives.http_body": "errors",
        "archives.http_bulk": "",
        "archives.http_errors": "errors",
        "archives.http_limits": "",
        "archives.idc": "errors model archives",
        "archives.idc_config": "archives.http archives.http_limits",
        "archives.idc_images": "errors headers model naming archives.idc_memory archives.idc_table "
        "archives.nbia_names archives.parallel archives.s3",
        "archives.idc_index": "errors archives.idc_table",
        "archives.idc_memory": "archives.s3",
        "archives.idc_records": "model archives.idc_table",
        "archives.idc_table": "errors",
        "archives.parallel": "errors",
        "archives.s3": "errors archives.http archives.http_asking archives.http_errors",
        "archives.opening": "archives.http archives.idc archives.idc_config archives.nbia",
        "archives.http_pace": "",
        "archives.json_rows": "errors",
        "archives.nbia_rows": "model",
        "archives.nbia_names": "model",
        "archives.nbia_single_images": "errors model archives.http archives.http_errors "
        "archives.nbia_listings archives.nbia_names",
        "archives.nbia_listings": "model archives.json_rows archives.nbia_rows",
        # Where a user's secrets are kept.
        "credentials": "errors archives.login",
        # What is remembered: listings and series. Neither knows the other, or an archive.
        "catalogue": "errors model catalogue",
        "catalogue.asking": "errors catalogue.table",
        "catalogue.freshness": "catalogue.changes catalogue.table",
        "catalogue.changes": "model catalogue.table",
        "catalogue.walks": "",
        "catalogue.remembered": "errors catalogue.sums catalogue.table",
        "catalogue.sums": "model",
        "catalogue.table": "errors model",
        "catalogue.answers": "model catalogue.sums catalogue.table",
        # What of a catalogue is shown; it is handed one.
        "selection.manifests": "errors",
        "selection.criteria": "model",
        "selection.words": "errors selection.criteria",
        "selection.named": "model selection.manifests",
        "selection.table": "metadata model naming selection.manifests",
        "selection.selection": "errors model catalogue.answers catalogue.asking catalogue.sums "
        "catalogue.table selection",
        "selection.kept": "errors hidden naming selection.manifests",
        "selection.views": "errors hidden model catalogue.answers catalogue.table selection",
        "agreement": "errors naming",
        "metadata": "naming",
        # Plain copies: an ordinary reader of a mount.
        "citations": "",
        "export.mounted": "citations hidden metadata",
        "export.reports": "metadata",
        "export.folders": "export.mounted export.reports headers",
        "export.tars": "errors headers metadata export",
        "store": "errors model store",
        "store.disk_errors": "errors",
        "store.layout": "",
        "store.failures": "errors model",
        "store.keeping": "errors store.checking store.disk_errors store.room store.shelf",
        "store.checking": "errors store.disk_errors store.layout store.ledger store.pack store.room "
        "store.shelf",
        "store.holdings": "errors store.disk_errors store.shelf",
        "store.pack": "errors store.layout",
        "store.ledger": "store.layout",
        "store.disk": "",
        "store.places": "store.disk",
        "store.recovery": "errors store.disk store.layout store.ledger store.pack store.places",
        "store.open_packs": "errors store.disk store.layout",
        "store.room": "errors model store.disk store.shelf",
        "store.surveys": "errors model store.failures store.layout store.shelf",
        "store.holder": "",
        "store.lease": "errors store.disk store.holder",
        # The other process, and the daemon's end of the pipe to it: a composition root of its own.
        "worker": "errors archives.http archives.opening store.disk_errors store.download worker",
        "worker.pool": "errors model archives.http archives.opening store.download worker.messages",
        "worker.messages": "model archives.opening store.layout",
        "worker.listing": "errors model catalogue.table worker.messages",
        "worker.fetching": "errors model naming store.download store.layout store.pack worker.digests "
        "worker.headers worker.messages worker.rest",
        "worker.rest": "errors model store.layout store.pack worker.digests worker.headers",
        "worker.headers": "model store.layout",
        "worker.digests": "store.layout store.pack",
        # The tree is handed a catalogue and a store; it does not import them.
        "hidden": "",
        "filesystem.identities": "",
        "filesystem.folders": "errors model naming filesystem.identities",
        "filesystem.nodes": "filesystem.identities",
        "filesystem.sources": "errors hidden filesystem.identities filesystem.nodes",
        "filesystem.texts": "hidden naming filesystem.identities filesystem.sources",
        "filesystem.paths": "errors filesystem.identities filesystem.nodes filesystem.sources "
        "filesystem.texts",
        "filesystem.manifests": "errors hidden naming control.manifest_values filesystem.identities "
        "filesystem.status selection.kept selection.manifests",
        "filesystem.listings": "filesystem.folders filesystem.identities filesystem.nodes",
        "filesystem.tree": "errors hidden model naming filesystem.folders filesystem.identities "
        "filesystem.listings filesystem.nodes filesystem.sources filesystem.texts filesystem.way",
        "filesystem.kernel_view": "hidden model naming filesystem.folders filesystem.identities "
        "filesystem.sources",
        "filesystem.handles": "filesystem.listings filesystem.nodes filesystem.reading",
        "filesystem.reading": "",
        "filesystem.images": "errors model naming",
        "filesystem.guard": "errors model",
        "filesystem.commands": "errors control.usage_values logs control.commands "
        "control.known_values control.values "
        "filesystem.paths filesystem.status store.checking",
        "filesystem.known": "errors model naming control.known_values filesystem.folders "
        "filesystem.identities filesystem.status",
        "filesystem.budgets": "errors model filesystem.private_files store.download",
        "filesystem.interrupts": "errors",
        "filesystem.private_files": "",
        "filesystem.usage": "model filesystem.private_files",
        "filesystem.walk_ahead": "errors filesystem.identities filesystem.nodes filesystem.way",
        "filesystem.way": "model filesystem.folders filesystem.identities filesystem.sources",
        "filesystem.prefetching": "errors control.series_values filesystem.identities filesystem.paths "
        "filesystem.status filesystem.way",
        "filesystem.mountpoint": "errors",
        "filesystem.tuning": "",
        "filesystem.attaching": "errors filesystem.mountpoint filesystem.tuning",
        "filesystem.signals": "logs",
        "filesystem.requests": "filesystem.guard",
        "filesystem.provenance": "errors headers model catalogue.sums store",
        "filesystem.attributes": "model filesystem.folders filesystem.identities filesystem.nodes "
        "filesystem.provenance",
        "filesystem.status": "tciafs store control.values",
        "filesystem.operations": "errors request_ids filesystem.attributes filesystem.requests "
        "filesystem.guard "
        "filesystem.handles filesystem.identities filesystem.images filesystem.listings filesystem.nodes "
        "filesystem.reading filesystem.tree",
        "filesystem.choosing": "selection settings",
        "filesystem.mount": "errors hidden model naming settings archives catalogue control selection store "
        "systemd worker filesystem",
        "filesystem.configs": "settings archives.http_limits archives.idc_config archives.idc_index "
        "archives.login archives.nbia archives.opening "
        "catalogue.catalogue store.store filesystem.budgets filesystem.operations filesystem.walk_ahead",
        "filesystem.session": "settings credentials archives.http_limits archives.login",
        # The process and its commands.
        "daemon": "errors settings logs systemd filesystem.mount filesystem.mountpoint",
        "systemd": "",
        "cli": "tciafs errors cli",
        "cli.words": "cli.completing errors setting_kinds settings",
        "cli.output": "errors",
        "cli.completing": "errors control.report filesystem.mountpoint",
        "cli.agreeing": "errors naming settings agreement cli.output",
        "cli.citing": "cli.completing citations control.client control.report cli.daemons cli.exporting "
        "cli.output",
        "cli.measuring": "cli.completing hidden control.report cli.daemons cli.exporting cli.output",
        "cli.manifests": "cli.completing hidden selection.manifests control.manifest_client "
        "control.report cli.daemons "
        "cli.output",
        "cli.exporting": "cli.completing errors export.folders export.mounted export.tars cli.daemons "
        "cli.output "
        "control.report",
        "cli.mounting": "cli.completing errors settings systemd daemon filesystem.mountpoint control.place "
        "cli.agreeing cli.output cli.words",
        "cli.serving": "errors systemd filesystem.attaching filesystem.configs filesystem.mountpoint "
        "cli.words",
        "cli.mount_helper": "errors settings daemon filesystem.mountpoint cli.agreeing cli.output",
        "doctor": "errors settings credentials archives.http_limits archives.idc_index archives.login "
        "archives.probe filesystem.mountpoint",
        "cli.examining": "settings doctor control.report cli.output cli.words",
        "cli.logins": "errors settings credentials archives.http_limits archives.login cli.output",
        "cli.keeping": "cli.completing control.client control.report cli.daemons cli.output",
        "cli.verifying": "cli.completing errors control.client control.report control.values cli.daemons "
        "cli.output",
        "cli.prefetching": "cli.completing errors selection.manifests filesystem.mountpoint "
        "control.client control.report "
        "control.series_values cli.bars cli.daemons cli.output",
        "cli.bars": "control.report",
        "cli.configuring": "cli.completing settings control.report cli.output cli.words",
        "cli.metering": "cli.completing errors control.client control.metrics cli.daemons cli.output",
        "cli.watching": "errors control.client control.report control.speeds cli.daemons cli.output "
        "cli.watch_view",
        "cli.watch_view": "control.report",
        "cli.daemons": "cli.completing errors control.client control.report filesystem.mountpoint cli.output",
        "cli.statuses": "cli.completing control.client control.failed_table control.report cli.browsing "
        "cli.daemons cli.output cli.watching",
        "cli.log_levels": "cli.completing settings control.client cli.daemons",
        "cli.browsing": "cli.output web.server",
        # The web page: made by the command that serves it.
        "web.pictures": "",
        "web.pages": "control.known_values control.report control.speeds control.values",
        "web.guarded": "",
        "web.server": "errors control.client control.known_values control.speeds web.guarded web.pages "
        "web.pictures",
        "__main__": "cli",
        # An independent witness.
        "sample": "sample",
    }.items()
}
"""Rooms and what they may import; a module's room is the longest name that fits. "tciafs" is __version__."""

ONLY_IN: Mapping[str, frozenset[str]] = {
    library: names(rooms)
    for library, rooms in {
        "pyfuse3": "filesystem.operations filesystem.mount",
        # nbia and idc name the type of a transport that they pass on
        "httpx": "archives.http archives.http_asking archives.http_bulk archives.http_errors archives.probe "
        "archives.idc archives.login archives.nbia control.client",
        "keyring": "credentials",
        "diskcache": "catalogue.table",
        "sqlite3": "archives.idc_memory archives.idc_table catalogue.table store",
        "duckdb": "archives.idc_index sample",
        "pydicom": "worker.headers headers web.pictures sample",
        "numpy": "web.pictures sample",
        "starlette": "control.server web.guarded web.server sample",
        "hypercorn": "control.server web.server sample",
        "jinja2": "web.pages",
        "PIL": "web.pictures",
        "prometheus_client": "control.metrics",
        "isal": "archives.unzip catalogue.table store.pack worker.fetching store.checking",
        "stamina": "archives.http worker.fetching",
        "click": "cli daemon",
        "rich": "cli.bars cli.prefetching cli.watching cli.watch_view",
    }.items()
}
"""Libraries that could be replaced in one place."""

WITHOUT_TRIO = names(
    "errors hidden request_ids logs "
    "model naming headers setting_kinds settings agreement citations metadata export archives.unzip "
    "archives.http_body "
    "archives.http_errors archives.http_pace "
    "archives.http_asking archives.http_limits archives.json_rows archives.nbia_rows archives.nbia_listings "
    "archives.nbia_images archives.nbia_names archives.idc_index archives.idc_memory archives.idc_records "
    "archives.idc_table archives.s3 "
    "control.values control.known_values control.commands control.place control.client control.failed_table "
    "control.report "
    "control.metrics control.speeds web.pages web.pictures "
    "store.disk store.failures store.holder store.layout store.pack store.ledger store.open_packs "
    "store.places store.recovery store.shelf worker.messages worker.fetching worker.listing "
    "worker.rest worker.headers worker.digests selection.manifests selection.criteria catalogue.answers "
    "catalogue.changes catalogue.table catalogue.walks filesystem.guard filesystem.handles "
    "filesystem.identities filesystem.nodes filesystem.provenance filesystem.sources filesystem.texts "
    "filesystem.paths filesystem.tree selection.kept catalogue.sums control.manifest_values "
    "control.manifest_client"
)
"""Pure functions, values, and what blocks: all of it can be used and tested without an event loop."""

HEAVY = names(
    "duckdb trio pyfuse3 httpx pydicom numpy diskcache hypercorn starlette rich prometheus_client jinja2 PIL"
)
"""What `tciafs --help` must not wait for."""


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
    script = "import sys, tciafs.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert HEAVY.isdisjoint(loaded.stdout.split())
