"""The face of the store: which series are here, reading them, and getting those that are not.

Series are fetched by tasks of the store's own nursery, so a reader that goes away neither aborts nor
corrupts a download; all who want a series share one download and, for a while, its failure. State
lives in the daemon's one thread; slow disk work is done in a thread. Must not know of FUSE, of HTTP,
or of the rules for names.
"""

import errno
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tciafs.errors import NoSpace, Offline, SeriesDamaged, TciafsError, Unreachable, Unusable
from tciafs.model import Series
from tciafs.store.download import Announcements, Download, Fetcher
from tciafs.store.pack import PackedImage
from tciafs.store.shelf import KnownSeries, OpenImage, Shelf

__all__ = ["Store", "StoreConfig", "Usage"]

log = logging.getLogger(__name__)

LOCK_PATIENCE_S = 5.0
"""How long to wait for the daemon of a mount that is just going away."""

PACK_OVERHEAD_BYTES = 4096
OVERHEAD_BYTES_PER_IMAGE = 128
"""A pack is its images, a trailer, and in the layout a name, three numbers and their tags each."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """What a store needs to know.

    `limit_bytes` bounds all packs together. `parallel` series come in at the same time, others wait.
    `patience_s` bounds every wait without a sign of life. A failure is shared for
    `failure_memory_s` before the archive is asked again. `offline` fetches nothing.
    """

    folder: Path
    limit_bytes: int
    parallel: int = 3
    patience_s: float = 90.0
    failure_memory_s: float = 20.0
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """The cache in bytes: its limit, what packs hold, and what can still be stored."""

    limit_bytes: int
    used_bytes: int
    free_bytes: int


class Store:
    """Series on disk, each downloaded once. Use `Store.running`."""

    def __init__(self, config: StoreConfig, shelf: Shelf, fetcher: Fetcher, nursery: trio.Nursery) -> None:
        self._config = config
        self._shelf = shelf
        self._fetcher = fetcher
        self._nursery = nursery
        self._slots = trio.CapacityLimiter(config.parallel)
        self._disk = trio.CapacityLimiter(1)  # one publication at a time: they share the ledger
        self._room = trio.Lock()
        self._reserved: dict[str, int] = {}
        self._downloads: dict[str, Download] = {}
        self._failures: dict[str, tuple[float, TciafsError]] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, config: StoreConfig, fetcher: Fetcher) -> AsyncIterator["Store"]:
        """Open the store in `config.folder`; on leaving, stop all downloads and close it.

        Raises Unusable if another daemon has the folder, or if it cannot be written.
        """
        lock = await _lock_folder(config.folder)
        try:
            shelf = Shelf(config.folder)
            try:
                async with trio.open_nursery() as nursery:
                    yield cls(config, shelf, fetcher, nursery)
                    nursery.cancel_scope.cancel()
            finally:
                shelf.close()
        finally:
            os.close(lock)

    # -- what is here -----------------------------------------------------------------------------

    def peek(self, series: Series) -> KnownSeries | None:
        """Return names and sizes of a series if they are known for its present version."""
        return self._shelf.find(series)

    def peek_download(self, series: Series) -> Download | None:
        """Return the download of a series that is under way."""
        return self._downloads.get(series.series_uid)

    def peek_failure(self, series: Series) -> TciafsError | None:
        """Return why the last download of a series failed, as long as that is remembered."""
        failed_at, failure = self._failures.get(series.series_uid, (0.0, None))
        if failure and time.monotonic() - failed_at > self._config.failure_memory_s:
            del self._failures[series.series_uid]
            return None
        return failure

    def state(self, series: Series) -> str:
        """Return "arriving", "local", "evicted" (names and sizes are known), "failed" or "remote"."""
        if series.series_uid in self._downloads:
            return "arriving"
        if known := self.peek(series):
            return "local" if known.pack_bytes else "evicted"
        return "failed" if self.peek_failure(series) else "remote"

    def usage(self) -> Usage:
        """Return how full the cache is; never waits for anything but the local disk."""
        disk = os.statvfs(self._config.folder)
        left = max(0, self._config.limit_bytes - self._shelf.used_bytes)
        free = min(left, disk.f_bavail * disk.f_frsize)
        return Usage(self._config.limit_bytes, self._shelf.used_bytes, free)

    # -- reading ----------------------------------------------------------------------------------

    @property
    def patience_s(self) -> float:
        """How long to wait for a download without a sign of life."""
        return self._config.patience_s

    def open_local(self, series: Series, name: str) -> OpenImage | None:
        """Return an image open for reading if its bytes are here; never waits."""
        return self._shelf.open_local(series, name)

    async def open(self, series: Series, name: str) -> OpenImage | None:
        """Return the image `name` of `series`, fetching the series if need be; None: no such image.

        Raises what the download failed with, or DeadlinePassed.
        """
        if opened := self._shelf.open_local(series, name):
            return opened
        known = self._shelf.find(series)
        if known is not None and name not in known.by_name:
            return None
        download = self.fetch(series)
        image = await download.wait_for(name, self._config.patience_s)
        if image is None:
            return None
        # INVARIANT: no await from here to the open. A download under way keeps its pack open, so it does
        # not matter that the pack is being moved; one that is over was published, or has failed.
        download.raise_failure()
        return self._shelf.open(series, image)

    # -- fetching ---------------------------------------------------------------------------------

    def fetch(self, series: Series) -> Download:
        """Return the one download of `series`, starting it if there is none.

        Raises the failure of a download that failed a moment ago, or Offline.
        """
        if download := self._downloads.get(series.series_uid):
            return download
        if failure := self.peek_failure(series):
            raise failure
        if self._config.offline:
            raise Offline(f"series {series.series_uid} is not in the cache, and --offline is set")
        download = Download(series, self._shelf.new_pack(series))
        self._downloads[series.series_uid] = download
        self._nursery.start_soon(self._run, download)
        return download

    async def _run(self, download: Download) -> None:
        """Fetch and publish one series; the outcome is recorded on `download`, never raised."""
        uid = download.series.series_uid
        failure: TciafsError | None = Unreachable(f"tciafs closed before series {uid} was fetched")
        try:
            await self._fetch_and_publish(download)
            failure = None
        except TciafsError as error:
            failure = error
        except OSError as error:
            failure = _disk_error(error)
        except Exception as error:
            log.exception("the download of series %s failed in an unexpected way", uid)
            failure = TciafsError(f"the download of series {uid} failed: {error!r}")
        finally:
            self._conclude(download, failure)

    async def _fetch_and_publish(self, download: Download) -> None:
        async with self._slots:
            await self._reserve(download.series)
            with ExitStack() as pack_kept_open:

                def announce_image(image: PackedImage) -> None:
                    if not download.images:
                        opened = self._shelf.open(download.series, image, download.pack)
                        pack_kept_open.callback(opened.close)
                    download.announce(image)

                announce = Announcements(announce_image, download.mark_progress, download.mark_verified)
                await self._fetcher.fetch(download.series, download.pack, announce)
                # Once begun it is quick and local, and a cancellation must not part its two halves.
                with trio.CancelScope(shield=True):
                    await self._publish(download)

    async def _publish(self, download: Download) -> None:
        layout = download.layout
        if layout is None:
            raise SeriesDamaged(f"series {download.series.series_uid} ended without being verified")
        replaced_bytes = self._shelf.pack_bytes(layout.series_uid)
        pack_bytes = await trio.to_thread.run_sync(
            self._shelf.publish, layout, download.pack, limiter=self._disk
        )
        self._shelf.note_published(layout, pack_bytes, replaced_bytes)

    def _conclude(self, download: Download, failure: TciafsError | None) -> None:
        series = download.series
        del self._downloads[series.series_uid]
        self._reserved.pop(series.series_uid, None)
        if failure is not None:
            log.warning("series %s: %s", series.series_uid, failure)
            self._failures[series.series_uid] = (time.monotonic(), failure)
            self._shelf.discard(series, download.pack)
        download.end(failure)

    # -- the limit --------------------------------------------------------------------------------

    async def _reserve(self, series: Series) -> None:
        """Set room aside for a series, dropping the least recently used ones. Raises NoSpace."""
        images = series.image_count or 1
        wanted = (series.size_bytes or 0) + images * OVERHEAD_BYTES_PER_IMAGE + PACK_OVERHEAD_BYTES
        async with self._room:
            for uid, pack_bytes in self._shelf.evictable() if self._lacks(wanted) else ():
                if uid not in self._downloads:
                    await trio.to_thread.run_sync(self._shelf.remove, uid, limiter=self._disk)
                    self._shelf.note_evicted(uid, pack_bytes)
                if not self._lacks(wanted):
                    break
            if self._lacks(wanted):
                raise NoSpace(
                    f"series {series.series_uid} needs {wanted:,} bytes, and the rest of the "
                    f"{self._config.limit_bytes:,} bytes of the cache is open or coming in"
                )
            self._reserved[series.series_uid] = wanted

    def _lacks(self, wanted_bytes: int) -> bool:
        taken = self._shelf.used_bytes + sum(self._reserved.values())
        return taken + wanted_bytes > self._config.limit_bytes


async def _lock_folder(folder: Path) -> int:
    """Return the descriptor of the folder's lock, held. Raises Unusable."""
    lock = _open_lock(folder)
    deadline = trio.current_time() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if trio.current_time() < deadline:
                await trio.sleep(0.1)
                continue
            os.close(lock)
            raise Unusable(
                f"another tciafs uses the cache folder {folder}; give this mount its own --cache-dir"
            ) from None
        return lock


def _open_lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unusable(f"the cache folder {folder} cannot be used: {error.strerror}") from error


def _disk_error(error: OSError) -> TciafsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(f"the disk of the cache folder is full: {error.strerror}")
    return TciafsError(f"the cache folder failed: {error}")
