"""What daemon and commands say to each other of series that are listed and fetched; see `values`."""

import msgspec

__all__ = [
    "MOST_NAMED",
    "ListFailed",
    "ListNamed",
    "ListSeries",
    "ListedSeries",
    "Prefetch",
    "PrefetchTurn",
    "PrefetchedSeries",
    "SeriesPage",
]

MOST_NAMED = 500
"""Series UIDs in a request, which may have 64 KiB."""


class ListSeries(msgspec.Struct, frozen=True):
    """`POST /v1/series`: the series at a path of the mount, on from behind one (its `path`; empty: begin)."""

    path: str
    after: tuple[str, ...] = ()


class ListFailed(msgspec.Struct, frozen=True):
    """`POST /v1/failed`: the series at a path that could not be had, answered as `ListSeries` is."""

    path: str
    after: tuple[str, ...] = ()


class ListNamed(msgspec.Struct, frozen=True):
    """`POST /v1/named`: where the series with these UIDs are, answered as `ListSeries` is.

    Those that the archive does not know are left out. At most `MOST_NAMED`; on from
    behind one (its UID; "": begin).
    """

    series_uids: tuple[str, ...]
    after: str = ""


class ListedSeries(msgspec.Struct, frozen=True):
    """A series as the archive lists it; `path` is its collection, patient ID, study and series UID.

    `folder` is where it is in the mount, "" where that is not at hand.
    """

    path: tuple[str, ...]
    image_count: int | None
    listed_bytes: int | None
    folder: str = ""


class SeriesPage(msgspec.Struct, frozen=True):
    """Some of the series at a path, in the order of their folders; `more`: others follow."""

    series: tuple[ListedSeries, ...]
    more: bool


class Prefetch(msgspec.Struct, frozen=True):
    """`POST /v1/prefetch`: have these series (their `path`s) here, as many at once as the mount may.

    What was used since `since` (Unix seconds) is not dropped for them. Those under way come to their end;
    the others begin only as long as this is asked for. `again`: also those that failed a while ago.
    """

    series: tuple[tuple[str, ...], ...]
    since: float
    again: bool = False


class PrefetchedSeries(msgspec.Struct, frozen=True):
    """How it is with one of them, of which `arrived_bytes` of images are in.

    `state` is "here" (and was before), "waiting", "coming", "fetched", "failed" or "gone" (the archive lists
    it no more). A failure has the class of its error, and its sentence.
    """

    series_uid: str
    state: str
    arrived_bytes: int = 0
    error: str = ""
    message: str = ""


class PrefetchTurn(msgspec.Struct, frozen=True):
    """How it is with the series that were asked for, once something has changed or a second has passed.

    `paused`: those under way stand still, until `tciafs resume`.
    """

    series: tuple[PrefetchedSeries, ...]
    paused: bool = False
