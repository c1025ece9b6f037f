"""Rows into the JSON that NBIA answers, in pieces where there are many.

Defined here and only here: that nothing found is an empty body, and how many rows are made before
others get their turn. No more than one piece of an answer in memory.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice

import msgspec
import trio
from starlette.responses import Response, StreamingResponse

from tciafs.sample.rows import Row

__all__ = ["listing"]

ROWS_PER_PIECE = 500
JSON = "application/json"


def listing(rows: Iterable[Row]) -> Response:
    """Return the answer; what the first rows raise is raised here, before anything is sent."""
    waiting = iter(rows)
    first = list(islice(waiting, ROWS_PER_PIECE))
    if len(first) < ROWS_PER_PIECE:
        return Response(msgspec.json.encode(first) if first else b"", media_type=JSON)
    return StreamingResponse(_pieces(first, waiting), media_type=JSON)


async def _pieces(first: list[Row], waiting: Iterator[Row]) -> AsyncIterator[bytes]:
    yield b"[" + _inside(first)
    while batch := list(islice(waiting, ROWS_PER_PIECE)):
        await trio.lowlevel.checkpoint()
        yield b"," + _inside(batch)
    yield b"]"


def _inside(rows: list[Row]) -> bytes:
    return msgspec.json.encode(rows)[1:-1]
