"""The composition root: builds all rooms for one mount, runs them, closes them in reverse order.

The only place that knows everybody. pyfuse3 keeps its session in module globals, so a process has one
mount; the command runs this in a process of its own, which never touches the mounted folder itself.
"""

import logging
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import pyfuse3
import trio

from tciafs.archives.nbia.login import Session
from tciafs.archives.opening import AnyArchive, ArchiveConfig, asking_once, open_archive
from tciafs.catalogue.answers import Listings
from tciafs.catalogue.catalogue import Catalogue
from tciafs.catalogue.table import Question
from tciafs.control.place import listening
from tciafs.errors import Misuse, NoSuchName, TciafsError, Unusable
from tciafs.filesystem import mountpoint as mountpoints
from tciafs.filesystem.budgets import Budgets, MeteredFetcher, MeteredRanges, MeteredSurveyor
from tciafs.filesystem.choosing import chosen_by
from tciafs.filesystem.configs import (
    address_of,
    ahead_config,
    archive_meant,
    budgets_of,
    catalogue_config,
    fuse_options,
    http_limits,
    presentation_of,
    store_config,
)
from tciafs.filesystem.guard import Guard, ListingMode
from tciafs.filesystem.images import Images
from tciafs.filesystem.index_table import IndexTable
from tciafs.filesystem.interrupts import Interrupts
from tciafs.filesystem.kernel_view import KernelView
from tciafs.filesystem.operations import Operations
from tciafs.filesystem.sample import sample_archive
from tciafs.filesystem.session import open_session
from tciafs.filesystem.signals import Signals
from tciafs.filesystem.sources import Sources
from tciafs.filesystem.texts import Texts
from tciafs.filesystem.tree import Tree
from tciafs.filesystem.tuning import tune
from tciafs.filesystem.usage import Usage
from tciafs.filesystem.walk_ahead import WalkAhead
from tciafs.hidden import View
from tciafs.naming import Naming
from tciafs.policy import DATA_USAGE_POLICY_URL
from tciafs.selection.kept import KeptManifests
from tciafs.selection.selection import Selection
from tciafs.selection.table import Tables
from tciafs.selection.views import Views
from tciafs.settings import Settings
from tciafs.store.store import Store
from tciafs.systemd import keep_alive
from tciafs.worker.pool import WorkerPool

__all__ = ["Begun", "FileSystem", "Supply", "run_mount"]

log = logging.getLogger(__name__)

FIRST_LOOK_S = 3.0
"""How long the first message waits for the archive; the mount serves from the start."""

SECOND_LOOK_S = 2.0
"""How long a single try may then take that is to say why the archive does not answer."""

CLOSING_S = 3.0
"""How long requests may take to end when the mount goes away, before they are cut off."""

MANIFESTS_FOLDER = "manifests"
"""In the cache folder: manifests of which there are views."""

MAX_REQUESTS = 1024
"""Requests served at once: waiting ones are tasks of 9 kB, and others must get past them."""


class Begun(msgspec.Struct, frozen=True):
    """Where a mount was begun, with which archive, and when (Unix seconds)."""

    place: Path
    archive_url: str
    at: float


@dataclass(frozen=True, slots=True)
class Supply:
    """Where names and bytes come from, and who may have them."""

    archive: AnyArchive
    table: IndexTable
    session: Session | None
    store: Store
    catalogue: Catalogue
    selection: Selection
    listings: Listings
    never_asking: Listings
    views: Views
    usage: Usage | None
    budgets: Budgets
    guard: Guard


async def run_mount(
    settings: Settings,
    mountpoint: Path,
    ready: Callable[[str], None],
    handed: int | None = None,
    waiting: Callable[[str], None] = log.info,
    worker: "subprocess.Popen[bytes] | None" = None,
) -> None:
    """Mount and serve until unmounted or told to end by a signal; see `signals`.

    `ready` is called with a sentence for the user once the mount answers, `waiting` while that takes long.
    `handed` is the descriptor of a mount that was made for this process and that others unmount, `worker` a
    worker process that was started already. Raises Unusable where the mount point, FUSE or the cache folder
    cannot be used.
    """
    async with AsyncExitStack() as stack:
        url = address_of(settings)
        if settings.archive == "sample":
            url = await stack.enter_async_context(sample_archive())
        sources = await _sources(stack, settings, url, waiting, worker)
        files = _file_system(settings, sources)
        nursery = await stack.enter_async_context(trio.open_nursery())
        # Before there is a mount, since a signal that nobody handles would leave it behind, dead.
        signals = stack.enter_context(Signals.received())
        stack.enter_context(_mounted(files.operations, mountpoint, fuse_options(settings, url), handed))
        begun = Begun(mountpoint, sources.archive.config.url, time.time())
        stack.callback(nursery.cancel_scope.cancel)
        listener = stack.enter_context(listening(mountpoint))
        for task in (files.interrupts.run, files.view.run, files.ahead.run, sources.table.run):
            nursery.start_soon(task)
        nursery.start_soon(keep_alive, partial(_in_a_line, sources.store))
        nursery.start_soon(_end_on_signal, signals, files.interrupts, nursery.cancel_scope)
        announce = partial(_announce, sources, mountpoint, ready)
        obey = partial(_obey, settings, begun, sources, files)
        nursery.start_soon(_announce_and_obey, announce, listener, obey)
        await pyfuse3.main(min_tasks=4, max_tasks=MAX_REQUESTS)
        nursery.cancel_scope.cancel()


async def _sources(
    stack: AsyncExitStack,
    settings: Settings,
    url: str,
    waiting: Callable[[str], None],
    worker: "subprocess.Popen[bytes] | None",
) -> Supply:
    """Open all that is below the file system; the stack closes it."""
    session = await open_session(settings, http_limits(settings))
    meant = await trio.to_thread.run_sync(archive_meant, settings, url, session)
    table = IndexTable(meant)
    await table.make_if_needed(waiting)
    archive = open_archive(meant.config, bearer=session)
    table.belongs_to(archive)
    stack.push_async_callback(archive.aclose)
    strict = settings.verify == "strict"
    pool = await stack.enter_async_context(
        WorkerPool.running(
            lambda: archive.config, settings.retries, bearer=session, strict=strict, first=worker
        )
    )
    budgets = budgets_of(settings)
    store = await _store(stack, settings, archive, pool, budgets)
    catalogue = await stack.enter_async_context(
        Catalogue.running(archive, catalogue_config(settings, archive.config, session), lister=pool)
    )
    choice = await trio.to_thread.run_sync(chosen_by, settings)
    selection = await stack.enter_async_context(Selection.running(catalogue, choice))
    await _check_words(selection)
    kept = await trio.to_thread.run_sync(KeptManifests, store_config(settings).folder / MANIFESTS_FOLDER)
    views = await stack.enter_async_context(Views.running(catalogue, selection, kept))
    chosen: Catalogue | Selection = catalogue if choice.is_everything else selection
    never = chosen.that_never_asks()
    usage = None
    if settings.usage == "kept":
        usage = await stack.enter_async_context(Usage.running(store_config(settings).folder / "usage"))
    mode = cast(ListingMode, settings.listing)
    guard = Guard(mode, settings.crawlers, budgets, paused=lambda: store.pausing.refusal)
    return Supply(
        archive, table, session, store, catalogue, selection, chosen, never, views, usage, budgets, guard
    )


async def _store(
    stack: AsyncExitStack, settings: Settings, archive: AnyArchive, pool: WorkerPool, budgets: Budgets
) -> Store:
    """Open the store, with all that this archive is able to do besides."""
    stack.callback(budgets.write)
    running = Store.running(store_config(settings), MeteredFetcher(pool, budgets))
    store = await stack.enter_async_context(running)
    if archive.layouts is not None and not settings.offline:
        store.surveys.surveyor = MeteredSurveyor(pool, budgets)
        store.surveys.can_name = archive.layouts.can_name
    # In part nothing can be compared as a whole, which is what `strict` asks for.
    if archive.ranges is not None and not settings.offline and settings.verify != "strict":
        store.ranged.ranger = MeteredRanges(archive.ranges, budgets)
    return store


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What the kernel is answered with."""

    tree: Tree
    images: Images
    view: KernelView
    interrupts: Interrupts
    ahead: WalkAhead
    operations: Operations


def _file_system(settings: Settings, sources: Supply) -> FileSystem:
    store, listings, guard = sources.store, sources.listings, sources.guard
    images, interrupts, naming = Images(store), Interrupts(), Naming(settings.naming)
    tables = Tables(naming)
    has_metadata = bool(settings.manifest or settings.cart)
    tree = Tree(Sources(listings, sources.views, has_metadata=has_metadata), images, naming, Texts(tables))
    view = KernelView(tree, images, naming, _forget_entry, _forget_attributes)
    _pass_on_changes(sources, tables, view)
    ahead = WalkAhead(tree, store, guard, ahead_config(settings))
    operations = Operations(
        tree, images, store, guard, ahead, interrupts, presentation_of(settings), sources.usage
    )
    return FileSystem(tree, images, view, interrupts, ahead, operations)


def _pass_on_changes(sources: Supply, tables: Tables, view: KernelView) -> None:
    """Have tables, views and the kernel told of what has changed in the archive."""
    listings, views = sources.listings, sources.views
    to_selection = view.note if listings is sources.catalogue else sources.selection.note
    if listings is sources.selection:
        listings.on_replaced = view.note

    def note(question: Question, before: Sequence[Any], after: Sequence[Any]) -> None:
        tables.forget()
        to_selection(question, before, after)
        views.note(question, before, after)

    def note_view(which: View, question: Question, before: Sequence[Any], after: Sequence[Any]) -> None:
        with suppress(NoSuchName):
            view.note_of(view.source_of(which), question, before, after)

    sources.catalogue.on_replaced = note
    views.on_replaced = note_view


@contextmanager
def _mounted(
    operations: Operations, mountpoint: Path, options: set[str], handed: int | None
) -> Iterator[None]:
    mounted = mountpoints.mounted_at(mountpoint)
    if handed is None and mounted is not None and mounted.type == mountpoints.FUSE_TYPE:
        raise Unusable(f"{mountpoint} has got another tciafs mounted meanwhile")
    # libfuse serves what is mounted already where it is given a descriptor for a mount point.
    place = mountpoint if handed is None else f"/dev/fd/{handed}"
    try:
        pyfuse3.init(operations, str(place), options)
    except RuntimeError as error:
        hint = " (allow_other needs user_allow_other in /etc/fuse.conf)" if "allow_other" in options else ""
        raise Unusable(f"{mountpoint} could not be mounted: {error}{hint}") from error
    try:
        yield
    finally:
        pyfuse3.close(unmount=True)
        operations.close()


def _forget_entry(folder: int, name: str) -> None:
    """Have the kernel forget a name; it may not know it, or the mount be gone."""
    with suppress(OSError):
        pyfuse3.invalidate_entry(folder, name.encode("utf-8", "surrogateescape"))


def _forget_attributes(inode: int) -> None:
    """Have the kernel forget the attributes of an inode; it may not know it, or the mount be gone."""
    with suppress(OSError):
        pyfuse3.invalidate_inode(inode, attr_only=True)


async def _check_words(selection: Selection) -> None:
    """Raise Misuse for what the archive does not know; where it cannot be asked now, nothing is said."""
    with trio.move_on_after(FIRST_LOOK_S):
        try:
            await selection.check_words()
        except Misuse:
            raise
        except TciafsError as error:
            log.info("what was chosen could not be looked up: %s", error)


async def _announce(sources: Supply, mountpoint: Path, ready: Callable[[str], None]) -> None:
    """Tune the kernel's side of the mount, and say that it is there and what is behind it."""
    if mounted := mountpoints.mounted_at(mountpoint):
        await trio.to_thread.run_sync(tune, mounted.device)
    with trio.move_on_after(FIRST_LOOK_S) as first_look:
        try:
            state = f"{len((await sources.listings.collections()).records)} collections"
        except TciafsError as error:
            state = f"the archive is not available ({error}); what is cached is readable"
    if first_look.cancelled_caught:
        state = f"{await _why_silent(sources.archive.config)}; what is cached is readable"
        log.warning("%s", state)
    if (session := sources.session) is not None:
        refused = session.refused
        state += f", as {session.user}" if refused is None else f", as a guest ({refused})"
    remarks = (sources.table.remark,) if sources.table.is_awaited else ()
    state = ". ".join((state, *remarks, *sources.selection.remarks))
    ready(f"{mountpoint}: {state}. Data usage policy: {DATA_USAGE_POLICY_URL}")


async def _announce_and_obey(
    announce: Callable[[], Awaitable[None]],
    listener: socket.socket | None,
    obey: Callable[[socket.socket], Awaitable[None]],
) -> None:
    """Announce the mount, then serve commands: those that come earlier wait in the socket's queue.

    What obeys them is loaded when the first one comes: who looks around right after mounting should not have
    to share the processor with that.
    """
    await announce()
    if listener is not None:
        await trio.lowlevel.wait_readable(listener)
        await obey(listener)


async def _obey(
    settings: Settings, begun: Begun, supply: Supply, files: FileSystem, listener: socket.socket
) -> None:
    obey = await trio.to_thread.run_sync(_load_obey)
    await obey(listener, settings, begun, supply, files)


def _load_obey() -> "Callable[[socket.socket, Settings, Begun, Supply, FileSystem], Awaitable[None]]":
    """Return what obeys commands: 5 MB and an eighth of a second that no mount needs to begin with."""
    from tciafs.filesystem.obeying import obey

    return obey


def _in_a_line(store: Store) -> str:
    """Return what a mount does in half a line, as systemctl shows it."""
    usage, downloads, failures = store.usage(), store.downloads(), store.failures.every()
    paused = "paused; " if store.pausing.refusal is not None else ""
    used, limit = (size_bytes / 2**30 for size_bytes in (usage.used_bytes, usage.limit_bytes))
    under_way = f"{paused}{len(downloads)} series coming in, {len(failures)} failed"
    return f"{under_way}; cache {used:.1f} of {limit:.1f} GiB"


async def _why_silent(config: ArchiveConfig) -> str:
    """Return why the archive has not answered: what a single try says, while others are repeated behind."""
    archive = open_archive(asking_once(config))
    try:
        with trio.move_on_after(SECOND_LOOK_S):
            await archive.collections()
            return "the archive is still being asked what there is to show"
    except TciafsError as error:
        return f"the archive is not available ({error})"
    finally:
        await archive.aclose()
    return "the archive has not answered yet"


async def _end_on_signal(signals: Signals, interrupts: Interrupts, scope: trio.CancelScope) -> None:
    """End the mount on the first signal that means it: let go of waiting requests, then stop serving."""
    await signals.until_one_ends()
    interrupts.close()
    pyfuse3.terminate()
    with trio.move_on_after(CLOSING_S):
        while True:
            await signals.until_one_ends()
            log.info("already closing")
    scope.cancel()
