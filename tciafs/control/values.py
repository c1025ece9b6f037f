"""What daemon and commands say to each other, as JSON of version 1 of the protocol.

Defined here and only here: the fields of `GET /v1/status` and of all requests. A field may be added, with
a default, and nothing may be taken away or change its meaning within a version. Times are Unix seconds,
sizes bytes; None is what the archive did not say. Texts are as the archive has them, and nothing that a
terminal should get raw. Values only.
"""

from dataclasses import dataclass

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
    "ListCached",
    "ListFailed",
    "ListFailures",
    "ListNamed",
    "ListSeries",
    "ListedSeries",
    "Pause",
    "Pin",
    "Prefetch",
    "PrefetchTurn",
    "PrefetchedSeries",
    "Refresh",
    "Refusal",
    "SeriesPage",
    "SinceStart",
    "Status",
]

PREFIX = "/v1/"
"""What all paths of this version begin with."""


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """The series on disk: the limit, what they are, what can still be stored, how many there are."""

    limit_bytes: int
    used_bytes: int
    free_bytes: int
    series: int


@dataclass(frozen=True, slots=True)
class DownloadStatus:
    """A series under way: `state` is "queued", "arriving" or "verified" (complete, not yet in its place).

    Of the images `images` are in and checked, `arrived_bytes` together, to be compared with `image_count`
    and `listed_bytes`, which the archive lists. `received_bytes` came over the line, compressed.
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


@dataclass(frozen=True, slots=True)
class ArrivalStatus:
    """A series that came whole, and which `checks` of it agreed; without "md5" the archive offers none."""

    series_uid: str
    collection: str
    patient: str
    at: float
    images: int
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FailureStatus:
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


@dataclass(frozen=True, slots=True)
class EventStatus:
    """Something odd that a listing did."""

    at: float
    message: str


@dataclass(frozen=True, slots=True)
class CatalogueStatus:
    """Listings: questions put to the archive since the start, listings on disk, the last odd events."""

    requests: int
    remembered: int
    events: tuple[EventStatus, ...]


@dataclass(frozen=True, slots=True)
class RefusalStatus:
    """What a program was refused: how often, when last and to which process, and why."""

    program: str
    pid: int
    count: int
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class SinceStart:
    """What a daemon has counted since it began.

    Images that programs opened: those whose bytes were here, and those that were waited for, in vain too.
    Bytes of images that came over the line; series that came whole, and downloads that failed; and how often
    a program was not allowed to cause one.
    """

    opened_cached: int = 0
    opened_waiting: int = 0
    received_bytes: int = 0
    series_fetched: int = 0
    series_failed: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What a daemon does at this moment; each number is counted, none is guessed.

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


@dataclass(frozen=True, slots=True)
class ListFailures:
    """`POST /v1/failures`: list the series that could not be had, those behind a series UID ("": all)."""

    after: str = ""


@dataclass(frozen=True, slots=True)
class FailurePage:
    """Some of the series that could not be had, in order of their UID; `more` says whether others follow."""

    failures: tuple[FailureStatus, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class ListCached:
    """`POST /v1/cached`: list the series at a path that are on disk, those behind a series UID ("": all)."""

    path: str
    after: str = ""


@dataclass(frozen=True, slots=True)
class CachedSeries:
    """A series on disk; where it comes from is "" for one that was fetched by an older version."""

    series_uid: str
    collection: str
    patient: str
    images: int
    image_bytes: int
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CachedPage:
    """Some of the series on disk; `next` is the UID behind which to go on, None at the end of the list."""

    series: tuple[CachedSeries, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class CheckPlace:
    """How far a series was read again; made by the daemon, for it to go on from."""

    image: int = 0
    offset: int = 0
    crc32: int = 0
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """`POST /v1/check`: read a series on disk again, on from a place, for about a second."""

    series_uid: str
    place: CheckPlace = CheckPlace()


@dataclass(frozen=True, slots=True)
class CheckTurn:
    """What came of that: where the next turn goes on (None: it was the last), or what was damaged.

    A damaged series was dropped, and is fetched again when it is next read. One that `is_gone` had made room
    for others.
    """

    read_bytes: int
    next: CheckPlace | None
    damage: str | None
    is_gone: bool


@dataclass(frozen=True, slots=True)
class Pin:
    """`POST /v1/pin`: keep the series at a path, also those that come, or (`pinned` false) no more."""

    path: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class Evict:
    """`POST /v1/evict`: drop series at a path that are on disk, those behind a series UID ("": all)."""

    path: str
    after: str = ""


@dataclass(frozen=True, slots=True)
class Evicted:
    """So many series dropped and bytes freed, so many not: pinned, or open; `next` as in CachedPage."""

    series: int
    size_bytes: int
    pinned: int
    in_use: int
    next: str | None


@dataclass(frozen=True, slots=True)
class Pause:
    """`POST /v1/pause`: have all downloads stand still, or go on."""

    paused: bool


@dataclass(frozen=True, slots=True)
class ListSeries:
    """`POST /v1/series`: the series at a path of the mount, on from behind one (its `path`; empty: begin)."""

    path: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListFailed:
    """`POST /v1/failed`: the series at a path that could not be had, answered as `ListSeries` is."""

    path: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListNamed:
    """`POST /v1/named`: where the series with these UIDs are, answered as `ListSeries` is.

    Those that the archive does not know are left out. At most 500; on from behind one (its UID; "": begin).
    """

    series_uids: tuple[str, ...]
    after: str = ""


@dataclass(frozen=True, slots=True)
class ListedSeries:
    """A series as the archive lists it; `path` is its collection, patient ID, study and series UID."""

    path: tuple[str, ...]
    image_count: int | None
    listed_bytes: int | None


@dataclass(frozen=True, slots=True)
class SeriesPage:
    """Some of the series at a path, in the order of their folders; `more`: others follow."""

    series: tuple[ListedSeries, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Prefetch:
    """`POST /v1/prefetch`: have these series (their `path`s) here, as many at once as the mount may.

    What was used since `since` (Unix seconds) is not dropped for them. Those under way come to their end;
    the others begin only as long as this is asked for. `again`: also those that failed a while ago.
    """

    series: tuple[tuple[str, ...], ...]
    since: float
    again: bool = False


@dataclass(frozen=True, slots=True)
class PrefetchedSeries:
    """How it is with one of them, of which `arrived_bytes` of images are in.

    `state` is "here" (and was before), "waiting", "coming", "fetched", "failed" or "gone" (the archive lists
    it no more). A failure has the class of its error, and its sentence.
    """

    series_uid: str
    state: str
    arrived_bytes: int = 0
    error: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class PrefetchTurn:
    """How it is with the series that were asked for, once something has changed or a second has passed."""

    series: tuple[PrefetchedSeries, ...]


@dataclass(frozen=True, slots=True)
class Refresh:
    """`POST /v1/refresh`: ask the archive again for what is listed at a path of the mount; "/" is all."""

    path: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to what failed, with a status that is no success: a class of `errors`, and its sentence."""

    error: str
    message: str
