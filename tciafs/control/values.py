"""What daemon and commands say to each other, as JSON of version 1 of the protocol.

Defined here and only here: the fields of `GET /v1/status` and of all requests. A field may be added, with
a default, and nothing may be taken away or change its meaning within a version. Times are Unix seconds,
sizes bytes; None is what the archive did not say. Texts are as the archive has them, and nothing that a
terminal should get raw. Values only.
"""

from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "PREFIX",
    "ArrivalStatus",
    "CacheStatus",
    "CachedPage",
    "CachedSeries",
    "CatalogueStatus",
    "Check",
    "CheckPlace",
    "CheckTurn",
    "DownloadStatus",
    "EventStatus",
    "Evict",
    "Evicted",
    "FailurePage",
    "FailureStatus",
    "LevelName",
    "ListCached",
    "ListFailures",
    "LogLevel",
    "Pause",
    "Pin",
    "Refresh",
    "Refusal",
    "SinceStart",
    "Status",
]

LevelName: TypeAlias = Literal["error", "warning", "info", "debug"]

PREFIX = "/v1/"
"""What all paths of this version begin with."""


class CacheStatus(msgspec.Struct, frozen=True):
    """The series on disk: the limit, what they are, what can still be stored, how many there are.

    `parts_bytes` are of series that are not among them, since only parts of images were read.
    """

    limit_bytes: int
    used_bytes: int
    free_bytes: int
    series: int
    parts_bytes: int = 0


class DownloadStatus(msgspec.Struct, frozen=True):
    """A series under way: `state` is "queued", "arriving" or "verified" (complete, not yet in its place).

    Of the images `images` are in and checked, `arrived_bytes` together, to be compared with `image_count`
    and `listed_bytes`, which the archive lists. `received_bytes` came in by this try,
    inflated as those are, with what is not checked yet.
    """

    series_uid: str
    collection: str
    patient: str
    state: str
    images: int
    image_count: int | None
    arrived_bytes: int
    received_bytes: int
    listed_bytes: int | None
    description: str | None = None
    modality: str | None = None


class ArrivalStatus(msgspec.Struct, frozen=True):
    """A series that came whole, and which `checks` of it agreed; without "md5" the archive offers none.

    `routes` are the archives that its images came from: "nbia", "idc".
    """

    series_uid: str
    collection: str
    patient: str
    at: float
    images: int
    checks: tuple[str, ...]
    routes: tuple[str, ...] = ()


class FailureStatus(msgspec.Struct, frozen=True):
    """A series that could not be had: the class of the error, its sentence, and what to do.

    It has failed `times` times, the last time `at`; from `retry_at` on, the archive is asked again when
    somebody reads.
    """

    series_uid: str
    collection: str
    patient: str
    at: float
    error: str
    message: str
    hint: str
    times: int = 1
    retry_at: float = 0.0
    study_uid: str = ""
    description: str | None = None
    modality: str | None = None
    image_count: int | None = None
    listed_bytes: int | None = None


class EventStatus(msgspec.Struct, frozen=True):
    """Something odd that a listing did."""

    at: float
    message: str


class CatalogueStatus(msgspec.Struct, frozen=True):
    """Listings: questions put to the archive since the start, listings on disk, the last odd events."""

    requests: int
    remembered: int
    events: tuple[EventStatus, ...]


class RefusalStatus(msgspec.Struct, frozen=True):
    """What a program was refused: how often, when last and to which process, and why."""

    program: str
    pid: int
    count: int
    at: float
    reason: str


class SinceStart(msgspec.Struct, frozen=True):
    """What a daemon has counted since it began.

    Images that programs opened: those whose bytes were here, and those that were waited for, in vain too.
    Bytes of images that came in, inflated; series that came whole, and downloads that failed; and how often a
    program was not allowed to cause one.
    """

    opened_cached: int = 0
    opened_waiting: int = 0
    received_bytes: int = 0
    series_fetched: int = 0
    series_failed: int = 0
    refused: int = 0


class Status(msgspec.Struct, frozen=True):
    """What a daemon does at this moment; each number is counted, none is guessed.

    `archive_remark` says what of the archive cannot be shown, or not yet, and why; "" is nothing.
    `downloads` are those under way, the oldest first, and `failures` the series that could not be had, the
    latest last; of very many only some are listed, `downloads_total` and `failures_total` count all. `inodes`
    are the names that the kernel knows, `selection` the options that chose what is shown, and what of it is
    missing. A command that asks the archive is answered within `patience_s`. `user` None is a guest; after
    `login_refused` the archive is asked as one. `received_today_bytes` are those of images since midnight
    UTC; `refusals` are downloads that programs were not allowed to cause, and `arrivals` the last few series
    that came, the latest last.
    """

    version: str
    mountpoint: str
    archive: str
    pid: int
    mounted_at: float
    patience_s: float
    cache: CacheStatus
    downloads: tuple[DownloadStatus, ...]
    downloads_total: int
    failures: tuple[FailureStatus, ...]
    failures_total: int
    inodes: int
    catalogue: CatalogueStatus
    user: str | None = None
    login_refused: str | None = None
    selection: tuple[str, ...] = ()
    paused: bool = False
    received_today_bytes: int = 0
    refusals: tuple[RefusalStatus, ...] = ()
    arrivals: tuple[ArrivalStatus, ...] = ()
    since_start: SinceStart = SinceStart()
    archive_remark: str = ""


class ListFailures(msgspec.Struct, frozen=True):
    """`POST /v1/failures`: list the series that could not be had, those behind a series UID ("": all)."""

    after: str = ""


class FailurePage(msgspec.Struct, frozen=True):
    """Some of the series that could not be had, in order of their UID; `more` says whether others follow."""

    failures: tuple[FailureStatus, ...]
    more: bool


class ListCached(msgspec.Struct, frozen=True):
    """`POST /v1/cached`: list the series at a path that are on disk, those behind a series UID ("": all)."""

    path: str
    after: str = ""


class CachedSeries(msgspec.Struct, frozen=True):
    """A series on disk; where it comes from is "" for one that was fetched by an older version."""

    series_uid: str
    collection: str
    patient: str
    images: int
    image_bytes: int
    checks: tuple[str, ...]


class CachedPage(msgspec.Struct, frozen=True):
    """Some of the series on disk; `next` is the UID behind which to go on, None at the end of the list."""

    series: tuple[CachedSeries, ...]
    next: str | None


class CheckPlace(msgspec.Struct, frozen=True):
    """How far a series was read again; made by the daemon, for it to go on from."""

    image: int = 0
    offset: int = 0
    crc32: int = 0
    identity: str = ""


class Check(msgspec.Struct, frozen=True):
    """`POST /v1/check`: read a series on disk again, on from a place, for about a second."""

    series_uid: str
    place: CheckPlace = CheckPlace()


class CheckTurn(msgspec.Struct, frozen=True):
    """What came of that: where the next turn goes on (None: it was the last), or what was damaged.

    A damaged series was dropped, and is fetched again when it is next read. One that `is_gone` had made room
    for others.
    """

    read_bytes: int
    next: CheckPlace | None
    damage: str | None
    is_gone: bool


class Pin(msgspec.Struct, frozen=True):
    """`POST /v1/pin`: keep the series at a path, also those that come, or (`pinned` false) no more."""

    path: str
    pinned: bool


class Evict(msgspec.Struct, frozen=True):
    """`POST /v1/evict`: drop series at a path that are on disk, those behind a series UID ("": all)."""

    path: str
    after: str = ""


class Evicted(msgspec.Struct, frozen=True):
    """So many series dropped and bytes freed, so many not: pinned, or open; `next` as in CachedPage."""

    series: int
    size_bytes: int
    pinned: int
    in_use: int
    next: str | None


class Pause(msgspec.Struct, frozen=True):
    """`POST /v1/pause`: have all downloads stand still, or go on."""

    paused: bool


class LogLevel(msgspec.Struct, frozen=True):
    """`POST /v1/log-level`: log so much from now on: "error", "warning", "info" or "debug"."""

    level: LevelName


class Refresh(msgspec.Struct, frozen=True):
    """`POST /v1/refresh`: ask the archive again for what is listed at a path of the mount; "/" is all."""

    path: str


class Refusal(msgspec.Struct, frozen=True):
    """The answer to what failed, with a status that is no success: a class of `errors`, and its sentence."""

    error: str
    message: str
