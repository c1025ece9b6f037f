"""Work side by side: results in order, one failure that comes out bare, and nothing left behind."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
import trio
import trio.testing

from tciafs.archives.idc.parallel import all_of, opened_ahead
from tciafs.errors import Unreachable


async def test_results_come_in_the_order_of_the_items() -> None:
    ended = {number: trio.Event() for number in range(6)}

    async def work(number: int) -> int:
        if number + 1 in ended and number % 2 == 0:
            await ended[number + 1].wait()  # the second of each two ends first
        ended[number].set()
        return number * 10

    assert await all_of(range(6), work, most=2) == [0, 10, 20, 30, 40, 50]


async def test_no_more_are_at_work_than_allowed() -> None:
    at_work, most = 0, 0

    async def work(_: int) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await trio.testing.wait_all_tasks_blocked()
        at_work -= 1

    await all_of(range(10), work, most=3)
    assert most == 3


async def test_a_failure_ends_the_others_and_is_no_group() -> None:
    async def work(number: int) -> None:
        if number == 1:
            raise Unreachable("gone")
        await trio.sleep_forever()

    with pytest.raises(Unreachable, match="gone"):
        await all_of(range(5), work, most=3)


class Bodies:
    """Bodies of three pieces; `opened` is which were begun."""

    def __init__(self, broken: str = "") -> None:
        self.opened: list[str] = []
        self.ended: list[str] = []
        self._broken = broken

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self.opened.append(name)
        try:
            async with aclosing(self._pieces(name)) as pieces:
                yield pieces
        finally:
            self.ended.append(name)

    async def _pieces(self, name: str) -> AsyncGenerator[bytes, None]:
        for number in range(3):
            if name == self._broken and number == 2:
                raise Unreachable(f"{name} broke off")
            yield f"{name}{number}".encode()


async def _taken(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def test_bodies_come_in_order_and_the_next_ones_meanwhile() -> None:
    bodies = Bodies()
    async with opened_ahead("abcd", bodies.open, most=2) as ahead:
        first = await anext(ahead)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(bodies.opened) == ["a", "b"]
        assert await _taken(first) == b"a0a1a2"
        assert [await _taken(each) async for each in ahead] == [b"b0b1b2", b"c0c1c2", b"d0d1d2"]
    assert sorted(bodies.ended) == ["a", "b", "c", "d"]


async def test_a_body_that_breaks_off_says_so_to_its_reader_only() -> None:
    bodies = Bodies(broken="b")
    async with opened_ahead("abc", bodies.open, most=3) as ahead:
        assert await _taken(await anext(ahead)) == b"a0a1a2"
        with pytest.raises(Unreachable, match="b broke off"):
            await _taken(await anext(ahead))
        assert await _taken(await anext(ahead)) == b"c0c1c2"


async def test_leaving_early_ends_what_is_under_way_and_an_error_comes_out_bare() -> None:
    bodies = Bodies()

    async def leave() -> None:
        async with opened_ahead("abcd", bodies.open, most=2) as ahead:
            await anext(ahead)
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError("of the reader")

    with pytest.raises(KeyError):
        await leave()
    assert sorted(bodies.opened) == sorted(bodies.ended)
