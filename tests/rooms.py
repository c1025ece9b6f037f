"""The rooms of tciafs: who may import whom, and which library stays where. `test_layering` looks after it."""

from collections.abc import Mapping


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAY_IMPORT: Mapping[str, frozenset[str]] = {
    room: names(may)
    for room, may in {
        # The ground floor.
        "errors": "",
        "model": "",
        "policy": "",
        "printable": "",
        "naming": "errors model policy",
        "headers": "plain_headers",
        "plain_headers": "",
        "setting_kinds": "",
        "settings": "setting_kinds",
        "setting_sources": "errors setting_kinds settings",
        "request_ids": "",
        "log_files": "errors settings",
        "logs": "log_files printable settings request_ids",
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
        "control.report": "control.values printable",
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
        "archives.notes": "",
        "archives.http.asking": "errors archives.http.limits",
        "archives.http.body": "errors",
        "archives.http.bulk": "archives.http.asking",
        "archives.http.client": "errors tciafs archives.http.asking archives.http.body archives.http.bulk "
        "archives.http.errors archives.http.limits archives.http.pace archives.http.reading "
        "archives.http.side_by_side",
        "archives.http.errors": "errors",
        "archives.http.limits": "",
        "archives.http.pace": "",
        "archives.http.reading": "errors",
        "archives.http.side_by_side": "errors archives.http.asking archives.http.bulk archives.http.pace",
        "archives.http.probe": "errors archives.http.client archives.http.errors archives.http.limits",
        "archives.nbia.annotations": "model archives.http.client archives.http.errors archives.nbia.images "
        "archives.nbia.listings archives.nbia.refusals",
        "archives.nbia.json_rows": "errors",
        "archives.nbia.listings": "model archives.nbia.json_rows archives.nbia.rows",
        "archives.nbia.login": "errors archives.http.client archives.http.errors archives.http.limits",
        "archives.nbia.names": "model",
        "archives.nbia.refusals": "errors archives.http.errors",
        "archives.nbia.rows": "model",
        "archives.nbia.single_images": "errors model archives.http.client archives.http.errors "
        "archives.nbia.listings archives.nbia.names",
        "archives.idc.archive": "archives errors model",
        "archives.idc.config": "archives.http.client archives.http.limits",
        "archives.idc.images": "errors headers model naming archives.idc.memory archives.idc.parallel "
        "archives.idc.s3 archives.idc.table archives.nbia.names",
        "archives.idc.index": "errors archives.idc.table",
        "archives.idc.making": "errors archives.idc.index archives.idc.table",
        "archives.idc.memory": "archives.idc.s3 archives.notes",
        "archives.idc.parallel": "errors",
        "archives.idc.records": "model archives.idc.table",
        "archives.idc.s3": "errors archives.http.asking archives.http.client archives.http.errors "
        "archives.http.side_by_side archives.route",
        "archives.idc.table": "errors",
        "archives.either.archive": "archives model",
        "archives.either.annotations": "model archives.either.images archives.nbia.archive",
        "archives.either.beyond": "model archives.notes",
        "archives.either.config": "archives.idc.config archives.nbia.archive",
        "archives.either.images": "errors headers model archives.idc.archive archives.nbia.archive "
        "archives.route",
        "archives.either.joining": "errors model archives.either.archive archives.either.beyond "
        "archives.either.config archives.either.listings "
        "archives.idc.archive archives.idc.config archives.nbia.archive archives.route",
        "archives.either.listings": "errors model archives.either.beyond "
        "archives.idc.archive archives.nbia.archive archives.route",
        "archives.route": "errors",
        "archives.opening": "errors archives.either.archive archives.either.config "
        "archives.either.joining archives.http.client "
        "archives.idc.archive archives.idc.config archives.idc.index archives.nbia.archive",
        # Where a user's secrets are kept.
        "credentials": "errors archives.nbia.login",
        # What is remembered: listings and series. Neither knows the other, or an archive.
        "catalogue": "errors model catalogue",
        "catalogue.asking": "errors catalogue.table",
        "catalogue.freshness": "catalogue.changes catalogue.table",
        "catalogue.changes": "model catalogue.table",
        "catalogue.walks": "",
        "catalogue.wholes": "errors catalogue.answers catalogue.asking catalogue.lately catalogue.remembered "
        "catalogue.table catalogue.walks",
        "catalogue.remembered": "errors catalogue.damage catalogue.lately catalogue.one_thread "
        "catalogue.sums catalogue.table",
        "catalogue.one_thread": "",
        "catalogue.lately": "catalogue.table",
        "catalogue.sums": "model",
        "catalogue.summing": "errors model catalogue.remembered catalogue.sums",
        "catalogue.damage": "",
        "catalogue.table": "errors model catalogue.damage catalogue.sums",
        "catalogue.answers": "model catalogue.lately catalogue.sums catalogue.table",
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
        "agreement": "errors policy",
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
        "store.config": "",
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
        "store.parts": "errors model store.disk store.layout store.open_packs",
        "store.ranged": "errors model store.disk_errors store.failures store.layout store.parts store.room",
        "store.room": "errors model store.disk store.parts store.shelf",
        "store.surveys": "errors model store.failures store.layout store.shelf",
        "store.holder": "",
        "store.lease": "errors store.disk store.holder",
        # The other process, and the daemon's end of the pipe to it: a composition root of its own.
        "worker": "errors model private starting archives.http.client archives.opening store.disk_errors "
        "store.download worker",
        "worker.pool": "errors model archives.http.client archives.opening store.download worker.messages "
        "worker.process",
        "worker.process": "errors",
        "worker.messages": "model archives.opening store.layout",
        "worker.listing": "errors model catalogue.damage catalogue.sums catalogue.table worker.messages",
        "worker.annotations": "errors model naming store.pack worker.digests",
        "worker.fetching": "errors model naming store.download store.layout store.pack worker.annotations "
        "worker.digests worker.earlier worker.headers worker.held worker.messages worker.rest "
        "worker.retrying",
        "worker.held": "errors model store.layout",
        "worker.retrying": "errors",
        "worker.earlier": "errors model store.layout store.pack worker.digests worker.headers",
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
        "filesystem.part_or_whole": "errors model",
        "filesystem.reading": "",
        "filesystem.aliases": "naming",
        "filesystem.images": "errors model naming filesystem.aliases",
        "filesystem.guard": "errors model",
        "filesystem.commands": "errors control.usage_values logs control.commands "
        "control.known_values control.values "
        "filesystem.paths filesystem.status store.checking",
        "filesystem.known": "errors model naming catalogue.sums control.known_values filesystem.folders "
        "filesystem.identities filesystem.status",
        "filesystem.budgets": "errors model filesystem.private_files store.download",
        "filesystem.interrupts": "errors",
        "filesystem.private_files": "",
        "filesystem.usage": "model filesystem.private_files",
        "filesystem.walk_ahead": "errors filesystem.identities filesystem.nodes filesystem.way",
        "filesystem.way": "errors model filesystem.folders filesystem.identities filesystem.sources",
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
        "filesystem.part_or_whole filesystem.reading filesystem.tree",
        "filesystem.choosing": "selection settings",
        "filesystem.mount": "errors hidden naming policy settings archives catalogue control.place selection "
        "store systemd worker filesystem",
        "filesystem.obeying": "naming settings control.commands control.server filesystem.choosing "
        "filesystem.commands filesystem.known filesystem.manifests filesystem.prefetching filesystem.status",
        "filesystem.configs": "errors settings archives.either.config archives.http.limits "
        "archives.idc.config archives.idc.index archives.idc.making "
        "archives.nbia.login archives.nbia.archive archives.opening "
        "catalogue.catalogue store.store filesystem.budgets filesystem.operations filesystem.walk_ahead",
        "filesystem.index_table": "errors archives.either.joining archives.idc.config archives.idc.index "
        "archives.idc.making archives.opening filesystem.configs",
        "filesystem.sample": "errors",
        "filesystem.session": "settings credentials archives.http.limits archives.nbia.login",
        # The process and its commands.
        "launching": "errors settings daemon logs log_files systemd filesystem.mountpoint",
        "daemon": "errors private settings logs starting archives.http.asking filesystem.mount "
        "worker.process",
        "private": "",
        "starting": "",
        "systemd": "",
        "cli": "tciafs errors starting cli",
        "cli.words": "cli.completing errors setting_kinds setting_sources settings",
        "cli.output": "errors",
        "cli.completing": "errors control.report filesystem.mountpoint",
        "cli.agreeing": "errors policy settings agreement cli.output",
        "cli.citing": "errors naming cli.completing citations control.client control.report cli.daemons "
        "cli.exporting cli.output",
        "cli.measuring": "cli.completing hidden control.report cli.daemons cli.exporting cli.output",
        "cli.manifests": "cli.completing hidden selection.manifests control.manifest_client "
        "control.report cli.daemons "
        "cli.output",
        "cli.exporting": "cli.completing errors export.folders export.mounted export.tars cli.daemons "
        "cli.output "
        "control.report",
        "cli.mounting": "cli.completing errors settings systemd launching filesystem.mountpoint "
        "control.place cli.agreeing cli.output cli.words",
        "cli.serving": "errors systemd filesystem.attaching filesystem.configs filesystem.mountpoint "
        "cli.words",
        "cli.mount_helper": "errors setting_sources settings launching filesystem.mountpoint cli.agreeing "
        "cli.output",
        "doctor": "errors settings credentials archives.http.limits archives.idc.index archives.nbia.login "
        "archives.http.probe archives.opening filesystem.mountpoint",
        "cli.examining": "settings doctor control.report cli.output cli.words",
        "cli.logins": "errors setting_sources credentials archives.http.limits archives.nbia.login "
        "cli.output",
        "cli.keeping": "cli.completing control.client control.report cli.daemons cli.output",
        "cli.verifying": "cli.completing errors control.client control.report control.values cli.daemons "
        "cli.output",
        "cli.prefetching": "cli.completing errors selection.manifests filesystem.mountpoint "
        "control.client control.report "
        "control.series_values cli.bars cli.daemons cli.output",
        "cli.bars": "control.report",
        "cli.configuring": "cli.completing setting_sources settings control.report cli.output cli.words",
        "cli.metering": "cli.completing errors control.client control.metrics cli.daemons cli.output",
        "cli.watching": "errors control.client control.report control.speeds cli.daemons cli.output "
        "cli.watch_view",
        "cli.watch_view": "control.report control.speeds",
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
        "httpx": "archives.http archives.idc.archive archives.nbia.archive archives.nbia.login "
        "control.client",
        "keyring": "credentials",
        "diskcache": "catalogue.table",
        "sqlite3": "archives.idc.table archives.notes catalogue.damage catalogue.table store",
        "duckdb": "archives.idc.index sample",
        "pydicom": "worker.headers headers web.pictures sample",
        "numpy": "web.pictures sample",
        "starlette": "control.server web.guarded web.server sample",
        "hypercorn": "control.server web.server sample",
        "jinja2": "web.pages",
        "PIL": "web.pictures",
        "prometheus_client": "control.metrics",
        "isal": "archives.unzip catalogue.table store.pack worker.fetching store.checking",
        "stamina": "archives.http.client worker.fetching",
        "click": "cli launching",
        "rich": "cli.bars cli.prefetching cli.watching cli.watch_view",
    }.items()
}
"""Libraries that could be replaced in one place."""

WITHOUT_TRIO = names(
    "errors hidden request_ids log_files logs policy printable launching "
    "model naming headers plain_headers setting_kinds setting_sources settings agreement citations "
    "metadata export "
    "archives.unzip "
    "archives.http.asking archives.http.body archives.http.errors archives.http.limits archives.http.pace "
    "archives.nbia.images archives.nbia.json_rows archives.nbia.listings archives.nbia.names "
    "archives.nbia.rows archives.notes archives.idc.index archives.idc.memory archives.idc.records "
    "archives.idc.s3 archives.idc.table "
    "control.values control.known_values control.commands control.place control.client control.failed_table "
    "control.report "
    "control.metrics control.speeds web.pages web.pictures "
    "store.disk store.failures store.holder store.layout store.pack store.ledger store.open_packs "
    "store.places store.recovery store.shelf worker.messages worker.fetching worker.listing "
    "worker.rest worker.headers worker.digests selection.manifests selection.criteria catalogue.answers "
    "catalogue.changes catalogue.damage catalogue.table catalogue.walks filesystem.guard filesystem.handles "
    "filesystem.identities filesystem.nodes filesystem.provenance filesystem.sources filesystem.texts "
    "filesystem.paths filesystem.tree selection.kept catalogue.sums control.manifest_values "
    "control.manifest_client"
)
"""Pure functions, values, and what blocks: all of it can be used and tested without an event loop."""

HEAVY = names(
    "duckdb trio pyfuse3 httpx pydicom numpy diskcache hypercorn starlette rich prometheus_client jinja2 PIL"
)
"""What `tciafs --help` must not wait for."""
