"""Many small requests side by side, and some large ones ahead of who reads them one after the other.

Defined here and only here: how many at once, and that a failure comes out as it is and not in a group. Each
helper owns its nursery and has ended all it began when it is left.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import trio

from tciafs.errors import TciafsError

__all__ = ["Opener", "all_of", "opened_ahead"]

Item = TypeVar("Item")
Result = TypeVar("Result")

PIECES_AHEAD = 64
"""How many pieces, of 64 KiB mostly, wait of each that is opened ahead."""

Opener = Callable[[Item], AbstractAsyncContextManager[AsyncIterator[bytes]]]


async def all_of(
    items: Sequence[Item], work: Callable[[Item], Awaitable[Result]], *, most: int
) -> list[Result]:
    """Return what `work` returns for each item, in their order, `most` of them at once.

    The first TciafsError ends the others, and is raised.
    """
    results: dict[int, Result] = {}
    failures: list[TciafsError] = []
    places = iter(range(len(items)))

    async def work_on(nursery: trio.Nursery) -> None:
        for place in places:
            try:
                results[place] = await work(items[place])
            except TciafsError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(min(most, len(items))):
            nursery.start_soon(work_on, nursery)
    if failures:
        raise failures[0].with_traceback(None)
    return [results[place] for place in range(len(items))]


@asynccontextmanager
async def opened_ahead(
    items: Sequence[Item], opener: "Opener[Item]", *, most: int
) -> AsyncIterator[AsyncIterator[AsyncIterator[bytes]]]:
    """Yield the chunks of each item, in their order, while those of the next ones come in, `most` at once.

    What an item failed with is raised where its chunks are read. What an error in the block was is raised
    bare.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield _Ahead(nursery, items, opener, most)
        except Exception as error:  # raised below, outside the nursery, which would put it into a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Ahead(AsyncIterator[AsyncIterator[bytes]]):
    """The chunks of the items one after the other; an iterator, so that leaving early is harmless."""

    def __init__(
        self, nursery: trio.Nursery, items: Sequence[Item], opener: "Opener[Item]", most: int
    ) -> None:
        self._nursery = nursery
        self._openings = map(opener, items)
        self._coming: list[_Coming] = []
        self._most = most

    async def __anext__(self) -> AsyncIterator[bytes]:
        while len(self._coming) < self._most and (opening := next(self._openings, None)) is not None:
            self._coming.append(_Coming.begun(self._nursery, opening))
        if not self._coming:
            raise StopAsyncIteration
        return self._coming.pop(0)


class _Coming(AsyncIterator[bytes]):
    """The chunks of one item, as a task of its own brings them."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](PIECES_AHEAD)
        self._failure: TciafsError | None = None

    @classmethod
    def begun(
        cls, nursery: trio.Nursery, opening: AbstractAsyncContextManager[AsyncIterator[bytes]]
    ) -> "_Coming":
        """Return the chunks that are coming in from now on."""
        coming = cls()
        nursery.start_soon(coming._bring, opening)
        return coming

    async def _bring(self, opening: AbstractAsyncContextManager[AsyncIterator[bytes]]) -> None:
        with self._send:
            try:
                async with opening as chunks:
                    async for chunk in chunks:
                        await self._send.send(chunk)
            except TciafsError as error:
                self._failure = error

    async def __anext__(self) -> bytes:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._failure is not None:
                raise self._failure from None
            raise StopAsyncIteration from None
