"""Packs in their places on disk: found, opened, published, removed, and how many bytes they are.

One folder, locked for one daemon: `series/xx/<hash>.pack` complete series, `incoming/` what is on its
way, `ledger.sqlite` the table of both. A pack enters by fsync and rename and leaves by unlink, so it is
there whole or not at all; who has it open goes on reading either way. Methods that wait for the disk
say "blocking" and belong in a thread; the others are quick and belong to the daemon's one thread.
"""

import hashlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tciafs.errors import SeriesDamaged
from tciafs.model import Series
from tciafs.store.layout import Layout, PackedImage
from tciafs.store.ledger import Ledger
from tciafs.store.open_packs import OpenImage, OpenPacks
from tciafs.store.pack import read_layout

__all__ = ["KnownSeries", "Shelf"]

log = logging.getLogger(__name__)

REMEMBERED_IMAGES = 200_000
"""Layouts are kept decoded for about this many images: 20 to 35 MB, twice the largest series of TCIA."""

SERIES_WEIGHS_IMAGES = 8
"""What a layout takes beside its images, counted in them: series of one image would else fill 200 MB."""


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """A series whose layout is known; `pack_bytes` is 0 when its bytes are not here."""

    layout: Layout
    pack_bytes: int


class Shelf:
    """All packs of one cache folder, which the caller has locked.

    All methods may raise OSError.
    """

    def __init__(self, folder: Path) -> None:
        self._packs_folder = folder / "series"
        self._incoming = folder / "incoming"
        self._packs_folder.mkdir(mode=0o700, exist_ok=True)
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        self._ledger = Ledger(folder / "ledger.sqlite")
        self._open = OpenPacks()
        self._known: OrderedDict[str, KnownSeries] = OrderedDict()
        self._known_images = 0
        self._replacing: frozenset[str] = frozenset()
        self._used_at: dict[str, float] = {}
        try:
            self._recover()
            self.used_bytes = self._ledger.total_bytes()
            self.series_count = self._ledger.count()
        except BaseException:
            self._ledger.close()
            raise

    def _recover(self) -> None:
        """Remove what a crash left: half downloads, and rows whose pack was not seen in place."""
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        if self._ledger.is_blank:
            self._ledger.fill(self._take_stock())
        for series_uid in self._ledger.unfinished():
            self._settle(series_uid)

    def _take_stock(self) -> Iterator[tuple[Layout, int, float]]:
        """Yield what the packs in place say of themselves, and remove what is none."""
        for file in sorted(self._packs_folder.glob("*/*.pack")):
            try:
                layout, status = read_layout(file), file.stat()
            except (OSError, SeriesDamaged):
                layout, status = None, None
            if layout is not None and status is not None and self._place(layout.series_uid) == file:
                yield layout, status.st_size, status.st_mtime
            else:
                log.warning("%s in the cache folder is no pack of a series and is removed", file.name)
                file.unlink()

    def _settle(self, series_uid: str) -> None:
        """Make the row of a series agree with what is in its place, whatever came between; blocking.

        The row alone does not say whether the pack is the one it announced or one that it was to replace.
        """
        place = self._place(series_uid)
        try:
            layout, pack_bytes = read_layout(place), place.stat().st_size
        except (FileNotFoundError, SeriesDamaged):
            place.unlink(missing_ok=True)
            self._ledger.drop(series_uid)
        else:
            self._ledger.record(layout, pack_bytes)

    def close(self) -> None:
        """Write down what was used when, and close all files."""
        try:
            self.flush_recency()
        except OSError as error:
            log.warning("when series were last used could not be written down: %s", error)
        finally:
            self._ledger.close()
            self._open.close()

    # -- finding and opening ----------------------------------------------------------------------

    def find(self, series: Series) -> KnownSeries | None:
        """Return what is known of the present version of a series, None if it never was complete.

        None also while its pack is being replaced.
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
        return known if known.layout.version == series.version else None

    def remember_published(self, layout: Layout) -> None:
        """Keep the layout of a pack that was just published: to decode it again would only take time."""
        self._remember(KnownSeries(layout, self._ledger.pack_bytes(layout.series_uid)))

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
        image = known.layout.images.find(name) if known is not None and known.pack_bytes else None
        if image is None:
            return None
        try:
            return self.open(series, image)
        except FileNotFoundError:
            log.warning("the pack of series %s vanished; it will be fetched again", series.series_uid)
            self._note_evicted(series.series_uid)
            return None

    def open(self, series: Series, image: PackedImage, path: Path | None = None) -> OpenImage:
        """Return an image of the pack at `path` (None: its place) open for reading. Raises OSError."""
        key = (series.series_uid, series.version)
        place = path or self._place(series.series_uid)
        opened = self._open.open(key, image, place, in_place=path is None)
        self._used_at[series.series_uid] = time.time()
        return opened

    # -- coming and going -------------------------------------------------------------------------

    def new_pack(self, series: Series) -> Path:
        """Return the path of a file that does not exist yet, for a series about to come in."""
        return self._incoming / f"{self._place(series.series_uid).stem}.{time.monotonic_ns():x}"

    @contextmanager
    def replacing(self, series_uid: str) -> Iterator[None]:
        """Hide a series while `publish` works: its old layout must not be read with its new pack."""
        self._forget(series_uid)
        self._replacing |= {series_uid}
        replaced_bytes = self._ledger.pack_bytes(series_uid)
        try:
            yield
        finally:
            self._replacing -= {series_uid}
            # An archive may go back to a version that is still open.
            self._open.share_only(series_uid, self._place(series_uid))
            pack_bytes = self._ledger.pack_bytes(series_uid)
            self.used_bytes += pack_bytes - replaced_bytes
            self.series_count += bool(pack_bytes) - bool(replaced_bytes)

    def publish(self, layout: Layout, incoming: Path) -> None:
        """Put a finished pack in its place; blocking, and to be done inside `replacing`.

        What is there after a failure is either the new pack or the old one, and the ledger says which.
        """
        target = self._place(layout.series_uid)
        try:
            self._ledger.begin_publishing(layout, incoming.stat().st_size)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            incoming.rename(target)
            _sync_folder(target.parent)
            self._ledger.end_publishing(layout.series_uid)
        except OSError:
            self._settle(layout.series_uid)
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

    def least_recently_used(self, count: int) -> list[str]:
        """Return the UIDs of the `count` series on disk that were not used for longest."""
        self.flush_recency()
        return [uid for uid, _pack_bytes in self._ledger.least_recently_used(count)]

    def evict(self, series_uid: str) -> Path:
        """Take a pack that nobody has open off the shelf; the layout stays. The caller removes the result.

        Out of its place at once and under a name of its own, so that nobody opens it any more and
        removing it, which takes a while, cannot hit the pack that may come after it.
        """
        doomed = self._incoming / f"{self._place(series_uid).stem}.{time.monotonic_ns():x}.evicted"
        with suppress(FileNotFoundError):
            self._place(series_uid).rename(doomed)
        self._note_evicted(series_uid)
        return doomed

    def _note_evicted(self, series_uid: str) -> None:
        pack_bytes = self._ledger.pack_bytes(series_uid)
        self._ledger.evicted(series_uid)
        self._forget(series_uid)
        self.used_bytes -= pack_bytes
        self.series_count -= bool(pack_bytes)

    def flush_recency(self) -> None:
        """Write down what was used when."""
        if self._used_at:
            self._ledger.used(self._used_at)
            self._used_at = {}

    def _place(self, series_uid: str) -> Path:
        # A UID is what a server said; its hash is a file name whatever it said.
        digest = hashlib.blake2b(series_uid.encode("utf-8", "surrogatepass"), digest_size=16)
        name = digest.hexdigest()
        return self._packs_folder / name[:2] / f"{name}.pack"


def _weight(known: KnownSeries) -> int:
    return len(known.layout.images) + SERIES_WEIGHS_IMAGES


def _sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power failure; blocking."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
