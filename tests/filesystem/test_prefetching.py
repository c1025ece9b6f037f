"""Fetching for a command: what is listed, how many begin, and how it is told of each."""

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

from tciafs.control.series_values import ListedSeries, Prefetch, PrefetchedSeries
from tciafs.errors import Misuse, NoSuchName, Unreachable
from tciafs.filesystem import prefetching as module
from tciafs.filesystem.prefetching import MOST_A_TURN, Prefetching
from tciafs.model import Series
from tests.filesystem.fakes import Core, running_core

IMAGES = [("1-1.dcm", b"first image"), ("1-2.dcm", b"second")]
SERIES = [
    Series("Lung", patient, study, f"{study}.{number}", "CT", number=number, image_count=2, size_bytes=17)
    for patient, study in (("P1", "1.1"), ("P1", "1.2"), ("P2", "2.1"))
    for number in (1, 2)
]
PATHS = [each.path for each in SERIES]
SINCE = 1.0
AT_ONCE = 2


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path, *SERIES) as core:
        yield core


@pytest.fixture
def prefetching(core: Core) -> Prefetching:
    return prefetching_of(core, AT_ONCE)


def prefetching_of(core: Core, at_once: int) -> Prefetching:
    async def find(series_uids: Sequence[str]) -> Sequence[Series]:
        return (await core.catalogue.answer(("named", *series_uids))).records

    return Prefetching(core.tree, core.store, find, at_once)


def wish(*paths: tuple[str, ...], since: float = SINCE, again: bool = False) -> Prefetch:
    return Prefetch(paths, since, again)


async def states(prefetching: Prefetching, *paths: tuple[str, ...]) -> list[str]:
    return [each.state for each in (await prefetching.turn(wish(*(paths or PATHS)))).series]


@pytest.mark.parametrize(
    ("path", "found"),
    [("/", PATHS), ("/Lung", PATHS), ("/Lung/P1", PATHS[:4]), ("/Lung/P2", PATHS[4:])],
)
async def test_the_series_at_a_path_are_listed_in_the_order_of_their_folders(
    path: str, found: list[tuple[str, ...]], prefetching: Prefetching
) -> None:
    page = await prefetching.listed(path, ())
    assert ([each.path for each in page.series], page.more) == (found, False)


async def test_the_path_of_a_series_is_that_one(core: Core, prefetching: Prefetching) -> None:
    names: list[str] = []
    for whose in ((), ("Lung",), ("Lung", "P1"), ("Lung", "P1", "1.2")):
        node = core.tree.root
        for name in names:
            node = core.tree.remember(node, await core.tree.child(node, name))
        folder = await core.tree.folders.get(core.tree.sources.main, node.inode, node.level, node.whose)
        names.append(folder.names[{0: 0, 1: 0, 2: 1, 3: 1}[len(whose)]])
    page = await prefetching.listed("/" + "/".join(names), ())
    assert [(each.path, each.folder) for each in page.series] == [(PATHS[3], "/".join(names))]


async def test_a_page_goes_on_where_the_one_before_ended(
    prefetching: Prefetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_SERIES", 4)
    first = await prefetching.listed("/Lung", ())
    second = await prefetching.listed("/Lung", first.series[-1].path)
    assert [each.path for each in (*first.series, *second.series)] == PATHS
    assert (first.more, second.more) == (True, False)
    with pytest.raises(Misuse):
        await prefetching.listed("/Lung/P2", PATHS[0])


async def test_a_path_that_is_not_there_is_said_so(prefetching: Prefetching) -> None:
    with pytest.raises(NoSuchName):
        await prefetching.listed("/Lung/P9", ())


async def test_no_more_begin_than_may_come_at_once(core: Core, prefetching: Prefetching) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(states, prefetching)
        await core.fetcher.begun(AT_ONCE)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(core.fetched) == [each.series_uid for each in SERIES[:AT_ONCE]]
        nursery.cancel_scope.cancel()


async def test_a_turn_ends_when_one_has_ended_and_the_next_one_begins_another(
    core: Core, prefetching: Prefetching
) -> None:
    core.fetcher.contents[SERIES[0].series_uid] = IMAGES
    assert await states(prefetching) == ["fetched", "coming", "waiting", "waiting", "waiting", "waiting"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(states, prefetching)
        await core.fetcher.begun(3)
        assert len(core.store.downloads()) == AT_ONCE
        nursery.cancel_scope.cancel()


async def test_all_are_here_in_the_end_and_then_nothing_is_fetched(
    core: Core, prefetching: Prefetching
) -> None:
    core.fetcher.contents.update({each.series_uid: IMAGES for each in SERIES})
    while set(await states(prefetching)) != {"here"}:
        pass
    assert sorted(core.fetched) == sorted(each.series_uid for each in SERIES)
    assert set(await states(prefetching)) == {"here"}
    assert len(core.fetched) == len(SERIES)


@pytest.mark.expect_log("series 1.1.1: gone")
async def test_one_that_failed_is_told_with_its_reason_also_when_asked_again(
    core: Core, prefetching: Prefetching
) -> None:
    async def fail() -> None:
        (await core.fetcher.begun()).end(Unreachable("gone"))

    failed = PrefetchedSeries(SERIES[0].series_uid, "failed", error="Unreachable", message="gone")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        assert (await prefetching.turn(wish(*PATHS[:1]))).series == (failed,)
    assert (await prefetching.turn(wish(*PATHS[:1]))).series == (failed,)


async def test_what_was_fetched_for_the_same_command_makes_no_room_for_more(tmp_path: Path) -> None:
    async with running_core(tmp_path, *SERIES, limit_bytes=12_300) as core:
        core.fetcher.contents.update({each.series_uid: IMAGES for each in SERIES})
        prefetching = prefetching_of(core, 1)
        since = time.time()
        while (turn := await prefetching.turn(wish(*PATHS[:2], since=since))).series[0].state != "here":
            pass
        while turn.series[1].state in ("waiting", "coming"):
            turn = await prefetching.turn(wish(*PATHS[:2], since=since))
        assert [each.state for each in turn.series] == ["here", "failed"]
        assert turn.series[1].error == "NoSpace"


async def test_one_that_gives_way_to_a_reader_is_begun_again(tmp_path: Path) -> None:
    async with running_core(tmp_path, *SERIES) as core:
        prefetching = prefetching_of(core, 3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(states, prefetching, *PATHS[:3])
            await core.fetcher.begun(3)
            nursery.cancel_scope.cancel()
        core.fetcher.contents.update({each.series_uid: IMAGES for each in SERIES})
        await core.store.fetch(SERIES[5]).over.wait()
        left = {transfer.series.series_uid for transfer in core.fetcher.transfers if transfer.pack.exists()}
        (gave_way,) = (each for each in SERIES[:3] if each.series_uid not in left)
        turn = await prefetching.turn(wish(*PATHS[:3]))
        assert (gave_way.series_uid, "failed") not in {(each.series_uid, each.state) for each in turn.series}
        while core.store.state(gave_way) != "local":
            await trio.lowlevel.checkpoint()


async def test_one_that_the_archive_lists_no_more_is_gone(core: Core, prefetching: Prefetching) -> None:
    assert await states(prefetching, ("Lung", "P1", "1.1", "1.1.9")) == ["gone"]


async def test_a_turn_of_too_many_is_misuse(prefetching: Prefetching) -> None:
    with pytest.raises(Misuse):
        await prefetching.turn(wish(*PATHS[:1] * (MOST_A_TURN + 1)))
    with pytest.raises(Misuse):
        await prefetching.turn(wish(("Lung", "P1")))


async def test_offline_says_so(tmp_path: Path) -> None:
    async with running_core(tmp_path, *SERIES) as core:
        await core.tree.folders.get(core.tree.sources.main, 1, core.tree.root.level, ())
        await prefetching_of(core, 1).listed("/", ())
    async with running_core(tmp_path, *SERIES, offline=True) as core:
        turn = await prefetching_of(core, 1).turn(wish(*PATHS[:1]))
        assert (turn.series[0].state, turn.series[0].error) == ("failed", "Offline")


# What failed, again


async def fail_one(core: Core, begun: int) -> None:
    """Let the latest download fail once so many have begun."""
    await core.fetcher.begun(begun)
    core.fetcher.transfers[-1].end(Unreachable("gone"))


async def turn_that_fails(core: Core, prefetching: Prefetching, wanted: Prefetch, begun: int) -> str:
    """Return what is said of a series whose download, the so many-th of all, fails."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_one, core, begun)
        return (await prefetching.turn(wanted)).series[0].state


@pytest.mark.expect_log(r"series 1\.1\.1: gone")
async def test_what_failed_is_listed_by_path_and_tried_again_once_for_each_command(
    core: Core, prefetching: Prefetching
) -> None:
    assert (await prefetching.failed("/", ())).series == ()
    assert await turn_that_fails(core, prefetching, wish(PATHS[0]), begun=1) == "failed"
    only = ListedSeries(PATHS[0], 2, 17, "Lung/P1/NA-NA-1.1/1.000000-NA-1.1.1")
    assert (await prefetching.failed("/", ())).series == (only,)
    assert (await prefetching.failed("/Lung/P1", ())).series == (only,)
    assert (await prefetching.failed("/Lung/P2", ())).series == ()
    assert (await prefetching.failed("/", PATHS[0])).series == ()

    again = wish(PATHS[0], since=time.time(), again=True)
    assert await turn_that_fails(core, prefetching, again, begun=2) == "failed"
    assert (await prefetching.turn(again)).series[0].state == "failed"
    assert len(core.fetched) == 2

    core.fetcher.contents[SERIES[0].series_uid] = IMAGES
    again = wish(PATHS[0], since=time.time(), again=True)
    assert (await prefetching.turn(again)).series[0].state == "fetched"
    assert (await prefetching.failed("/", ())).series == ()


@pytest.mark.expect_log(r"series 1\.1\.1: gone")
async def test_what_a_command_that_was_killed_had_fail_is_tried_again(
    core: Core, prefetching: Prefetching
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(states, prefetching, PATHS[0])
        await core.fetcher.begun(1)
        nursery.cancel_scope.cancel()
    core.fetcher.transfers[0].end(Unreachable("gone"))
    while core.store.downloads():
        await trio.lowlevel.checkpoint()
    core.fetcher.contents[SERIES[0].series_uid] = IMAGES
    again = wish(PATHS[0], since=time.time(), again=True)
    assert (await prefetching.turn(again)).series[0].state == "fetched"


@pytest.mark.expect_log(r"series .*: gone")
async def test_many_that_failed_are_listed_page_by_page(
    core: Core, prefetching: Prefetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, path in enumerate(reversed(PATHS), start=1):
        assert await turn_that_fails(core, prefetching, wish(path), begun=number) == "failed"
    monkeypatch.setattr(module, "PAGE_SERIES", 4)
    first = await prefetching.failed("/", ())
    second = await prefetching.failed("/", first.series[-1].path)
    assert [each.path for each in (*first.series, *second.series)] == PATHS
    assert (first.more, second.more) == (True, False)


# By UID


async def test_series_are_found_by_their_uids_and_those_that_are_unknown_left_out(
    prefetching: Prefetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = ["9.9", *(each.series_uid for each in reversed(SERIES))]
    page = await prefetching.named(uids, "")
    assert ([each.path for each in page.series], page.more) == (PATHS, False)
    monkeypatch.setattr(module, "PAGE_SERIES", 4)
    assert [each.path for each in (await prefetching.named(uids, SERIES[3].series_uid)).series] == PATHS[4:]
    assert (await prefetching.named(uids, "")).more
    with pytest.raises(Misuse):
        await prefetching.named(["1.1"] * 501, "")
