"""Who takes the body of an answer, piece by piece, and how one leaves it before its end. No I/O."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol, TypeVar

import trio

from tciafs.errors import TciafsError

__all__ = ["Reader", "RowReader", "unwound"]

T_co = TypeVar("T_co", covariant=True)
Piece = TypeVar("Piece")


class Reader(Protocol[T_co]):
    """Takes one body in pieces of at most 64 KiB; raises UnreadableAnswer for what it cannot read."""

    def feed(self, piece: bytes, /) -> None:
        """Take the next piece."""
        ...

    def finish(self) -> T_co:
        """Return what was read, once the body has come to its end; no pieces are an empty body."""
        ...


class RowReader(Protocol[T_co]):
    """As a Reader, but gives what it has read with each piece: rows that are complete."""

    def feed(self, piece: bytes, /) -> Sequence[T_co]:
        """Return the rows that are complete with this piece."""
        ...

    def finish(self) -> Sequence[T_co]:
        """Return the rows that are left, once the body has come to its end."""
        ...


@asynccontextmanager
async def unwound(
    chunks: AsyncGenerator[Piece, None],
) -> AsyncIterator[AsyncGenerator[Piece, None]]:
    """Give out `chunks`, and end it for certain when the caller leaves before its end.

    httpx nests async generators. Closing the outermost leaves the inner ones to the garbage
    collector, which trio reports as a mistake; a cancelled read passes through all of them, and
    httpcore closes the connection on the way.
    """
    try:
        yield chunks
    finally:
        with trio.CancelScope() as scope, suppress(TciafsError):
            scope.cancel()
            async for _ in chunks:
                pass
