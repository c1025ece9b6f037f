"""What the daemon says of itself: the status that commands get, made of what the rooms know at this moment.

Waits for nothing and asks nobody: numbers are read where they are kept. Long lists and texts are cut, since
an answer has a bound. Handed a store, a tree and a catalogue.
"""

import os
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tciafs import __version__
from tciafs.control.values import (
    ArrivalStatus,
    CacheStatus,
    CatalogueStatus,
    DownloadStatus,
    EventStatus,
    FailurePage,
    FailureStatus,
    RefusalStatus,
    SinceStart,
    Status,
)

if TYPE_CHECKING:
    from tciafs.filesystem.budgets import Budgets
    from tciafs.filesystem.guard import Guard, Refusals
    from tciafs.filesystem.images import Images
    from tciafs.store.download import Arrival, Download
    from tciafs.store.failures import FailedSeries
    from tciafs.store.store import Store, Usage

__all__ = ["About", "Rooms", "brief", "failures_after", "snapshot"]

MOST_DOWNLOADS = 50
MOST_FAILURES = 10
MOST_OTHERS = 20
LONGEST_TEXT_BYTES = 150
LONGEST_SENTENCE_BYTES = 400
LONGEST_LO_BYTES, LONGEST_CS_BYTES = 64, 16
"""What DICOM allows a description and a modality; there are many downloads in one status."""


class Event(Protocol):
    """Something odd that a listing did: `at` Unix seconds, `message` a sentence."""

    @property
    def at(self) -> float: ...

    @property
    def message(self) -> str: ...


class Listings(Protocol):
    """What a catalogue tells of itself: questions to the archive, listings on disk, the last odd events."""

    @property
    def requests(self) -> int: ...

    @property
    def remembered(self) -> int: ...

    @property
    def events(self) -> Sequence[Event]: ...


class Login(Protocol):
    """A user at the archive, and why the last login was refused, if it was."""

    @property
    def user(self) -> str: ...

    @property
    def refused(self) -> Exception | None: ...


@dataclass(frozen=True, slots=True)
class About:
    """What does not change about a mount: since when (Unix seconds), and how long the archive may take.

    `login` None is a guest.
    """

    mountpoint: str
    archive: str
    mounted_at: float
    patience_s: float
    login: Login | None = None


@dataclass(frozen=True, slots=True)
class Rooms:
    """Who knows what a status tells: the length of `tree` is the number of its inodes, `chosen` says what of
    the archive is shown, `remark` what it lacks. `images` None: nobody opens any.
    """

    store: "Store"
    tree: Sized
    catalogue: Listings
    guard: "Guard"
    budgets: "Budgets"
    chosen: Callable[[], Sequence[str]] = tuple
    images: "Images | None" = None
    remark: Callable[[], str] = str


def snapshot(about: About, rooms: Rooms) -> Status:
    """Return what a mount does at this moment."""
    store, catalogue = rooms.store, rooms.catalogue
    usage, downloads, failures = store.usage(), store.downloads(), store.failures.every()
    return Status(
        version=__version__,
        mountpoint=brief(about.mountpoint, LONGEST_SENTENCE_BYTES),
        archive=brief(about.archive, LONGEST_SENTENCE_BYTES),
        archive_remark=brief(rooms.remark(), LONGEST_SENTENCE_BYTES),
        user=None if about.login is None else brief(about.login.user),
        login_refused=_refusal(about.login),
        paused=store.pausing.refusal is not None,
        received_today_bytes=rooms.budgets.received_today_bytes,
        since_start=_since_start(rooms),
        refusals=tuple(map(_refused, rooms.guard.refusals[-MOST_OTHERS:])),
        arrivals=tuple(map(_arrival, store.arrivals)),
        pid=os.getpid(),
        mounted_at=about.mounted_at,
        patience_s=about.patience_s,
        cache=_cache(usage),
        downloads=tuple(map(_download, downloads[:MOST_DOWNLOADS])),
        downloads_total=len(downloads),
        failures=tuple(map(_failure, failures[-MOST_FAILURES:])),
        failures_total=len(failures),
        inodes=len(rooms.tree),
        selection=tuple(brief(each, LONGEST_SENTENCE_BYTES) for each in rooms.chosen()[:MOST_OTHERS]),
        catalogue=CatalogueStatus(
            catalogue.requests,
            catalogue.remembered,
            tuple(map(_event, list(catalogue.events)[-MOST_OTHERS:])),
        ),
    )


def _cache(usage: "Usage") -> CacheStatus:
    return CacheStatus(
        usage.limit_bytes, usage.used_bytes, usage.free_bytes, usage.series_count, usage.parts_bytes
    )


def _since_start(rooms: Rooms) -> SinceStart:
    images, store = rooms.images, rooms.store
    return SinceStart(
        opened_cached=0 if images is None else images.opened_cached,
        opened_waiting=0 if images is None else images.opened_waiting,
        received_bytes=rooms.budgets.received_bytes,
        series_fetched=store.arrivals.total,
        series_failed=store.failures.noted,
        refused=rooms.guard.refused,
    )


def _refusal(login: Login | None) -> str | None:
    if login is None or login.refused is None:
        return None
    return brief(str(login.refused), LONGEST_SENTENCE_BYTES)


def failures_after(store: "Store", series_uid: str) -> FailurePage:
    """Return the next few of the series that could not be had, in order of their UID."""
    failures = [each for each in store.failures.every() if each.series.series_uid > series_uid]
    failures.sort(key=lambda each: each.series.series_uid)
    page = tuple(map(_failure, failures[:MOST_OTHERS]))
    return FailurePage(page, more=len(failures) > len(page))


def _download(download: "Download") -> DownloadStatus:
    series = download.series
    return DownloadStatus(
        series_uid=brief(series.series_uid),
        collection=brief(series.collection),
        patient=brief(series.patient_id),
        state=download.state,
        images=len(download.images),
        image_count=series.image_count,
        arrived_bytes=download.arrived_bytes,
        received_bytes=download.received_bytes,
        listed_bytes=series.size_bytes,
        description=None if series.description is None else brief(series.description, LONGEST_LO_BYTES),
        modality=None if series.modality is None else brief(series.modality, LONGEST_CS_BYTES),
    )


def _arrival(arrival: "Arrival") -> ArrivalStatus:
    series = arrival.series
    return ArrivalStatus(
        series_uid=brief(series.series_uid),
        collection=brief(series.collection),
        patient=brief(series.patient_id),
        at=arrival.at,
        images=arrival.images,
        checks=arrival.checks,
        routes=arrival.routes,
    )


def _failure(failed: "FailedSeries") -> FailureStatus:
    series = failed.series
    return FailureStatus(
        series_uid=brief(series.series_uid),
        collection=brief(series.collection),
        patient=brief(series.patient_id),
        at=failed.at,
        error=type(failed.failure).__name__,
        message=brief(str(failed.failure), LONGEST_SENTENCE_BYTES),
        hint=failed.failure.hint,
        times=failed.times,
        retry_at=failed.retry_at,
        study_uid=brief(series.study_uid),
        description=None if series.description is None else brief(series.description),
        modality=None if series.modality is None else brief(series.modality),
        image_count=series.image_count,
        listed_bytes=series.size_bytes,
    )


def _refused(refusals: "Refusals") -> RefusalStatus:
    reason = brief(refusals.reason, LONGEST_SENTENCE_BYTES)
    return RefusalStatus(brief(refusals.program), refusals.pid, refusals.count, refusals.at, reason)


def _event(event: Event) -> EventStatus:
    return EventStatus(event.at, brief(event.message, LONGEST_SENTENCE_BYTES))


def brief(text: str, most_bytes: int = LONGEST_TEXT_BYTES) -> str:
    """Return a text that JSON can hold, cut where it is very long."""
    if not text.isprintable():
        most_bytes //= 4  # a control character is six bytes of JSON
    encoded = text[:most_bytes].encode("utf-8", "backslashreplace")
    if len(text) <= most_bytes and len(encoded) <= most_bytes:
        return encoded.decode()
    return encoded[:most_bytes].decode("utf-8", "ignore") + "..."
