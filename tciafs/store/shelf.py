"""Packs on the shelf: found, opened, published, removed, and how many bytes they are.

A pack enters by fsync and rename and leaves by unlink, so it is there whole or not at all; who has it open
goes on reading either way. Methods that wait for the disk say "blocking" and belong in a thread; the others
are quick and belong to the daemon's one thread.
"""

import errno
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tciafs.model import Series
from tciafs.store.disk import bytes_on_disk
from tciafs.store.layout import Layout, PackedImage
from tciafs.store.ledger import Entry, Ledger
from tciafs.store.open_packs import OpenImage, OpenPacks
from tciafs.store.places import Places
from tciafs.store.recovery import recover, settle

__all__ = ["Change", "KnownSeries", "Shelf"]

log = logging.getLogger(__name__)

REMEMBERED_IMAGES = 200_000
"""Layouts are kept decoded for about this many images: 20 to 35 MB, twice the largest series of TCIA."""

SERIES_WEIGHS_IMAGES = 8
"""What a layout takes beside its images, counted in them: series of one image would else fill 200 MB."""

WRITTEN_AT_ONCE = 200
"""Uses that are written down in one go: whoever looks into the ledger meanwhile waits for 2 ms."""


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """A series whose layout is known; its pack takes `pack_bytes` on disk, 0 when it is not here."""

    layout: Layout
    pack_bytes: int

    def is_final(self, is_coming_in: bool) -> bool:
        """Return whether no download will bring annotations that the last one failed to."""
        return not self.layout.lacks or (self.pack_bytes > 0 and not is_coming_in)

    def has_no(self, name: str, is_coming_in: bool) -> bool:
        """Return whether there is no file of that name, and no download will bring it."""
        return self.layout.find(name) is None and self.is_final(is_coming_in)


@dataclass(slots=True)
class Change:
    """A pack that comes or goes: what the place of a series took on disk before, and after."""

    series_uid: str
    before_bytes: int
    after_bytes: int


class Shelf:
    """All packs of one cache folder, which belongs to the caller alone.

    `used_bytes` is what the packs in their places take on disk. All methods may raise OSError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places = Places(folder)
        self._ledger = Ledger(folder / "ledger.sqlite")
        self._open = OpenPacks()
        self._known: OrderedDict[str, KnownSeries] = OrderedDict()
        self._known_images = 0
        self._replacing: frozenset[str] = frozenset()
        self._leaving: frozenset[str] = frozenset()
        self._unremoved_bytes = 0
        self._is_frozen = False
        self._used_at: dict[str, float] = {}
        try:
            recover(self._places, self._ledger)
            self.used_bytes = self._ledger.total_bytes()
            self.series_count = self._ledger.count()
        except BaseException:
            self._ledger.close()
            raise

    @property
    def hidden_bytes(self) -> int:
        """What packs take that are in no place any more: somebody has them open, or unlinking failed."""
        return self._open.hidden_bytes + self._unremoved_bytes

    def freeze(self) -> None:
        """Write nothing to the folder from now on; each attempt raises OSError."""
        self._is_frozen = True
        self._ledger.freeze()

    def close(self) -> None:
        """Write down what was used when, and close all files."""
        if self._is_frozen:
            self._used_at.clear()
        try:
            self.flush_recency()
        except OSError as error:
            log.warning("when series were last used could not be written down: %s", error)
        finally:
            self._ledger.close()
            self._open.close()
            self._places.end_run()

    # -- finding and opening ----------------------------------------------------------------------

    def find(self, series: Series) -> KnownSeries | None:
        """Return what is known of the present version of a series, None if it never was complete.

        None also while its pack is being replaced; no bytes while it is being removed.
        """
        uid = series.series_uid
        if uid in self._replacing:
            return None
        known = self._known.get(uid)
        if known is None:
            entry = self._ledger.find(uid)
            if entry is None:
                return None
            known = self._remember(KnownSeries(entry.layout, entry.pack_bytes))
        self._known.move_to_end(uid)
        if known.layout.version != series.version:
            return None
        return replace(known, pack_bytes=0) if uid in self._leaving else known

    def remember_published(self, layout: Layout) -> None:
        """Keep the layout of a pack that was just published: to decode it again would only take time."""
        self._remember(KnownSeries(layout, self._ledger.pack_bytes(layout.series_uid)))

    def record_layout(self, layout: Layout) -> None:
        """Write down names and sizes of a series whose bytes are not here; blocking.

        Not while those of another version are, whose row this would be.
        """
        if not self._is_frozen and not self._ledger.pack_bytes(layout.series_uid):
            self._ledger.record(layout, 0)

    def remember_layout(self, layout: Layout) -> KnownSeries:
        """Return what is known of such a series from now on, as long as nothing of it comes in."""
        return self._remember(KnownSeries(layout, 0))

    def _remember(self, known: KnownSeries) -> KnownSeries:
        self._forget(known.layout.series_uid)
        self._known[known.layout.series_uid] = known
        self._known_images += _weight(known)
        while self._known_images > REMEMBERED_IMAGES and len(self._known) > 1:
            self._forget(next(iter(self._known)))
        return known

    def _forget(self, series_uid: str) -> None:
        if known := self._known.pop(series_uid, None):
            self._known_images -= _weight(known)

    def open_local(self, series: Series, name: str) -> OpenImage | None:
        """Return the image `name` open for reading, None if its bytes are not here."""
        known = self.find(series)
        image = known.layout.find(name) if known is not None and known.pack_bytes else None
        if image is None:
            return None
        try:
            return self.open(series, image)
        except FileNotFoundError:
            log.warning("the pack of series %s vanished", series.series_uid)
            if not self._is_frozen:
                self._note_evicted(series.series_uid)
            return None

    def open(self, series: Series, image: PackedImage, path: Path | None = None) -> OpenImage:
        """Return an image of the pack at `path` (None: its place) open for reading. Raises OSError."""
        if path is None and series.series_uid in self._leaving:
            raise FileNotFoundError(errno.ENOENT, "the pack is being removed")
        key = (series.series_uid, series.version)
        place = path or self._places.of(series.series_uid)
        opened = self._open.open(key, image, place, in_place=path is None)
        self._used_at[series.series_uid] = time.time()
        return opened

    # -- for checks ---------------------------------------------------------------------------------

    def on_disk(self, after: str, limit: int) -> list[str]:
        """Return the UIDs of the next `limit` series behind `after` that are on disk; blocking."""
        return self._ledger.on_disk_after(after, limit)

    def on_disk_below(
        self, path: Sequence[str], after: str, limit: int
    ) -> list[tuple[str, tuple[str, ...], int]]:
        """Return UID, path and bytes of the next series that are on disk and below a path; blocking."""
        return self._ledger.on_disk_below(path, after, limit)

    def entry(self, series_uid: str) -> Entry | None:
        """Return what is known of a series in whatever version; blocking."""
        return self._ledger.find(series_uid)

    def place_of(self, series_uid: str) -> Path:
        """Return where the pack of a series belongs."""
        return self._places.of(series_uid)

    def condemn(self, series_uid: str, is_meant: Callable[[os.stat_result], bool]) -> bool:
        """Let nobody read the pack of a series any more; False if another one is there than is meant."""
        if series_uid in self._replacing or series_uid in self._leaving:
            return False
        try:
            if not is_meant(self._places.of(series_uid).stat()):
                return False
        except FileNotFoundError:
            return False
        self._open.condemn(series_uid)
        return True

    # -- coming and going -------------------------------------------------------------------------

    def new_pack(self, series: Series) -> Path:
        """Return the path of a file that does not exist yet, for a series about to come in."""
        return self._places.incoming(series.series_uid)

    def earlier_pack(self, series: Series) -> Path | None:
        """Return the pack of another version of a series with as many images and bytes, None if none is here.

        A release day that is another one, as two archives of one series have it, is another version.
        """
        entry = self._ledger.find(series.series_uid)
        if entry is None or not entry.pack_bytes or entry.layout.version == series.version:
            return None
        amount = len(entry.layout.images), entry.layout.image_bytes
        is_alike = amount == (series.image_count, series.size_bytes)
        return self._places.of(series.series_uid) if is_alike else None

    @contextmanager
    def replacing(self, series_uid: str) -> Iterator[Change]:
        """Hide a series while `publish` works: its old layout must not be read with its new pack."""
        self._replacing |= {series_uid}
        try:
            with self._changing(series_uid) as change:
                yield change
        finally:
            self._replacing -= {series_uid}
            # An archive may go back to a version that is still open.
            self._open.share_only(series_uid, self._places.of(series_uid))

    @contextmanager
    def leaving(self, series_uid: str) -> Iterator[Change]:
        """Have the bytes of a series count as gone while `remove_pack` works: nobody may open them now."""
        self._leaving |= {series_uid}
        try:
            with self._changing(series_uid) as change:
                yield change
        finally:
            self._leaving -= {series_uid}

    @contextmanager
    def _changing(self, series_uid: str) -> Iterator[Change]:
        before_bytes = self._ledger.pack_bytes(series_uid)
        change = Change(series_uid, before_bytes, before_bytes)
        self._forget(series_uid)
        try:
            yield change
        finally:
            self._forget(series_uid)
            self._count(change)

    def _count(self, change: Change) -> None:
        self.used_bytes += change.after_bytes - change.before_bytes
        self.series_count += bool(change.after_bytes) - bool(change.before_bytes)

    def publish(self, layout: Layout, incoming: Path, change: Change) -> None:
        """Put a finished pack in its place; blocking, and to be done inside `replacing`.

        What is there after a failure is either the new pack or the old one, and the ledger says which.
        """
        pack_bytes = bytes_on_disk(incoming.stat())
        try:
            self._ledger.begin_publishing(layout, pack_bytes)
            self._places.put(incoming, layout.series_uid)
            self._ledger.end_publishing(layout.series_uid)
        except OSError:
            change.after_bytes = max(change.before_bytes, pack_bytes)  # until it is known
            change.after_bytes = self._settled_bytes(change)
            raise
        change.after_bytes = pack_bytes

    def _settled_bytes(self, change: Change) -> int:
        """Return what is in the place of a series after a publication failed; the ledger says so too."""
        # A row may be written though SQLite said that it is not.
        if change.series_uid in self._ledger.unfinished():
            return settle(self._places, self._ledger, change.series_uid)
        return self._ledger.pack_bytes(change.series_uid)

    def remove_pack(self, change: Change) -> None:
        """Remove a pack that nobody has open; its layout stays. Blocking, and to be done inside `leaving`."""
        # In this order: a row without bytes has its pack removed by the next start.
        self._ledger.evicted(change.series_uid)
        change.after_bytes = 0
        try:
            self._places.of(change.series_uid).unlink(missing_ok=True)
        except OSError:
            self._unremoved_bytes += change.before_bytes
            raise

    def discard(self, series: Series) -> None:
        """Share the pack of a failed download no more; who has it open may go on reading.

        A new try writes a new file: nobody may be handed the descriptor of the dead one.
        """
        self._open.share_no_more((series.series_uid, series.version))

    def in_use(self) -> frozenset[str]:
        """Return the UIDs of series that somebody has open, in any version, or that are being replaced."""
        return self._replacing | self._open.series_uids()

    def bytes_of(self, series_uids: Iterable[str]) -> int:
        """Return how many bytes the packs of these series are together."""
        return sum(map(self._ledger.pack_bytes, series_uids))

    def pin(self, path: Sequence[str]) -> None:
        """Keep the series at a path, also those that come; blocking."""
        self._ledger.pin(path)

    def unpin(self, path: Sequence[str]) -> bool:
        """Keep what is at a path or below no more; False if a pin above it does. Blocking."""
        return self._ledger.unpin(path)

    def is_pinned(self, series_uid: str) -> bool:
        """Return whether a series is kept."""
        return self._ledger.is_pinned(series_uid)

    @property
    def pinned_bytes(self) -> int:
        """What the packs of series that are kept take on disk."""
        return self._ledger.pinned_bytes()

    def kept_bytes(self) -> int:
        """Return what packs take that may not make room: they are pinned, open, or being replaced."""
        open_only = [uid for uid in self.in_use() if not self._ledger.is_pinned(uid)]
        return self.pinned_bytes + self.bytes_of(open_only)

    def longest_unused(self, before: float | None = None) -> str | None:
        """Return the UID of the series on disk that was not used for longest, None if all are in use.

        Those that are used and not written down yet come last; with `before` (Unix seconds) only a series
        that was not used since then counts.
        """
        in_use = self.in_use()
        count = len(in_use) + len(self._used_at) + 1
        oldest = self._ledger.least_recently_used(count, math.inf if before is None else before)
        unused = [uid for uid, _bytes in oldest if uid not in in_use]
        latest = unused[0] if unused and before is None else None
        return next((uid for uid in unused if uid not in self._used_at), latest)

    def unused_bytes(self, before: float) -> int:
        """Return how many bytes the packs are that nobody has open or used since then (Unix seconds)."""
        lately = {uid for uid, at in self._used_at.items() if at >= before}
        return self._ledger.unused_bytes(before, self.in_use() | lately)

    def note_used(self, series_uid: str) -> None:
        """Count a series as used now."""
        self._used_at[series_uid] = time.time()

    def _note_evicted(self, series_uid: str) -> None:
        before_bytes = self._ledger.pack_bytes(series_uid)
        self._ledger.evicted(series_uid)
        self._forget(series_uid)
        self._count(Change(series_uid, before_bytes, 0))

    def flush_recency(self) -> None:
        """Write down what was used when; blocking."""
        used_at = list(self._used_at.items())
        for start in range(0, len(used_at), WRITTEN_AT_ONCE):
            some = used_at[start : start + WRITTEN_AT_ONCE]
            self._ledger.used(dict(some))
            for uid, at in some:
                if self._used_at.get(uid) == at:
                    self._used_at.pop(uid, None)


def _weight(known: KnownSeries) -> int:
    return known.layout.file_count + SERIES_WEIGHS_IMAGES
