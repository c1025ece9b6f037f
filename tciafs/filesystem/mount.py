"""The composition root: builds all rooms for one mount, runs them, closes them in reverse order.

The only place that knows everybody. pyfuse3 keeps its session in module globals, so a process has one
mount; the command runs this in a process of its own, which never touches the mounted folder itself.
"""

import hashlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import platformdirs
import pyfuse3
import trio

from tciafs.archives.http_limits import HttpLimits
from tciafs.archives.login import Session
from tciafs.archives.nbia import Api, NbiaArchive, NbiaConfig
from tciafs.catalogue.answers import Listings
from tciafs.catalogue.catalogue import Catalogue, CatalogueConfig
from tciafs.catalogue.table import Question
from tciafs.control.commands import Commands
from tciafs.control.place import listening
from tciafs.errors import Misuse, TciafsError, Unusable
from tciafs.filesystem import mountpoint as mountpoints
from tciafs.filesystem.budgets import Budgets, MeteredFetcher
from tciafs.filesystem.choosing import choice_in_words, chosen_by
from tciafs.filesystem.commands import commands_of
from tciafs.filesystem.guard import Guard, ListingMode
from tciafs.filesystem.images import Images
from tciafs.filesystem.interrupts import Interrupts
from tciafs.filesystem.kernel_view import KernelView
from tciafs.filesystem.operations import Operations, Presentation
from tciafs.filesystem.prefetching import Prefetching
from tciafs.filesystem.session import open_session
from tciafs.filesystem.status import About, Rooms
from tciafs.filesystem.tree import Tree
from tciafs.filesystem.tuning import tune
from tciafs.filesystem.walk_ahead import AheadConfig, WalkAhead
from tciafs.filesystem.way import Way
from tciafs.naming import DATA_USAGE_POLICY_URL, Naming
from tciafs.selection.selection import Selection
from tciafs.selection.table import MetadataTable
from tciafs.settings import Settings
from tciafs.store.store import Store, StoreConfig
from tciafs.worker.pool import WorkerPool

__all__ = ["run_mount"]

log = logging.getLogger(__name__)

FIRST_LOOK_S = 3.0
"""How long the first message waits for the archive; the mount serves from the start."""

SECOND_LOOK_S = 2.0
"""How long a single try may then take that is to say why the archive does not answer."""

CLOSING_S = 3.0
"""How long requests may take to end when the mount goes away, before they are cut off."""

COMMAND_MARGIN_S = 5.0
"""How much longer than one listing a command may take that asks the archive."""

SAMPLE_START_S = 30.0
AHEAD_SHARE = 8
"""What is fetched ahead of one reader takes an eighth of the cache at most."""

MAX_REQUESTS = 1024
"""Requests served at once: waiting ones are tasks of 9 kB, and others must get past them."""


async def run_mount(settings: Settings, mountpoint: Path, ready: Callable[[str], None]) -> None:
    """Mount and serve until unmounted or told to end by SIGTERM or SIGINT.

    `ready` is called with a sentence for the user once the mount answers. Raises Unusable where the
    mount point, FUSE or the cache folder cannot be used.
    """
    async with AsyncExitStack() as stack:
        if settings.archive == "sample":
            url = await stack.enter_async_context(_sample_archive())
        else:
            url = settings.url
        session = await open_session(settings, _http_limits(settings))
        archive = NbiaArchive(_nbia_config(settings, url, session), bearer=session)
        stack.push_async_callback(archive.aclose)
        strict = settings.verify == "strict"
        pool = await stack.enter_async_context(
            WorkerPool.running(lambda: archive.config, settings.retries, bearer=session, strict=strict)
        )
        budgets = _budgets(settings)
        fetcher = MeteredFetcher(pool, budgets)
        store = await stack.enter_async_context(Store.running(_store_config(settings), fetcher))
        catalogue = await stack.enter_async_context(
            Catalogue.running(archive, _catalogue_config(settings, session), lister=pool)
        )
        choice = await trio.to_thread.run_sync(chosen_by, settings)
        selection = await stack.enter_async_context(Selection.running(catalogue, choice))
        await _check_words(selection)
        listings: Listings = catalogue if choice.is_everything else selection
        nursery = await stack.enter_async_context(trio.open_nursery())
        guard = Guard(
            cast(ListingMode, settings.listing),
            settings.crawlers,
            budgets,
            paused=lambda: store.pausing.refusal,
        )
        files = _file_system(settings, store, listings, guard)
        # Before there is a mount, since a signal that nobody handles would leave it behind, dead.
        signals = stack.enter_context(trio.open_signal_receiver(*_ending_signals()))
        stack.enter_context(_mounted(files.operations, mountpoint, _fuse_options(settings, url)))
        stack.callback(nursery.cancel_scope.cancel)
        listener = stack.enter_context(listening(mountpoint))
        chosen = partial(_said_of, choice_in_words(settings), selection)
        rooms = Rooms(store, files.tree, catalogue, guard, budgets, chosen)
        prefetching = Prefetching(files.tree, store, settings.downloads)
        commands = commands_of(_about(settings, url, mountpoint, session), rooms, files.tree, prefetching)
        nursery.start_soon(files.interrupts.run)
        nursery.start_soon(files.view.run)
        nursery.start_soon(files.ahead.run)
        nursery.start_soon(_end_on_signal, signals, files.interrupts, nursery.cancel_scope)
        announce = partial(_announce, listings, selection, archive.config, session, mountpoint, ready)
        nursery.start_soon(_announce_and_obey, announce, listener, commands)
        await pyfuse3.main(min_tasks=4, max_tasks=MAX_REQUESTS)
        nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class _FileSystem:
    """What the kernel is answered with."""

    tree: Tree
    view: KernelView
    interrupts: Interrupts
    ahead: WalkAhead
    operations: Operations


def _file_system(settings: Settings, store: Store, listings: Listings, guard: Guard) -> _FileSystem:
    images, interrupts, naming = Images(store), Interrupts(), Naming(settings.naming)
    table = MetadataTable(listings, naming) if settings.manifest or settings.cart else None
    tree = Tree(listings, images, naming, metadata=None if table is None else table.text)
    view = KernelView(tree, images, naming, _forget_entry, _forget_attributes)

    def note(question: Question, before: Sequence[Any], after: Sequence[Any]) -> None:
        if table is not None:
            table.forget()
        view.note(question, before, after)

    listings.on_replaced = note
    ahead = WalkAhead(Way(tree.folders), store, guard, _ahead_config(settings))
    operations = Operations(tree, images, store, guard, ahead, interrupts, _presentation(settings))
    return _FileSystem(tree, view, interrupts, ahead, operations)


def _ahead_config(settings: Settings) -> AheadConfig:
    return AheadConfig(settings.read_ahead, settings.cache_size // AHEAD_SHARE)


def _cache_folder(settings: Settings) -> Path:
    folder = settings.cache_dir or platformdirs.user_cache_path("tciafs")
    # The sample's listings and series must never be taken for those of the real archive.
    return folder / "sample" if settings.archive == "sample" else folder


def _budgets(settings: Settings) -> Budgets:
    kept = _cache_folder(settings) / "received-today.json"
    return Budgets(settings.daily_budget, settings.process_budget, kept)


def _http_limits(settings: Settings) -> HttpLimits:
    return HttpLimits(
        connect_timeout_s=settings.connect_timeout,
        stall_timeout_s=settings.stall_timeout,
        listing_timeout_s=settings.listing_timeout,
    )


def _nbia_config(settings: Settings, url: str, session: Session | None) -> NbiaConfig:
    return NbiaConfig(
        url=url,
        api=None if settings.api == "auto" else cast(Api, settings.api),
        retries=settings.retries,
        limits=_http_limits(settings),
        logged_in=session is not None,
    )


def _store_config(settings: Settings) -> StoreConfig:
    return StoreConfig(
        folder=_cache_folder(settings),
        limit_bytes=settings.cache_size,
        parallel=settings.downloads,
        # Longer than the archive's own patience, so that a reader hears the cause and not the symptom.
        patience_s=1.5 * settings.stall_timeout,
        offline=settings.offline,
    )


def _catalogue_config(settings: Settings, session: Session | None) -> CatalogueConfig:
    # Series are the same wherever they come from, since their UIDs are; listings are one server's, and
    # what one user may see of it.
    whose = settings.archive if settings.archive == "sample" else settings.url.rstrip("/")
    if session is not None:
        whose += f"\n{session.user}"
    name = hashlib.blake2b(whose.encode(), digest_size=8).hexdigest()
    folder = _cache_folder(settings) / "listings" / name
    return CatalogueConfig(folder, settings.listing_ttl, settings.offline)


def _presentation(settings: Settings) -> Presentation:
    uid = os.getuid() if settings.uid is None else settings.uid
    gid = os.getgid() if settings.gid is None else settings.gid
    return Presentation(uid, gid, settings.umask)


def _fuse_options(settings: Settings, url: str) -> set[str]:
    # Without auto_unmount on purpose: after a crash the folder must not look empty, since a mirroring
    # job would then delete its mirror. It gives ENOTCONN, and the next mount clears it.
    host = (urlsplit(url).hostname or "archive").replace(",", "_")
    options = {"ro", "nodev", "nosuid", "noatime", "default_permissions"}
    options |= {f"fsname=tciafs:{host}", "subtype=tciafs"}
    return options | ({"allow_other"} if settings.allow_other else set())


@contextmanager
def _mounted(operations: Operations, mountpoint: Path, options: set[str]) -> Iterator[None]:
    mounted = mountpoints.mounted_at(mountpoint)
    if mounted is not None and mounted.type == mountpoints.FUSE_TYPE:
        raise Unusable(f"{mountpoint} has got another tciafs mounted meanwhile")
    try:
        pyfuse3.init(operations, str(mountpoint), options)
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


def _said_of(words: str, selection: Selection) -> tuple[str, ...]:
    return (words, *selection.remarks) if words else ()


async def _announce(
    listings: Listings,
    selection: Selection,
    archive: NbiaConfig,
    session: Session | None,
    mountpoint: Path,
    ready: Callable[[str], None],
) -> None:
    """Tune the kernel's side of the mount, and say that it is there and what is behind it."""
    if mounted := mountpoints.mounted_at(mountpoint):
        await trio.to_thread.run_sync(tune, mounted.device)
    with trio.move_on_after(FIRST_LOOK_S) as first_look:
        try:
            state = f"{len((await listings.collections()).records)} collections"
        except TciafsError as error:
            state = f"the archive is not available ({error}); what is cached is readable"
    if first_look.cancelled_caught:
        state = f"{await _why_silent(archive)}; what is cached is readable"
        log.warning("%s", state)
    if session is not None:
        refused = session.refused
        state += f", as {session.user}" if refused is None else f", as a guest ({refused})"
    state = ". ".join((state, *selection.remarks))
    ready(f"{mountpoint}: {state}. Data usage policy: {DATA_USAGE_POLICY_URL}")


def _about(settings: Settings, url: str, mountpoint: Path, session: Session | None) -> About:
    return About(
        mountpoint=str(mountpoint),
        archive=url,
        mounted_at=time.time(),
        patience_s=settings.listing_timeout + COMMAND_MARGIN_S,
        login=session,
    )


async def _announce_and_obey(
    announce: Callable[[], Awaitable[None]], listener: socket.socket | None, commands: Commands
) -> None:
    """Announce the mount, then serve commands: those that come earlier wait in the socket's queue.

    What serves them is loaded when the first one comes: who looks around right after mounting should not
    have to share the processor with that.
    """
    await announce()
    if listener is not None:
        await trio.lowlevel.wait_readable(listener)
        serve = await trio.to_thread.run_sync(_load_server)
        await serve(listener, commands)


def _load_server() -> Callable[[socket.socket, Commands], Awaitable[None]]:
    """Return what serves commands: 5 MB and a tenth of a second that no mount needs to begin with."""
    from tciafs.control.server import serve

    return serve


async def _why_silent(config: NbiaConfig) -> str:
    """Return why the archive has not answered: what a single try says, while others are repeated behind."""
    archive = NbiaArchive(replace(config, retries=0))
    try:
        with trio.move_on_after(SECOND_LOOK_S):
            await archive.collections()
            return "the archive is still being asked what there is to show"
    except TciafsError as error:
        return f"the archive is not available ({error})"
    finally:
        await archive.aclose()
    return "the archive has not answered yet"


def _ending_signals() -> list[signal.Signals]:
    """Return the signals that end the mount: a closed terminal too, unless nohup says otherwise."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if ignored else [signal.SIGHUP])]


async def _end_on_signal(
    signals: AsyncIterator[int], interrupts: Interrupts, scope: trio.CancelScope
) -> None:
    """End the mount on the first signal: let go of waiting requests, then stop serving."""
    await anext(signals)
    interrupts.close()
    pyfuse3.terminate()
    with trio.move_on_after(CLOSING_S):
        async for _impatience in signals:
            log.info("already closing")
    scope.cancel()


@asynccontextmanager
async def _sample_archive() -> AsyncIterator[str]:
    """Run the bundled sample archive as a process and give its address; it ends with us."""
    # -P: what happens to lie in the working folder is not imported.
    command = [sys.executable, "-P", "-m", "tciafs.sample", "--until-eof"]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    try:
        line = b""
        with trio.move_on_after(SAMPLE_START_S):
            while not line.endswith(b"\n") and (data := await process.stdout.receive_some()):
                line += data
        if not line.endswith(b"\n"):
            raise TciafsError("the sample archive did not start")
        yield line.decode().strip()
    finally:
        process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSING_S):
            await process.wait()
