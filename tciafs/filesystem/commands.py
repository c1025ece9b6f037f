"""What a mount does when a command asks for it: each field of `control.Commands`, in terms of the rooms.

Handed the rooms; knows nothing of sockets.
"""

import datetime as dt
from dataclasses import astuple
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from tciafs import logs
from tciafs.control.commands import Commands
from tciafs.control.known_values import LocatedImage
from tciafs.control.usage_values import UsedPage, UsedSource
from tciafs.control.values import CachedPage, CachedSeries, CheckPlace, CheckTurn, Evicted
from tciafs.errors import DeadlinePassed, Misuse, NoSuchName
from tciafs.filesystem.paths import Paths
from tciafs.filesystem.status import About, Rooms, brief, failures_after, snapshot
from tciafs.store.checking import Place

if TYPE_CHECKING:
    from tciafs.filesystem.known import Known
    from tciafs.filesystem.manifests import Manifests
    from tciafs.filesystem.prefetching import Prefetching
    from tciafs.filesystem.tree import Tree
    from tciafs.filesystem.usage import Source, Usage
    from tciafs.store.ledger import Entry

__all__ = ["commands_of"]

PAGE_SOURCES = 50
"""An answer must fit into the buffer of a socket, whatever texts an archive has."""


def commands_of(
    about: About,
    rooms: Rooms,
    tree: "Tree",
    prefetching: "Prefetching",
    known: "Known",
    manifests: "Manifests",
    usage: "Usage | None" = None,
) -> Commands:
    """Return what a mount does when it is asked to by a command."""

    paths = Paths(tree)

    async def refresh(path: str) -> None:
        with trio.move_on_after(about.patience_s) as asking:
            whose = await paths.refresh(path)
            rooms.store.failures.forget(lambda failed: failed.path[: len(whose)] == whose)
        if asking.cancelled_caught:
            raise DeadlinePassed(f"the archive did not list {path} within {about.patience_s:g} s")

    async def cached(path: str, after: str) -> CachedPage:
        entries, following = await rooms.store.checker.listed(await keys(path), after)
        return CachedPage(tuple(map(_cached_series, entries)), following)

    async def check(series_uid: str, place: CheckPlace) -> CheckTurn:
        from_here = Place(place.image, place.offset, place.crc32, place.identity)
        turn = await rooms.store.checker.check(series_uid, from_here)
        following = None if turn.next is None else CheckPlace(*astuple(turn.next))
        return CheckTurn(turn.read_bytes, following, turn.damage, turn.is_gone)

    async def keys(path: str) -> tuple[str, ...]:
        with trio.move_on_after(about.patience_s):
            return await paths.keys(path)
        raise DeadlinePassed(f"the archive did not list {path} within {about.patience_s:g} s")

    async def pin(path: str, pinned: bool) -> None:
        keeper = rooms.store.keeper
        await (keeper.pin if pinned else keeper.unpin)(await keys(path))

    async def evict(path: str, after: str) -> Evicted:
        done = await rooms.store.keeper.evict(await keys(path), after)
        return Evicted(done.series, done.size_bytes, done.pinned, done.in_use, done.next)

    def pause(paused: bool) -> None:
        if paused:
            rooms.store.pausing.begin()
        else:
            rooms.store.pausing.end()

    def used(since: str, place: int) -> UsedPage:
        if usage is None:
            raise Misuse("this mount keeps no note of what is read (--usage off)")
        try:
            found = sorted(usage.since(dt.date.fromisoformat(since)).items(), key=repr)
        except ValueError:
            raise Misuse(f"{since!r} is no day such as 2026-01-31") from None
        page = [_used_source(source, count) for source, count in found[place : place + PAGE_SOURCES + 1]]
        return UsedPage(tuple(page[:PAGE_SOURCES]), more=len(page) > PAGE_SOURCES)

    async def locate(series_uid: str, image: int | None) -> LocatedImage:
        located = await rooms.store.holdings.locate(series_uid, image)
        if located is None:
            raise NoSuchName(f"series {series_uid} is not in the cache, or has no such image")
        return LocatedImage(str(located.pack), *astuple(located)[1:])

    return Commands(
        pause=pause,
        log_level=logs.set_level,
        status=partial(snapshot, about, rooms),
        failures=partial(failures_after, rooms.store),
        cached=cached,
        check=check,
        series=prefetching.listed,
        failed=prefetching.failed,
        named=prefetching.named,
        prefetch=prefetching.turn,
        refresh=refresh,
        pin=pin,
        evict=evict,
        add_manifest=manifests.add,
        manifests=manifests.listed,
        remove_manifest=manifests.remove,
        used=used,
        known=known.page,
        locate=locate,
    )


def _cached_series(entry: "Entry") -> CachedSeries:
    layout = entry.layout
    collection, patient = (*layout.path, "", "")[:2]
    return CachedSeries(
        layout.series_uid,
        brief(collection),
        brief(patient),
        len(layout.images),
        layout.image_bytes,
        layout.checks,
    )


def _used_source(source: "Source", series: int) -> UsedSource:
    collection, data_uri, licence_name, licence_uri, third_party = map(brief, msgspec.structs.astuple(source))
    return UsedSource(collection, data_uri, licence_name, licence_uri, third_party, series)
