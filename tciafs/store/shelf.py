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
from dataclasses import dataclass, field
from pathlib import Path

from tciafs.errors import SeriesDamaged
from tciafs.model import Series
from tciafs.store.ledger import Ledger
from tciafs.store.pack import Layout, PackedImage, read_layout

__all__ = ["KnownSeries", "OpenImage", "Shelf"]

log = logging.getLogger(__name__)

REMEMBERED_IMAGES = 200_000
"""Layouts are kept decoded for about this many images: 60 MB, twice the largest series of TCIA."""


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """A series whose layout is known; `pack_bytes` is 0 when its bytes are not here."""

    layout: Layout
    pack_bytes: int
    by_name: dict[str, PackedImage]


@dataclass(slots=True)
class _OpenPack:
    """A pack file shared by its readers; closed when the last one is gone."""

    key: tuple[str, str]
    descriptor: int
    readers: int = 0


@dataclass(slots=True)
class OpenImage:
    """An image open for reading; `read` never waits for the network. Close it exactly once."""

    image: PackedImage
    _pack: _OpenPack
    _shelf: "Shelf" = field(repr=False)

    @property
    def version(self) -> str:
        """The version of the series that these bytes belong to."""
        return self._pack.key[1]

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`, fewer only at the end of the image."""
        wanted = min(length, self.image.size_bytes - offset)
        if wanted <= 0:
            return b""
        data = os.pread(self._pack.descriptor, wanted, self.image.offset + offset)
        if len(data) != wanted:
            raise SeriesDamaged(f"the pack of series {self._pack.key[0]} was cut short on disk")
        return data

    def close(self) -> None:
        """Let go of the pack."""
        self._shelf.release(self._pack)


class Shelf:
    """All packs of one cache folder, which the caller has locked."""

    def __init__(self, folder: Path) -> None:
        self._packs_folder = folder / "series"
        self._incoming = folder / "incoming"
        self._packs_folder.mkdir(mode=0o700, exist_ok=True)
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        self._ledger = Ledger(folder / "ledger.sqlite")
        self._open: dict[tuple[str, str], _OpenPack] = {}
        self._known: OrderedDict[str, KnownSeries] = OrderedDict()
        self._known_images = 0
        self._used_at: dict[str, float] = {}
        self._recover()
        self.used_bytes = self._ledger.total_bytes()

    def _recover(self) -> None:
        """Remove what a crash left: half downloads, and rows whose pack was not seen in place."""
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        for series_uid in self._ledger.unfinished():
            try:
                read_layout(self._place(series_uid))
                self._ledger.end_publishing(series_uid)
            except (OSError, SeriesDamaged):
                self._place(series_uid).unlink(missing_ok=True)
                self._ledger.drop(series_uid)

    def close(self) -> None:
        """Write down what was used when, and close all files."""
        self.flush_recency()
        self._ledger.close()
        for pack in self._open.values():
            os.close(pack.descriptor)
        self._open.clear()

    # -- finding and opening ----------------------------------------------------------------------

    def find(self, series: Series) -> KnownSeries | None:
        """Return what is known of the present version of a series, None if it never was complete."""
        uid = series.series_uid
        known = self._known.get(uid)
        if known is None:
            entry = self._ledger.find(uid)
            if entry is None:
                return None
            by_name = {image.name: image for image in entry.layout.images}
            known = self._remember(KnownSeries(entry.layout, entry.pack_bytes, by_name))
        self._known.move_to_end(uid)
        return known if known.layout.version == series.version else None

    def _remember(self, known: KnownSeries) -> KnownSeries:
        self._forget(known.layout.series_uid)
        self._known[known.layout.series_uid] = known
        self._known_images += len(known.by_name)
        while self._known_images > REMEMBERED_IMAGES and len(self._known) > 1:
            self._forget(next(iter(self._known)))
        return known

    def _forget(self, series_uid: str) -> None:
        if known := self._known.pop(series_uid, None):
            self._known_images -= len(known.by_name)

    def open_local(self, series: Series, name: str) -> OpenImage | None:
        """Return the image `name` open for reading, None if its bytes are not here."""
        known = self.find(series)
        if known is None or not known.pack_bytes or name not in known.by_name:
            return None
        try:
            return self.open(series, known.by_name[name])
        except FileNotFoundError:
            log.warning("the pack of series %s vanished; it will be fetched again", series.series_uid)
            self.note_evicted(series.series_uid, known.pack_bytes)
            return None

    def open(self, series: Series, image: PackedImage, path: Path | None = None) -> OpenImage:
        """Return an image of the pack at `path` (None: its place) open for reading. Raises OSError."""
        key = (series.series_uid, series.version)
        pack = self._open.get(key)
        if pack is None:
            descriptor = os.open(path or self._place(series.series_uid), os.O_RDONLY | os.O_CLOEXEC)
            pack = self._open[key] = _OpenPack(key, descriptor)
        pack.readers += 1
        self._used_at[series.series_uid] = time.time()
        return OpenImage(image, pack, self)

    def release(self, pack: _OpenPack) -> None:
        """Count one reader of an open pack less."""
        pack.readers -= 1
        if pack.readers == 0:
            os.close(pack.descriptor)
            if self._open.get(pack.key) is pack:
                del self._open[pack.key]

    # -- coming and going -------------------------------------------------------------------------

    def new_pack(self, series: Series) -> Path:
        """Return the path of a file that does not exist yet, for a series about to come in."""
        return self._incoming / f"{self._place(series.series_uid).stem}.{time.monotonic_ns():x}"

    def publish(self, layout: Layout, incoming: Path) -> int:
        """Put a finished pack in its place and return its size in bytes; blocking."""
        pack_bytes = incoming.stat().st_size
        target = self._place(layout.series_uid)
        self._ledger.begin_publishing(layout, pack_bytes)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        incoming.rename(target)
        _sync_folder(target.parent)
        self._ledger.end_publishing(layout.series_uid)
        return pack_bytes

    def note_published(self, layout: Layout, pack_bytes: int, replaced_bytes: int) -> None:
        """Take a pack that `publish` put in place into account."""
        self.used_bytes += pack_bytes - replaced_bytes
        self._used_at[layout.series_uid] = time.time()
        by_name = {image.name: image for image in layout.images}
        self._remember(KnownSeries(layout, pack_bytes, by_name))

    def pack_bytes(self, series_uid: str) -> int:
        """Return the size of the pack of any version of a series, 0 if there is none."""
        entry = self._ledger.find(series_uid)
        return entry.pack_bytes if entry else 0

    def discard(self, series: Series, incoming: Path) -> None:
        """Remove a pack that will never be finished; its readers keep what they have open."""
        incoming.unlink(missing_ok=True)
        # A new try writes a new file: nobody may be handed the descriptor of the dead one.
        self._open.pop((series.series_uid, series.version), None)

    def evictable(self) -> list[tuple[str, int]]:
        """Return (series UID, bytes) of packs that nobody has open, the longest unused first."""
        self.flush_recency()
        busy = {uid for uid, _version in self._open}
        return [row for row in self._ledger.least_recently_used() if row[0] not in busy]

    def remove(self, series_uid: str) -> None:
        """Remove the pack of a series; blocking. `note_evicted` must follow."""
        self._place(series_uid).unlink(missing_ok=True)

    def note_evicted(self, series_uid: str, pack_bytes: int) -> None:
        """Take into account that a pack is gone; the layout stays."""
        self._ledger.evicted(series_uid)
        self._forget(series_uid)
        self.used_bytes -= pack_bytes

    def flush_recency(self) -> None:
        """Write down what was used when."""
        used, self._used_at = self._used_at, {}
        self._ledger.used(used)

    def _place(self, series_uid: str) -> Path:
        # A UID is what a server said; its hash is a file name whatever it said.
        digest = hashlib.blake2b(series_uid.encode("utf-8", "surrogatepass"), digest_size=16)
        name = digest.hexdigest()
        return self._packs_folder / name[:2] / f"{name}.pack"


def _sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power failure; blocking."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
