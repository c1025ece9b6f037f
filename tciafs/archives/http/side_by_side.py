"""Many small bodies side by side, in the order in which they are wanted: threads, each with a connection.

Of a small body what costs is everything around it: client, request, answer and a change of threads took 2 ms
of processor time for half a millisecond of work. Here a thread asks for one body after the other and hands
on what comes. It takes a plain good answer and nothing else: where anything is otherwise (an error, a
redirect, another object, a line that breaks off), that body, or what is missing of it, is asked for in the
careful way, which knows what to make of it. Defined here and only here: that rule, and how far ahead of its
reader is read.
"""

import http.client
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
import trio

from tciafs.archives.http.asking import Span
from tciafs.archives.http.bulk import Lent
from tciafs.archives.http.pace import Pace
from tciafs.errors import TciafsError, Unreachable, UnreadableAnswer

__all__ = ["Careful", "Lend", "Wanted", "side_by_side"]

AHEAD_BYTES = 16 << 20
"""How much may be on its way or lie in memory behind what is being read, and one body at least."""

READ_BYTES = 256 << 10
WORTHWHILE_BYTES = 256 << 10
PATIENCE_S = 0.1
"""Who waits for a body is woken for so many bytes, for its end, or after so long."""

LEAVING_S = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A part of a body, or all of it, that has `size_bytes`."""

    path: str
    span: Span
    size_bytes: int


Careful = Callable[[Wanted, Span], Awaitable[bytes]]
"""Returns a span of what is wanted, with retries. Raises TciafsError."""

Lend = Callable[[Callable[[Lent], bool], trio.CapacityLimiter], Awaitable[None]]
"""Has blocking work done with a connection, which is kept if the work returns True."""


@asynccontextmanager
async def side_by_side(
    wanted: Sequence[Wanted], lend: Lend | None, careful: Careful, *, stall_timeout_s: float, most: int
) -> AsyncIterator[AsyncIterator[AsyncIterator[bytes]]]:
    """Yield the chunks of each body, in their order, while the next ones come in, `most` at once.

    Where nothing is to be lent (None) all come in the careful way. What a body failed with is raised where
    its chunks are read, also that it has another size. What an error in the block was is raised bare.
    """
    failure: Exception | None = None
    bodies = _Bodies(wanted, lend, careful, stall_timeout_s, most)
    async with trio.open_nursery() as nursery:
        for _ in range(min(most, len(wanted))):
            nursery.start_soon(bodies.bring)
        try:
            yield bodies
        except Exception as error:  # raised below, outside the nursery, which would put it into a group
            failure = error
        finally:
            bodies.close()
        # Who has read all of it has nothing to end: connections are on their way back to be kept.
        nursery.cancel_scope.deadline = trio.current_time() + (LEAVING_S if bodies.are_over else 0)
    if failure is not None:
        raise failure


@dataclass(slots=True, eq=False)
class _Body:
    """One that is wanted: the pieces that wait for its reader, and how many bytes have come in all."""

    wanted: Wanted
    pieces: list[bytes] = field(default_factory=list)
    waiting_bytes: int = 0
    received_bytes: int = 0
    is_over: bool = False
    failure: TciafsError | None = None
    woken_at: float = 0.0


class _Bodies(AsyncIterator[AsyncIterator[bytes]]):
    """The chunks of the bodies one after the other; an iterator, so that leaving early is harmless."""

    def __init__(
        self,
        wanted: Sequence[Wanted],
        lend: Lend | None,
        careful: Careful,
        stall_timeout_s: float,
        most: int,
    ) -> None:
        self._bodies = list(map(_Body, wanted))
        self._lend = lend
        self._careful = careful
        self._stall_timeout_s = stall_timeout_s
        self._limiter = trio.CapacityLimiter(most)
        self._loop = trio.lowlevel.current_trio_token()
        self._changing = threading.Condition()
        self._begun = self._given = 0
        self._ahead_bytes = 0
        self._closed = False
        self._awaited: tuple[_Body, trio.Event] | None = None

    # -- the side of whoever reads ----------------------------------------------------------------

    async def __anext__(self) -> AsyncIterator[bytes]:
        with self._changing:
            if self._given:
                self._let_go(self._given - 1)
            if self._given == len(self._bodies):
                raise StopAsyncIteration
            self._given += 1
            self._changing.notify_all()
        return _Chunks(self, self._bodies[self._given - 1])

    def _let_go(self, place: int) -> None:
        """Forget a body that was read; whether to its end or not, it takes no room any more."""
        self._ahead_bytes -= self._bodies[place].wanted.size_bytes if place < self._begun else 0
        self._bodies[place].pieces.clear()

    async def next_of(self, body: _Body) -> bytes:
        """Return what has come of a body. Raises StopAsyncIteration at its end, or what it failed with."""
        while True:
            with self._changing:
                if body.pieces:
                    pieces, body.pieces, body.waiting_bytes = body.pieces, [], 0
                    return b"".join(pieces)
                if body.failure is not None:
                    raise body.failure
                if body.is_over:
                    raise StopAsyncIteration
                event = trio.Event()
                self._awaited = body, event
                body.woken_at = time.monotonic()
            await event.wait()

    @property
    def are_over(self) -> bool:
        """Whether nothing is under way any more."""
        return all(body.is_over for body in self._bodies)

    def close(self) -> None:
        """Let nothing more be begun."""
        with self._changing:
            self._closed = True
            self._changing.notify_all()

    # -- the side of whoever brings ---------------------------------------------------------------

    async def bring(self) -> None:
        """Bring one body after the other until all are begun: by a connection as long as that does."""
        goes_on = self._lend is not None
        while not self._all_begun:
            if goes_on:
                left, goes_on = await self._bring_by_line()
            else:
                take = self._take
                left = await trio.to_thread.run_sync(take, abandon_on_cancel=True, limiter=self._limiter)
            if left is not None:
                await self._bring_carefully(left)

    async def _bring_by_line(self) -> tuple[_Body | None, bool]:
        """Return the body that did not come, if one did not, and whether another connection may do better."""
        assert self._lend is not None
        left: list[_Body] = []
        whole = 0

        def work(lent: Lent) -> bool:
            nonlocal whole
            while (body := self._take()) is not None:
                may_be_kept = self._read(lent, body)
                if not body.is_over:
                    left.append(body)
                    return False
                whole += 1
                if not may_be_kept:
                    return False
            return True

        with suppress(httpx.TransportError, TciafsError):  # the careful way says what is wrong
            await self._lend(work, self._limiter)
        return (left[0] if left else None), whole > 0

    async def _bring_carefully(self, body: _Body) -> None:
        wanted, received_bytes = body.wanted, body.received_bytes
        try:
            if received_bytes and wanted.span.etag is None:
                raise Unreachable("a connection broke off, and what comes next may be of another object")
            missing_bytes = wanted.size_bytes - received_bytes
            data = await self._careful(wanted, wanted.span.behind(received_bytes)) if missing_bytes else b""
            if len(data) != missing_bytes:
                raise UnreadableAnswer("an object has another size than its bucket lists")
        except TciafsError as error:
            body.failure = error
        else:
            self._offer(body, data)
        self._end(body)

    @property
    def _all_begun(self) -> bool:
        return self._closed or self._begun == len(self._bodies)

    def _take(self) -> _Body | None:
        """Return the next body to bring once its turn has come, None where there is none. Blocks."""
        with self._changing:
            self._changing.wait_for(lambda: self._all_begun or self._has_room)
            if self._all_begun:
                return None
            body = self._bodies[self._begun]
            self._begun += 1
            self._ahead_bytes += body.wanted.size_bytes
            return body

    @property
    def _has_room(self) -> bool:
        next_bytes = self._bodies[self._begun].wanted.size_bytes
        return self._begun <= self._given or self._ahead_bytes + next_bytes <= AHEAD_BYTES

    def _read(self, lent: Lent, body: _Body) -> bool:
        """Read a body; return whether the connection is good for another. One that did not come is not over.

        Blocks.
        """
        wanted = body.wanted
        if not wanted.size_bytes:
            self._end(body)
            return True
        try:
            answer = lent.get(wanted.path, wanted.span.headers)
            is_plain = answer.length == wanted.size_bytes and "Content-Encoding" not in answer.headers
            if not is_plain or not wanted.span.is_all_of(answer.status, answer.headers):
                return False
            self._read_all(answer, body)
            answer.close()  # before that, http.client asks for nothing else
        except (OSError, http.client.HTTPException):
            return False
        if body.received_bytes == wanted.size_bytes:
            self._end(body)
        return not answer.will_close

    def _read_all(self, answer: http.client.HTTPResponse, body: _Body) -> None:
        pace, begun = Pace(self._stall_timeout_s), time.monotonic()
        while (piece := answer.read1(READ_BYTES)) and not self._closed:
            self._offer(body, piece)
            now = time.monotonic()
            if pace.is_dead(len(piece), now - begun):
                return
            begun = now

    def _offer(self, body: _Body, piece: bytes) -> None:
        with self._changing:
            body.pieces.append(piece)
            body.waiting_bytes += len(piece)
            body.received_bytes += len(piece)
            if body.waiting_bytes >= WORTHWHILE_BYTES or time.monotonic() - body.woken_at > PATIENCE_S:
                self._wake(body)

    def _end(self, body: _Body) -> None:
        with self._changing:
            body.is_over = True
            self._wake(body)

    def _wake(self, body: _Body) -> None:
        if self._awaited is not None and self._awaited[0] is body:
            _, event = self._awaited
            self._awaited = None
            with suppress(trio.RunFinishedError):  # nobody is left to be woken
                self._loop.run_sync_soon(event.set)


class _Chunks(AsyncIterator[bytes]):
    """The chunks of one body."""

    def __init__(self, bodies: _Bodies, body: _Body) -> None:
        self._bodies = bodies
        self._body = body

    async def __anext__(self) -> bytes:
        return await self._bodies.next_of(self._body)
