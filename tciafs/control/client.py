"""The command's end of the control socket: one question, one answer, every wait bounded.

What fails in the daemon is raised here as the same error. A text from the daemon is made fit for a terminal
before it gets into a sentence. Blocks; used by commands, never by the daemon.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from tciafs.control.known_values import KnownPage, ListKnown, Locate, LocatedImage
from tciafs.control.place import sockets
from tciafs.control.report import printable
from tciafs.control.series_values import (
    MOST_NAMED,
    ListedSeries,
    ListFailed,
    ListNamed,
    ListSeries,
    Prefetch,
    PrefetchTurn,
    SeriesPage,
)
from tciafs.control.usage_values import ListUsed, UsedPage, UsedSource
from tciafs.control.values import (
    PREFIX,
    CachedPage,
    CachedSeries,
    Check,
    CheckPlace,
    CheckTurn,
    Evict,
    Evicted,
    FailurePage,
    FailureStatus,
    LevelName,
    ListCached,
    ListFailures,
    LogLevel,
    Pause,
    Pin,
    Refresh,
    Refusal,
    Status,
)
from tciafs.errors import NoDaemon, TciafsError, error_named

__all__ = [
    "ANSWER_TIMEOUT_S",
    "ask",
    "ask_cached",
    "ask_check",
    "ask_evict",
    "ask_failed",
    "ask_failures",
    "ask_known",
    "ask_locate",
    "ask_log_level",
    "ask_named",
    "ask_pause",
    "ask_pin",
    "ask_prefetch",
    "ask_refresh",
    "ask_series",
    "ask_status",
    "ask_used",
    "patience_of",
]

A = TypeVar("A")

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0
KNOWN_TIMEOUT_S = 30.0
"""Tens of thousands of names take a part of a second, unless the processor is busy."""

CHECK_TIMEOUT_S = 60.0
"""A turn takes a second where the disk is not slow and nobody else checks something."""

TURN_TIMEOUT_S = 300.0
"""A turn takes a second where no listing has to be asked for anew."""

LONGEST_PATIENCE_S = 3600.0


def ask_status(mountpoint: Path) -> Status:
    """Return what the daemon of a mount does. Raises NoDaemon, or TciafsError for one that is stuck."""
    return ask(mountpoint, "status", None, Status, ANSWER_TIMEOUT_S)


def ask_failures(mountpoint: Path) -> list[FailureStatus]:
    """Return all series that the daemon of a mount could not have. Raises as `ask_status`."""
    failures: list[FailureStatus] = []
    page = FailurePage((), more=True)
    while page.more:
        after = failures[-1].series_uid if failures else ""
        page = ask(mountpoint, "failures", ListFailures(after), FailurePage, ANSWER_TIMEOUT_S)
        failures += page.failures
    return failures


def ask_cached(mountpoint: Path, path: str) -> list[CachedSeries]:
    """Return the series at a path inside a mount that are on disk. Raises as `ask_refresh`."""
    patience_s = patience_of(mountpoint)
    series: list[CachedSeries] = []
    after: str | None = ""
    while after is not None:
        page = ask(mountpoint, "cached", ListCached(path, after), CachedPage, patience_s)
        series += page.series
        after = page.next
    return series


def ask_known(mountpoint: Path, path: str, after: str = "") -> KnownPage:
    """Return some folders at a path inside a mount, as far as they are known. Raises as `ask_status`."""
    return ask(mountpoint, "known", ListKnown(path, after), KnownPage, KNOWN_TIMEOUT_S)


def ask_locate(mountpoint: Path, series_uid: str, image: int | None = None) -> LocatedImage:
    """Return where an image of a series on disk is. Raises NoSuchName, and as `ask_status`."""
    return ask(mountpoint, "locate", Locate(series_uid, image), LocatedImage, ANSWER_TIMEOUT_S)


def ask_check(mountpoint: Path, series_uid: str, place: CheckPlace) -> CheckTurn:
    """Have a series on disk read again for about a second, on from a place. Raises as `ask_status`."""
    return ask(mountpoint, "check", Check(series_uid, place), CheckTurn, CHECK_TIMEOUT_S)


def ask_pin(mountpoint: Path, path: str, *, pinned: bool) -> None:
    """Have the series at a path inside a mount kept, or not any more. Raises as `ask_refresh`."""
    ask(mountpoint, "pin", Pin(path, pinned), None, patience_of(mountpoint))


def ask_evict(mountpoint: Path, path: str) -> Evicted:
    """Have the series at a path inside a mount dropped from the cache. Raises as `ask_refresh`."""
    patience_s = patience_of(mountpoint)
    total = Evicted(0, 0, 0, 0, next="")
    while total.next is not None:
        some = ask(mountpoint, "evict", Evict(path, total.next), Evicted, patience_s)
        total = Evicted(
            total.series + some.series,
            total.size_bytes + some.size_bytes,
            total.pinned + some.pinned,
            total.in_use + some.in_use,
            some.next,
        )
    return total


def ask_pause(mountpoint: Path, *, paused: bool) -> None:
    """Have all downloads of a mount stand still, or go on. Raises what `ask_status` raises."""
    ask(mountpoint, "pause", Pause(paused), None, ANSWER_TIMEOUT_S)


def ask_log_level(mountpoint: Path, level: LevelName) -> None:
    """Have the daemon of a mount log so much from now on. Raises what `ask_status` raises."""
    ask(mountpoint, "log-level", LogLevel(level), None, ANSWER_TIMEOUT_S)


def ask_series(mountpoint: Path, path: str) -> Iterator[ListedSeries]:
    """Yield the series at a path inside a mount, as the archive lists them. Raises as `ask_refresh`."""
    patience_s = patience_of(mountpoint)
    return _pages(mountpoint, "series", partial(ListSeries, path), attrgetter("path"), patience_s)


def ask_failed(mountpoint: Path, path: str) -> Iterator[ListedSeries]:
    """Yield the series at a path inside a mount that could not be had. Raises as `ask_refresh`."""
    patience_s = patience_of(mountpoint)
    return _pages(mountpoint, "failed", partial(ListFailed, path), attrgetter("path"), patience_s)


def ask_named(mountpoint: Path, series_uids: Sequence[str]) -> Iterator[ListedSeries]:
    """Yield where those of these series are that the archive has. Raises as `ask_refresh`."""
    patience_s = patience_of(mountpoint)
    for start in range(0, len(series_uids), MOST_NAMED):
        some = partial(ListNamed, tuple(series_uids[start : start + MOST_NAMED]))
        yield from _pages(mountpoint, "named", some, lambda each: each.path[-1], patience_s)


def _pages(
    mountpoint: Path,
    name: str,
    wish: Callable[..., object],
    key: Callable[[ListedSeries], object],
    patience_s: float,
) -> Iterator[ListedSeries]:
    """Yield the series of all pages of an answer: each begins behind the key of the last series before it."""
    page = ask(mountpoint, name, wish(), SeriesPage, patience_s)
    yield from page.series
    while page.more and page.series:
        page = ask(mountpoint, name, wish(after=key(page.series[-1])), SeriesPage, patience_s)
        yield from page.series


def ask_prefetch(mountpoint: Path, wish: Prefetch) -> PrefetchTurn:
    """Have some series fetched, and return how it is with them after a second at most.

    Raises as `ask_refresh`.
    """
    return ask(mountpoint, "prefetch", wish, PrefetchTurn, TURN_TIMEOUT_S)


def ask_used(mountpoint: Path, since: str) -> list[UsedSource]:
    """Return from where series were read through a mount, on a day or later. Raises as `ask_status`."""
    sources: list[UsedSource] = []
    page = UsedPage((), more=True)
    while page.more:
        page = ask(mountpoint, "used", ListUsed(since, len(sources)), UsedPage, ANSWER_TIMEOUT_S)
        sources += page.sources
    return sources


def ask_refresh(mountpoint: Path, path: str) -> None:
    """Have the archive asked again for a path inside a mount; returns once it has answered.

    Raises what `ask_status` raises, and what the archive makes the daemon raise.
    """
    ask(mountpoint, "refresh", Refresh(path), None, patience_of(mountpoint))


def patience_of(mountpoint: Path) -> float:
    """Return how long an answer may take for which the archive is asked."""
    # A daemon that is stuck is found out now, and not when the archive's time is over.
    return min(ask_status(mountpoint).patience_s, LONGEST_PATIENCE_S) + ANSWER_TIMEOUT_S


def ask(mountpoint: Path, name: str, wish: object, answer: type[A] | None, timeout_s: float) -> A:
    """Return the answer to a wish (None: a question that needs no words) of the daemon of a mount."""
    method, body = ("GET", None) if wish is None else ("POST", _encoded(wish))
    shown = printable(str(mountpoint))
    # One that nobody listens on was left behind by a daemon that was killed, perhaps in another session.
    if path := next(filter(_is_listened_on, sockets(mountpoint)), None):
        try:
            response = _send(path, method, PREFIX + name, body, timeout_s)
        except httpx.TimeoutException:
            raise TciafsError(f"the daemon of {shown} did not answer within {timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise NoDaemon(f"the daemon of {shown} ended before it answered: {error}") from None
        return _understood(response, answer, shown)
    raise NoDaemon(f"the daemon of {shown} takes no commands: its control socket is not there, see its log")


def _is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(CONNECT_TIMEOUT_S)
        try:
            caller.connect(os.fsencode(path))
        except TimeoutError:
            return True  # by a daemon that is stuck
        except OSError:
            return False
        return True


def _send(place: Path, method: str, path: str, body: bytes | None, timeout_s: float) -> httpx.Response:
    timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
    transport = httpx.HTTPTransport(uds=str(place))
    with httpx.Client(transport=transport, timeout=timeout, trust_env=False) as client:
        return client.request(method, f"http://tciafs{path}", content=body)


def _encoded(wish: object) -> bytes:
    try:
        return msgspec.json.encode(wish)
    except ValueError:
        raise TciafsError("a path that is no UTF-8 is not the name of anything in a mount") from None


def _understood(response: httpx.Response, answer: type[A] | None, shown: str) -> A:
    try:
        if response.is_success:
            return msgspec.json.decode(response.content, type=answer)
        refusal = msgspec.json.decode(response.content, type=Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NoDaemon(
            f"the daemon of {shown} speaks otherwise than this command ({error}): it was started by another "
            "version of tciafs; mount again"
        ) from None
    raise error_named(refusal.error, printable(refusal.message))
