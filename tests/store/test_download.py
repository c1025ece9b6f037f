"""One download and those who wait for it."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tciafs.errors import DeadlinePassed, Refused, Unreachable
from tciafs.store.download import Download
from tciafs.store.layout import Layout, PackedImage, PackedImages
from tests.fakes import make_series

SERIES = make_series()
FIRST, SECOND = PackedImage("1-1.dcm", 0, 5, 1), PackedImage("1-2.dcm", 5, 5, 2)
LAYOUT = Layout(SERIES.series_uid, SERIES.version, PackedImages([FIRST, SECOND]), (), SERIES.path)
PATIENCE_S = 10.0


@pytest.fixture
def download() -> Download:
    return Download(SERIES, Path("/nowhere"))


class Waiters:
    """Tasks that wait for images, and which of them have been woken with what."""

    def __init__(self, download: Download, nursery: trio.Nursery) -> None:
        self.download = download
        self.woken: dict[str, PackedImage | Exception | None] = {}
        self.wakes = 0
        self._nursery = nursery

    def wait_for(self, name: str) -> None:
        self._nursery.start_soon(self._wait_for, name)

    async def _wait_for(self, name: str) -> None:
        try:
            self.woken[name] = await self.download.wait_for(name, PATIENCE_S)
        except Unreachable as error:
            self.woken[name] = error


async def test_an_image_that_is_in_is_returned_at_once(download: Download) -> None:
    download.announce(FIRST)
    assert await download.wait_for("1-1.dcm", 0.0) == FIRST


async def test_each_image_wakes_those_who_wait_for_it_and_nobody_else(
    download: Download, nursery: trio.Nursery
) -> None:
    waiters = Waiters(download, nursery)
    for name in ("1-1.dcm", "1-2.dcm", "9-9.dcm"):
        waiters.wait_for(name)
    await wait_all_tasks_blocked()
    download.announce(SECOND)
    await wait_all_tasks_blocked()
    assert waiters.woken == {"1-2.dcm": SECOND}
    download.announce(FIRST)
    download.mark_verified(LAYOUT.checks)
    await wait_all_tasks_blocked()
    assert waiters.woken == {"1-2.dcm": SECOND, "1-1.dcm": FIRST, "9-9.dcm": None}


async def test_a_failure_reaches_all_who_wait(download: Download, nursery: trio.Nursery) -> None:
    waiters = Waiters(download, nursery)
    waiters.wait_for("1-1.dcm")
    waiters.wait_for("1-2.dcm")
    await wait_all_tasks_blocked()
    download.announce(FIRST)
    failure = Unreachable("gone")
    download.end(failure)
    await wait_all_tasks_blocked()
    assert waiters.woken == {"1-1.dcm": FIRST, "1-2.dcm": failure}
    assert download.settled
    with pytest.raises(Unreachable):
        await download.wait_settled(PATIENCE_S)
    assert download.over.is_set()


async def test_a_failure_shared_by_many_does_not_grow(download: Download) -> None:
    download.end(Unreachable("gone"))

    def frames(error: BaseException) -> int:
        count, traceback = 0, error.__traceback__
        while traceback is not None:
            count, traceback = count + 1, traceback.tb_next
        return count

    depths = set()
    for _ in range(5):
        with pytest.raises(Unreachable) as raised:
            await download.wait_for("1-1.dcm", PATIENCE_S)
        depths.add(frames(raised.value))
    assert len(depths) == 1


async def test_a_verified_series_no_longer_fails_those_who_wait(download: Download) -> None:
    download.announce(FIRST)
    download.announce(SECOND)
    download.mark_verified(LAYOUT.checks)
    download.end(Unreachable("too late"))
    assert await download.wait_settled(PATIENCE_S) == LAYOUT
    assert await download.wait_for("9-9.dcm", PATIENCE_S) is None
    await download.wait_for_more(2, PATIENCE_S)


async def test_a_listing_waits_for_one_more_image_or_for_the_end(
    download: Download, nursery: trio.Nursery
) -> None:
    known: list[int] = []

    async def list_images() -> None:
        while not download.settled:
            await download.wait_for_more(len(download.images), PATIENCE_S)
            known.append(len(download.images))

    nursery.start_soon(list_images)
    await wait_all_tasks_blocked()
    for image in (FIRST, SECOND):
        download.announce(image)
        await wait_all_tasks_blocked()
    download.mark_verified(LAYOUT.checks)
    await wait_all_tasks_blocked()
    assert known == [1, 2, 2]


async def test_a_listing_fails_only_behind_the_last_image_that_came(download: Download) -> None:
    download.announce(FIRST)
    download.end(Unreachable("gone"))
    await download.wait_for_more(0, PATIENCE_S)
    with pytest.raises(Unreachable):
        await download.wait_for_more(1, PATIENCE_S)


async def test_a_cancelled_waiter_leaves_no_trace(download: Download, nursery: trio.Nursery) -> None:
    waiters = Waiters(download, nursery)
    waiters.wait_for("1-1.dcm")
    with trio.CancelScope() as scope:
        scope.cancel()
        await download.wait_for("1-1.dcm", PATIENCE_S)
    assert scope.cancelled_caught
    await wait_all_tasks_blocked()
    download.announce(FIRST)
    await wait_all_tasks_blocked()
    assert waiters.woken == {"1-1.dcm": FIRST}


async def test_silence_ends_every_wait(download: Download, autojump_clock: MockClock) -> None:
    with pytest.raises(DeadlinePassed, match=r"no byte of series 1\.2\.3 came for 10 s"):
        await download.wait_for("1-1.dcm", PATIENCE_S)
    with pytest.raises(DeadlinePassed):
        await download.wait_for_more(0, PATIENCE_S)
    with pytest.raises(DeadlinePassed):
        await download.wait_settled(PATIENCE_S)
    assert trio.current_time() == 3 * PATIENCE_S


@pytest.mark.parametrize("sign", ["progress", "image", "turn"])
async def test_a_sign_of_life_renews_patience(
    download: Download, autojump_clock: MockClock, nursery: trio.Nursery, sign: str
) -> None:
    async def show_life() -> None:
        await trio.sleep(9)
        match sign:
            case "progress":
                download.mark_progress(1000)
            case "image":
                download.announce(SECOND)
            case _:
                download.mark_alive()
        await trio.sleep(9)
        download.announce(FIRST)

    nursery.start_soon(show_life)
    assert await download.wait_for("1-1.dcm", PATIENCE_S) == FIRST
    assert trio.current_time() == 18


async def test_the_end_in_the_last_moment_is_no_silence(
    download: Download, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    layouts: list[Layout] = []

    async def wait() -> None:
        layouts.append(await download.wait_settled(PATIENCE_S))

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    mock_clock.jump(PATIENCE_S)
    download.announce(FIRST)
    download.announce(SECOND)
    download.mark_verified(LAYOUT.checks)
    await wait_all_tasks_blocked()
    assert layouts == [LAYOUT]


def test_a_download_says_how_far_it_has_come(download: Download) -> None:
    assert (download.state, download.arrived_bytes) == ("queued", 0)
    download.mark_begun()
    assert (download.state, download.arrived_bytes) == ("arriving", 0)
    download.announce(FIRST)
    download.announce(SECOND)
    assert (download.state, download.arrived_bytes) == ("arriving", 10)
    download.mark_verified(LAYOUT.checks)
    assert download.state == "verified"
    download.end()
    assert download.state == "over"


async def test_a_pause_sends_away_those_who_wait_and_those_who_come(
    download: Download, nursery: trio.Nursery
) -> None:
    refusal, refused = Refused("paused"), list[Refused]()

    async def wait(waiting: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(Refused) as caught:
            await waiting()
        refused.append(caught.value)

    waits = (
        lambda: download.wait_for("1-1.dcm", PATIENCE_S),
        lambda: download.wait_for_more(0, PATIENCE_S),
        lambda: download.wait_settled(PATIENCE_S),
    )
    for each in waits:
        nursery.start_soon(wait, each)
    await wait_all_tasks_blocked()
    download.pause(refusal)
    for each in waits:
        nursery.start_soon(wait, each)
    await wait_all_tasks_blocked()
    assert refused == [refusal] * 6


async def test_what_is_in_is_there_while_paused_and_the_rest_can_be_awaited_afterwards(
    download: Download, nursery: trio.Nursery
) -> None:
    download.announce(FIRST)
    download.pause(Refused("paused"))
    assert await download.wait_for("1-1.dcm", PATIENCE_S) == FIRST
    download.resume()
    waiters = Waiters(download, nursery)
    waiters.wait_for("1-2.dcm")
    await wait_all_tasks_blocked()
    download.announce(SECOND)
    await wait_all_tasks_blocked()
    assert waiters.woken == {"1-2.dcm": SECOND}
