"""The face of the store: which series are here, reading them, and getting those that are not.

Series are fetched by tasks of the store's own nursery, so a reader that goes away neither aborts nor
corrupts a download; all who want a series share one download and, for a while, its failure. State
lives in the daemon's one thread; slow disk work is done in a thread. Must not know of FUSE, of HTTP,
or of the rules for names.
"""

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial

import trio

from tciafs.errors import NoSpace, Offline, Refused, SeriesDamaged, TciafsError, Unreachable, Unusable
from tciafs.model import Series
from tciafs.store.checking import Checker
from tciafs.store.config import StoreConfig
from tciafs.store.disk import bytes_on_disk
from tciafs.store.disk_errors import disk_errors, translate_disk_error
from tciafs.store.download import Announcements, Arrivals, Download, Fetcher, Grant
from tciafs.store.failures import Failures
from tciafs.store.holdings import Holdings
from tciafs.store.keeping import Keeper
from tciafs.store.layout import PackedImage
from tciafs.store.lease import Lease
from tciafs.store.open_packs import OpenImage
from tciafs.store.parts import Parts
from tciafs.store.pausing import Pausing
from tciafs.store.ranged import Ranged
from tciafs.store.room import Reservation, Room
from tciafs.store.shelf import KnownSeries, Shelf
from tciafs.store.surveys import Surveys
from tciafs.store.turns import Turn, Turns

__all__ = ["Store", "StoreConfig", "Usage"]

log = logging.getLogger(__name__)

CLOSING_PATIENCE_S = 2.0
"""How long the end of a mount waits for series that are complete to be on disk."""

USES_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Usage:
    """The cache in bytes: its limit, what packs take on disk, what is free for others; and the packs counted.

    What is coming in has its room, so that it is neither used nor free; so have `parts_bytes`, what there is
    of series that are here in part.
    """

    limit_bytes: int
    used_bytes: int
    free_bytes: int
    series_count: int
    parts_bytes: int = 0


class Store:
    """Series on disk, each downloaded once. Use `Store.running`."""

    def __init__(
        self,
        config: StoreConfig,
        shelf: Shelf,
        parts: Parts,
        failures: Failures,
        fetcher: Fetcher,
        nursery: trio.Nursery,
    ) -> None:
        self._config = config
        self._shelf = shelf
        self._fetcher = fetcher
        self._nursery = nursery
        self._turns = Turns(config.parallel)
        self._disk = trio.Lock()
        self._parts = parts
        self._room = Room(shelf, parts, config.limit_bytes, self._disk, config.patience_s)
        self._downloads: dict[str, Download] = {}
        self._turn_of: dict[Download, Turn] = {}
        self._queued: set[Download] = set()
        self.pausing = Pausing(fetcher, self._downloads.values)
        self.failures = failures
        self._lost: Unusable | None = None
        self.arrivals = Arrivals()
        self.checker = Checker(shelf, self._room)
        self.holdings = Holdings(shelf)
        self.keeper = Keeper(shelf, self._room, self.checker)
        self.surveys = Surveys(shelf, failures, self._disk, config.patience_s)
        self.ranged = Ranged(parts, self._room, failures, config.patience_s, self._refuse)

    @classmethod
    @asynccontextmanager
    async def running(cls, config: StoreConfig, fetcher: Fetcher) -> AsyncIterator["Store"]:
        """Open the store in `config.folder`; on leaving, stop all downloads and close it.

        Raises Unusable if another daemon has the folder, or if it cannot be written.
        """
        async with Lease.holding(config.folder) as lease:
            shelf = _open_shelf(config)
            failures = Failures(config.folder / "failures.sqlite", config.failure_memory_s, _unix_clock())
            try:
                with closing(Parts(config.folder, shelf.new_pack)) as parts:
                    async with trio.open_nursery() as around:
                        downloads = await around.start(_nursery_for_downloads)
                        store = cls(config, shelf, parts, failures, fetcher, downloads)
                        await store._room.trim()
                        around.start_soon(store._stop_when_lost, lease)
                        around.start_soon(store._write_down_uses)
                        yield store
                        await store._see_verified_published()
                        around.cancel_scope.cancel()
            finally:
                failures.close()
                shelf.close()

    async def _stop_when_lost(self, lease: Lease) -> None:
        """Write nothing any more once the folder belongs to somebody else; what is here stays readable."""
        self._lost = Unusable(f"{await lease.keep()}; what is in it can still be read")
        log.error("%s", self._lost)
        self._shelf.freeze()
        self._nursery.cancel_scope.cancel()

    async def _write_down_uses(self) -> None:
        """Write down now and then when series were last used, so that a crash forgets little of it."""
        while self._lost is None:
            await trio.sleep(USES_EVERY_S)
            try:
                await trio.to_thread.run_sync(self._shelf.flush_recency)
            except OSError as error:
                if self._lost is None:
                    log.warning("when series were last used could not be written down: %s", error)

    # -- what is here -----------------------------------------------------------------------------

    def peek(self, series: Series) -> KnownSeries | None:
        """Return names and sizes of a series if they are known for its present version."""
        return self._shelf.find(series)

    def peek_download(self, series: Series) -> Download | None:
        """Return the download of a series that is under way."""
        return self._downloads.get(series.series_uid)

    def downloads(self) -> Sequence[Download]:
        """Return the downloads under way, in the order in which they were asked for."""
        return tuple(self._downloads.values())

    def state(self, series: Series) -> str:
        """Return "arriving", "local", "evicted" (names and sizes are known), "failed" or "remote"."""
        if series.series_uid in self._downloads:
            return "arriving"
        if known := self.peek(series):
            return "local" if known.pack_bytes else "evicted"
        return "failed" if self.failures.find(series) else "remote"

    def usage(self) -> Usage:
        """Return how full the cache is; never waits for anything but the local disk."""
        disk = os.statvfs(self._config.folder)
        free = min(max(0, self._config.limit_bytes - self._room.taken_bytes), disk.f_bavail * disk.f_frsize)
        shelf, parts_bytes = self._shelf, self.ranged.disk_bytes
        return Usage(self._config.limit_bytes, shelf.used_bytes, free, shelf.series_count, parts_bytes)

    # -- reading ----------------------------------------------------------------------------------

    @property
    def patience_s(self) -> float:
        """How long to wait for a download without a sign of life."""
        return self._config.patience_s

    def open_local(self, series: Series, name: str) -> OpenImage | None:
        """Return an image open for reading if its bytes are here; never waits."""
        with disk_errors():
            return self._shelf.open_local(series, name)

    async def open(self, series: Series, name: str) -> OpenImage | None:
        """Return the image `name` of `series`, fetching the series if need be; None: no such image.

        Raises what the download failed with, or DeadlinePassed. Where the archive has changed the series
        in the meantime, and the new version is already coming in, the image is of that one.
        """
        if opened := self.open_local(series, name):
            return opened
        known = self.peek(series)
        if known is not None and known.has_no(name, series.series_uid in self._downloads):
            return None
        download = self.fetch(series)
        image = await download.wait_for(name, self._config.patience_s)
        if image is None:
            return None
        # INVARIANT: no await from here to the open. A download under way keeps its pack open, so it does
        # not matter that the pack is being moved; one that is over was published, or has failed, perhaps
        # after it was verified, and then its pack is nowhere.
        if download.failure is not None:
            raise download.failure.with_traceback(None)
        with disk_errors():
            try:
                return self._shelf.open(download.series, image)
            except FileNotFoundError:
                raise NoSpace(
                    f"series {series.series_uid} had to make room before it could be read"
                ) from None

    # -- fetching ---------------------------------------------------------------------------------

    def fetch(self, series: Series) -> Download:
        """Return the one download of `series`, starting it if there is none: somebody waits for it.

        Raises the failure of a download that failed not long ago, Refused while all are paused, Offline, or
        Unusable if the folder is lost.
        """
        if download := self._downloads.get(series.series_uid):
            if (turn := self._turn_of.get(download)) is not None and not turn.wanted:
                download.spares_since = None
                self._turns.want(turn)
            return download
        self._refuse(series)
        return self._begin(series, None)

    def _refuse(self, series: Series) -> None:
        """Return if the archive may be asked for a series. Raises as `fetch`."""
        if self._lost is not None:
            raise self._lost.with_traceback(None)
        self.pausing.refuse()
        if failure := self.failures.refusal(series):
            raise failure.with_traceback(None)
        if self._config.offline:
            raise Offline(f"series {series.series_uid} is not in the cache, and --offline is set")

    def fetch_ahead(self, series: Series, spares_since: float) -> Download | None:
        """Return the download of `series`, starting one that nobody waits for if there is none.

        It drops nothing that was used since `spares_since` (Unix seconds), comes after all that somebody
        waits for, and gives way to it. None where the series is here, or where none may be started now.
        """
        if download := self._downloads.get(series.series_uid):
            return download
        if self._config.offline or self.pausing.refusal or self.failures.refusal(series):
            return None
        if self.state(series) == "local":
            return None
        return self._begin(series, spares_since)

    def note_used(self, series: Series) -> None:
        """Count a series as used now, so that others make room before it does."""
        self._shelf.note_used(series.series_uid)

    def _begin(self, series: Series, spares_since: float | None) -> Download:
        download = Download(series, self._shelf.new_pack(series), spares_since)
        self._downloads[series.series_uid] = download
        self._queued.add(download)
        self._nursery.start_soon(self._run, download, self._turn(download))
        return download

    def _turn(self, download: Download) -> Turn:
        turn = self._turn_of[download] = Turn(
            wanted=download.spares_since is None,
            # One that is complete is about to end by itself.
            received_bytes=lambda: None if download.layout else download.received_bytes,
            give_way=partial(self._give_way, download),
        )
        self._turns.join(turn)
        return turn

    def _give_way(self, download: Download) -> None:
        """End a download that nobody waits for; whoever wants its series from now on gets another one."""
        download.gave_way = True
        del self._downloads[download.series.series_uid]
        self._shelf.discard(download.series)
        self._turn_of[download].scope.cancel()

    async def _run(self, download: Download, turn: Turn) -> None:
        """Fetch and publish one series; the outcome is recorded on `download`, never raised."""
        uid = download.series.series_uid
        reservation = self._room.reservation(download.series, lambda: download.spares_since)
        failure: TciafsError | None = None
        is_closing = False
        try:
            with turn.scope:
                await self._fetch_and_publish(download, turn, reservation)
            if turn.scope.cancelled_caught:
                failure = TciafsError(f"series {uid} made way for one that somebody waits for")
        except TciafsError as error:
            failure = error
        except OSError as error:
            failure = translate_disk_error(error)
        except Exception as error:
            log.exception("the download of series %s failed in an unexpected way", uid)
            failure = TciafsError(f"the download of series {uid} failed: {error!r}")
        except BaseException:
            failure = self._lost or Unreachable(f"tciafs closed before series {uid} was fetched")
            is_closing = True
            raise
        finally:
            # That we refuse it, or drop nothing for what nobody waits for, says nothing of the series.
            is_unasked = isinstance(failure, NoSpace) and download.spares_since is not None
            is_quiet = is_closing or download.gave_way or is_unasked
            if failure is not None and not is_quiet and not isinstance(failure, Refused):
                self.failures.note(download.series, failure)
            self._conclude(download, failure)
            if failure is None:
                reservation.end()
            else:
                log.log(logging.DEBUG if is_quiet else logging.WARNING, "series %s: %s", uid, failure)
                await reservation.end_with(download.pack)

    async def _fetch_and_publish(self, download: Download, turn: Turn, reservation: Reservation) -> None:
        async with self._turns.taken(turn):
            await self.pausing.wait_over()
            await reservation.begin()
            self._queued.discard(download)
            download.mark_begun()
            with ExitStack() as pack_kept_open:
                series = download.series
                announce = self._announcements(download, pack_kept_open)
                grow, earlier = partial(self._grow, download, reservation), self._shelf.earlier_pack(series)
                grant = Grant(reservation.size_bytes, grow, earlier, self._parts.held(series))
                await self._fetcher.fetch(download.series, download.pack, announce, grant)
                await reservation.settle(bytes_on_disk(download.pack.stat()))
                # What is complete is kept, also when tciafs is closing: the rest is quick and local.
                with trio.CancelScope(shield=True):
                    await self._publish(download)

    async def _grow(self, download: Download, reservation: Reservation, size_bytes: int) -> int:
        self._queued.add(download)
        try:
            return await reservation.grow_to(size_bytes)
        finally:
            self._queued.discard(download)

    def _announcements(self, download: Download, pack_kept_open: ExitStack) -> Announcements:
        """Return what passes news on to a download, and keeps its pack open from the first image on."""

        def announce_image(image: PackedImage) -> None:
            if not download.images and not download.gave_way:
                opened = self._shelf.open(download.series, image, download.pack)
                pack_kept_open.callback(opened.close)
            download.announce(image)

        def announce_progress(received_bytes: int) -> None:
            download.mark_progress(received_bytes)
            for queued in self._queued:
                queued.mark_alive()

        return download.announcements(announce_image, announce_progress)

    async def _publish(self, download: Download) -> None:
        layout = download.layout
        if layout is None:
            raise SeriesDamaged(f"series {download.series.series_uid} ended without being verified")
        async with self._disk:
            with self._shelf.replacing(layout.series_uid) as change:
                await trio.to_thread.run_sync(self._shelf.publish, layout, download.pack, change)
        self._shelf.remember_published(layout)
        await self._parts.drop(layout.series_uid)

    def _conclude(self, download: Download, failure: TciafsError | None) -> None:
        series = download.series
        del self._turn_of[download]
        self._queued.discard(download)
        if not download.gave_way:
            del self._downloads[series.series_uid]
        if failure is None:
            self.failures.note_had(series.series_uid)
            self.arrivals.append(download.arrival())
            if download.lacks:
                log.warning("series %s is without annotations: %s", series.series_uid, download.lacks)
        elif not download.gave_way:
            self._shelf.discard(series)
        download.end(failure)

    async def _see_verified_published(self) -> None:
        """Give series that are complete a moment to reach their place, before all downloads end."""
        with trio.move_on_after(CLOSING_PATIENCE_S):
            for download in list(self._downloads.values()):
                if download.layout is not None:
                    await download.over.wait()


async def _nursery_for_downloads(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """Offer a nursery that can be cancelled without whoever uses the store."""
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


def _unix_clock() -> Callable[[], float]:
    """Return a clock that says Unix seconds and goes as trio's does."""
    ahead_s = time.time() - trio.current_time()
    return lambda: trio.current_time() + ahead_s


def _open_shelf(config: StoreConfig) -> Shelf:
    try:
        return Shelf(config.folder)
    except OSError as error:
        raise Unusable(f"the cache folder {config.folder} cannot be used: {error}") from error
