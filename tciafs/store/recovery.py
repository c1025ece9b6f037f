"""The start of a cache: whatever a crash, a power failure or a person left, ledger and folder agree again.

Names are compared, and no bytes read but the layouts of packs that the ledger does not account for. Blocking;
before anybody else uses the folder.
"""

import errno
import logging
from collections.abc import Iterator
from pathlib import Path

from tciafs.errors import SeriesDamaged
from tciafs.store.disk import bytes_on_disk
from tciafs.store.layout import Layout
from tciafs.store.ledger import Ledger
from tciafs.store.pack import read_layout
from tciafs.store.places import Places, place_name

__all__ = ["recover", "settle"]

log = logging.getLogger(__name__)


def recover(places: Places, ledger: Ledger) -> None:
    """Make the ledger say what is on disk, and remove from the disk what is no pack. Raises OSError."""
    places.begin_run()
    if ledger.is_blank:
        ledger.fill(_take_stock(places))
    for series_uid in ledger.unfinished():
        settle(places, ledger, series_uid)
    _compare(places, ledger)


def settle(places: Places, ledger: Ledger, series_uid: str) -> int:
    """Make the row of a series agree with what is in its place, and return how many bytes that are.

    The row alone does not say whether the pack is the one it announced or one that it was to replace. Where
    there is none its layout stays: the series had come in whole. Raises OSError.
    """
    place = places.of(series_uid)
    if (found := _read(place)) is None:
        place.unlink(missing_ok=True)
        ledger.evicted(series_uid)
        return 0
    layout, pack_bytes, _used_at = found
    ledger.record(layout, pack_bytes)
    return pack_bytes


def _compare(places: Places, ledger: Ledger) -> None:
    """Compare the names in the folder with those that the ledger accounts for."""
    # As plain texts: a path for each of 100,000 would take two seconds.
    accounted = {place_name(series_uid): series_uid for series_uid in ledger.on_disk()}
    for name in places.names():
        if accounted.pop(name, None) is None:
            _adopt(places, ledger, places.path(name))
    if accounted:
        # An eviction whose last word was lost, or a person who removed files.
        ledger.all_evicted(accounted.values())


def _adopt(places: Places, ledger: Ledger, file: Path) -> None:
    """Take up a pack that the ledger does not account for, or remove it.

    A row without bytes is an eviction that a power failure undid on the disk; no row, an older ledger.
    """
    found = _read(file)
    if found is not None and places.of(found[0].series_uid) == file:
        layout, pack_bytes, _used_at = found
        if ledger.find(layout.series_uid) is None:
            ledger.record(layout, pack_bytes)
            return
    else:
        log.warning("%s in the cache folder is no pack of a series and is removed", file.name)
    file.unlink()


def _take_stock(places: Places) -> Iterator[tuple[Layout, int, float]]:
    """Yield what the packs in place say of themselves."""
    for file in map(places.path, places.names()):
        found = _read(file)
        if found is not None and places.of(found[0].series_uid) == file:
            yield found


def _read(file: Path) -> tuple[Layout, int, float] | None:
    """Return layout, bytes on disk and time of change of a pack; None if it is not there, or no whole pack.

    Raises OSError where that is not known; a disk that cannot read it has no pack there.
    """
    try:
        layout, status = read_layout(file), file.stat()
    except (SeriesDamaged, FileNotFoundError):
        return None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
    return layout, bytes_on_disk(status), status.st_mtime
