"""Many small bodies side by side, against real sockets: order, doubts, room, and leaving early."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from tciafs.archives.http import side_by_side
from tciafs.archives.http.asking import Span
from tciafs.archives.http.client import HttpClient
from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.http.side_by_side import Wanted
from tciafs.errors import SeriesDamaged, TciafsError, Unreachable, UnreadableAnswer

ETAG = "e7a6"


class Objects:
    """A server of objects by path; `instead` has what is said in the place of an answer, once for each path.

    `asked` are the paths and ranges, `connections` counts; `silent` are paths that nothing is said of.
    """

    def __init__(self, **objects: bytes) -> None:
        self.objects = objects
        self.instead: dict[str, bytes] = {}
        self.silent: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.connections = 0
        self.closes = False

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the client went away
            while request := (await stream.receive_some()).decode():
                path = request.split()[1].strip("/")
                asked = re.search(r"range: bytes=(\d+)-(\d*)", request, re.IGNORECASE)
                assert asked is not None
                self.asked.append((path, f"{asked[1]}-{asked[2]}"))
                if path in self.silent:
                    await trio.sleep_forever()
                said = self.instead.pop(path, None) or self._part(path, int(asked[1]), asked[2])
                await stream.send_all(said)
                if self.closes or b"Connection: close" in said:
                    return

    def _part(self, path: str, first: int, last: str) -> bytes:
        whole = self.objects[path]
        part = whole[first : int(last) + 1 if last else None]
        head = f'Content-Range: bytes {first}-{first + len(part) - 1}/{len(whole)}\r\nETag: "{ETAG}"\r\n'
        return f"HTTP/1.1 206 Partial\r\nContent-Length: {len(part)}\r\n{head}\r\n".encode() + part


class Careful:
    """The careful way: gives what there is in `objects`, and notes what it was asked for."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.asked: list[tuple[str, int]] = []
        self.failure: TciafsError | None = None

    async def __call__(self, wanted: Wanted, span: Span) -> bytes:
        self.asked.append((wanted.path, span.first))
        if self.failure is not None:
            raise self.failure
        last = None if span.size_bytes is None else span.first + span.size_bytes
        return self.objects[wanted.path][span.first : last]


@asynccontextmanager
async def serving(server: Objects, limits: HttpLimits | None = None) -> AsyncIterator[HttpClient]:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        client = HttpClient(url, limits or HttpLimits(connections=32), retries=0)
        yield client
        await client.aclose()
        nursery.cancel_scope.cancel()


def wanted(server: Objects, size_bytes: int | None = None) -> list[Wanted]:
    span = Span(0, size_bytes, ETAG)
    return [Wanted(path, span, len(body[:size_bytes])) for path, body in server.objects.items()]


async def read(
    client: HttpClient, asked: Sequence[Wanted], careful: Careful, *, most: int = 4
) -> dict[str, bytes]:
    bodies = {}
    async with client.fetch_each(asked, careful, most=most) as coming:
        for each in asked:
            bodies[each.path] = b"".join([chunk async for chunk in await anext(coming)])
        with pytest.raises(StopAsyncIteration):
            await anext(coming)
    return bodies


def some(count: int, size_bytes: int = 1000) -> Objects:
    return Objects(**{f"o{number:03}": bytes([number % 256]) * size_bytes for number in range(count)})


async def test_bodies_come_whole_and_in_order_over_few_connections() -> None:
    server = some(40, 300_000)
    careful = Careful({})
    async with serving(server) as client:
        assert await read(client, wanted(server), careful) == server.objects
        assert await read(client, wanted(server, 100), careful) == {
            path: body[:100] for path, body in server.objects.items()
        }
    assert server.connections == 4
    assert careful.asked == []
    assert len(server.asked) == 80


async def test_nothing_wanted_asks_nothing() -> None:
    server = Objects()
    async with serving(server) as client:
        assert await read(client, [], Careful({})) == {}
    assert server.connections == 0


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 503 Slow Down\r\nContent-Length: 4\r\n\r\nbusy",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 301 Elsewhere\r\nLocation: /o001\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"?" * 1000,
        b"HTTP/1.1 206 OK\r\nContent-Length: 1000\r\nContent-Range: bytes 0-999/1000\r\n\r\n" + b"?" * 1000,
        b"HTTP/1.1 206 OK\r\nContent-Length: 9\r\nContent-Range: bytes 0-8/9\r\nETag: e7a6\r\n\r\n"
        + b"?" * 9,
        b"HTTP/1.1 206 OK\r\nContent-Length: 1000\r\nContent-Encoding: gzip\r\n"
        b"Content-Range: bytes 0-999/1000\r\nETag: e7a6\r\n\r\n" + b"?" * 1000,
        b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 0-999/1000\r\n"
        b"ETag: e7a6\r\n\r\n3e8\r\n" + b"?" * 1000 + b"\r\n0\r\n\r\n",
        b"no HTTP at all\r\n\r\n",
    ],
)
async def test_what_is_not_plainly_good_is_asked_for_with_care(said: bytes) -> None:
    server, careful = some(12), Careful(some(12).objects)
    server.instead["o005"] = said
    async with serving(server) as client:
        # One line, as one that has brought nothing yet is not followed by another.
        assert await read(client, wanted(server), careful, most=1) == server.objects
    assert careful.asked == [("o005", 0)]


async def test_of_a_body_that_broke_off_only_the_rest_is_asked_for() -> None:
    server, careful = some(12), Careful(some(12).objects)
    whole = server._part("o005", 0, "")
    server.instead["o005"] = whole.replace(b"206 Partial\r\n", b"206 OK\r\nConnection: close\r\n")[:-400]
    async with serving(server) as client:
        # One line, as one that has brought nothing yet is not followed by another.
        assert await read(client, wanted(server), careful, most=1) == server.objects
    assert careful.asked == [("o005", 600)]


async def test_what_is_without_a_name_of_its_bytes_is_not_put_together() -> None:
    server, careful = some(1), Careful(some(1).objects)
    whole = server._part("o000", 0, "")
    server.instead["o000"] = whole.replace(b"206 Partial\r\n", b"206 OK\r\nConnection: close\r\n")[:-400]
    async with serving(server) as client:
        with pytest.raises(Unreachable, match="broke off"):
            await read(client, [Wanted("o000", Span(0), 1000)], careful)
    assert careful.asked == []


async def test_a_server_that_closes_each_connection_is_connected_to_again() -> None:
    server, careful = some(12), Careful({})
    for path in server.objects:
        part = server._part(path, 0, "")
        server.instead[path] = part.replace(b"206 Partial\r\n", b"206 OK\r\nConnection: close\r\n")
    async with serving(server) as client:
        assert await read(client, wanted(server), careful, most=2) == server.objects
    assert careful.asked == []
    assert server.connections >= 12


async def test_where_nobody_listens_all_comes_with_care() -> None:
    server, careful = some(5), Careful(some(5).objects)
    client = HttpClient("http://127.0.0.1:9", HttpLimits(), retries=0)
    assert await read(client, wanted(server), careful) == server.objects
    assert len(careful.asked) == 5
    await client.aclose()


async def test_through_a_proxy_all_comes_with_care(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server, careful = some(5), Careful(some(5).objects)
    async with serving(server) as client:
        assert await read(client, wanted(server), careful) == server.objects
    assert len(careful.asked) == 5
    assert server.connections == 0


async def test_a_failure_is_raised_where_its_body_is_read() -> None:
    server, careful = some(3), Careful({})
    careful.failure = SeriesDamaged("another object")
    server.instead["o001"] = b"HTTP/1.1 412 Changed\r\nContent-Length: 0\r\n\r\n"
    async with serving(server) as client, client.fetch_each(wanted(server), careful, most=1) as coming:
        assert [chunk async for chunk in await anext(coming)] == [server.objects["o000"]]
        with pytest.raises(SeriesDamaged, match="another object"):
            await anext(await anext(coming))
        assert [chunk async for chunk in await anext(coming)] == [server.objects["o002"]]


async def test_a_body_of_another_size_is_unreadable() -> None:
    server = some(1)
    async with serving(server) as client:
        with pytest.raises(UnreadableAnswer, match="another size"):
            await read(client, [Wanted("o000", Span(0, None, ETAG), 999)], Careful(server.objects))


async def test_no_more_is_read_ahead_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "AHEAD_BYTES", 3000)
    server = some(20)
    async with serving(server) as client, client.fetch_each(wanted(server), Careful({}), most=8) as coming:
        for place in range(20):
            chunks = await anext(coming)
            assert b"".join([chunk async for chunk in chunks]) == server.objects[f"o{place:03}"]
            assert len(server.asked) <= place + 1 + 3


async def test_one_that_is_larger_than_the_room_comes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "AHEAD_BYTES", 10)
    server = some(9)
    async with serving(server) as client:
        assert await read(client, wanted(server), Careful({})) == server.objects


async def test_bodies_may_be_left_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "AHEAD_BYTES", 1500)
    server = some(6)
    async with serving(server) as client, client.fetch_each(wanted(server), Careful({}), most=2) as coming:
        for _ in range(5):
            await anext(coming)
        assert [chunk async for chunk in await anext(coming)] == [server.objects["o005"]]


async def test_an_error_in_the_block_comes_out_bare_and_ends_what_is_under_way() -> None:
    server = some(4)
    server.silent = {"o001"}
    async with serving(server) as client:
        with pytest.raises(Unreachable, match="mine"):
            await _read_one_and_fail(client, wanted(server))
        assert client._free_connections.value == 32


async def _read_one_and_fail(client: HttpClient, asked: Sequence[Wanted]) -> None:
    async with client.fetch_each(asked, Careful({}), most=4) as coming:
        await anext(coming)
        raise Unreachable("mine")


async def test_who_is_cancelled_while_the_server_is_silent_leaves_at_once() -> None:
    server = some(4)
    server.silent = set(server.objects)
    async with serving(server) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, client, wanted(server), Careful({}))
            while len(server.asked) < 4:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert client._free_connections.value == 32


async def test_a_server_that_falls_silent_is_left_for_the_careful_way() -> None:
    server, careful = some(3), Careful(some(3).objects)
    server.silent = {"o001"}
    async with serving(server, HttpLimits(stall_timeout_s=0.05)) as client:
        assert await read(client, wanted(server), careful, most=1) == server.objects
    assert ("o001", 0) in careful.asked
