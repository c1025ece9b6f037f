"""The transport for large bodies, against real sockets: what it delivers, keeps and refuses."""

import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tciafs.archives.http.asking import AT_ONCE
from tciafs.archives.http.bulk import AT_ONCE_BYTES, BUFFER_BYTES, READ_BYTES, BulkTransport, _Body
from tciafs.archives.http.client import HttpClient
from tciafs.archives.http.limits import HttpLimits
from tciafs.errors import Unreachable

Handler = Callable[[trio.abc.Stream, bytes], "object"]
HEAD = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Answers on loopback; `answers` by path, `connections` counts, `requests` are whole heads."""

    def __init__(self, answers: dict[str, bytes] | None = None) -> None:
        self.answers = answers or {}
        self.connections = 0
        self.requests: list[bytes] = []
        self.closes = False
        self.go_on = trio.Event()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answer until the client goes away; what stands behind a HOLD is sent when told to go on."""
        self.connections += 1
        while request := await stream.receive_some():
            self.requests.append(bytes(request))
            before, _, behind = self.answers[request.split()[1].decode()].partition(HOLD)
            await stream.send_all(before)
            if behind:
                await self.go_on.wait()
                await stream.send_all(behind)
            if self.closes:
                return


HOLD = b"<hold>"


def chunked(*pieces: bytes) -> bytes:
    sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + sent + b"0\r\n\r\n"


def of_length(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


@asynccontextmanager
async def listening(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async def serve(stream: trio.SocketStream) -> None:
        try:
            if tls is None:
                await server.serve(stream)
            else:
                await server.serve(trio.SSLStream(stream, tls, server_side=True, https_compatible=True))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def bulk_client(**timeouts: float) -> AsyncIterator[httpx.AsyncClient]:
    timeout = httpx.Timeout(5.0, **timeouts)
    async with httpx.AsyncClient(transport=BulkTransport(), timeout=timeout, trust_env=False) as client:
        yield client


async def eventually(is_so: Callable[[], bool]) -> None:
    """Return once something is so; the test's own timeout bounds it."""
    while not is_so():  # a thread changes it, and tells nobody
        await trio.lowlevel.checkpoint()


async def body_of(client: httpx.AsyncClient, url: str) -> bytes:
    async with client.stream("GET", url) as response:
        return b"".join([piece async for piece in response.aiter_raw()])


# What arrives


@given(st.lists(st.binary(max_size=300), max_size=20), st.sampled_from(["chunked", "length", "to the end"]))
async def test_a_body_is_what_was_sent_however_it_was_framed(pieces: list[bytes], framing: str) -> None:
    body = b"".join(pieces)
    sent = {"chunked": chunked(*pieces), "length": of_length(body), "to the end": HEAD + b"\r\n" + body}
    server = Server({"/": sent[framing]})
    server.closes = framing == "to the end"
    async with listening(server) as url, bulk_client() as client:
        assert await body_of(client, url + "/") == body


async def test_the_request_is_the_one_that_was_made() -> None:
    server = Server({"/series?a=1&b=%20": of_length(b"")})
    async with listening(server) as url, bulk_client() as client:
        await body_of(client, url + "/series?a=1&b=%20")
    (request,) = server.requests
    lines = request.split(b"\r\n")
    assert lines[0] == b"GET /series?a=1&b=%20 HTTP/1.1"
    assert sum(line.lower().startswith(b"host:") for line in lines) == 1
    assert sum(line.lower().startswith(b"accept-encoding:") for line in lines) == 1


async def test_status_and_headers_are_those_of_the_answer() -> None:
    said = b"HTTP/1.1 503 Come Back Later\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy"
    async with listening(Server({"/": said})) as url, bulk_client() as client:
        response = await client.get(url + "/")
    assert (response.status_code, response.reason_phrase) == (503, "Come Back Later")
    assert (response.headers["retry-after"], response.text) == ("7", "busy")


async def test_what_has_come_is_delivered_while_the_server_holds_the_rest() -> None:
    whole = chunked(b"first", b"second")
    server = Server({"/": whole.replace(b"6\r\nsecond", HOLD + b"6\r\nsecond")})
    async with (
        listening(server) as url,
        bulk_client() as client,
        client.stream("GET", url + "/") as response,
    ):
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"first"
        server.go_on.set()
        assert [piece async for piece in pieces] == [b"second"]


async def test_a_server_that_is_faster_than_its_reader_has_to_wait() -> None:
    server = Server({"/": of_length(bytes(4 * BUFFER_BYTES))})
    async with (
        listening(server) as url,
        bulk_client() as client,
        client.stream("GET", url + "/") as response,
    ):
        pieces = response.aiter_raw()
        total_bytes = len(await anext(pieces))
        ahead = response.stream._stream  # type: ignore[union-attr]  # httpx wraps what the transport gave
        await eventually(lambda: ahead._waiting_bytes >= BUFFER_BYTES)
        async for piece in pieces:
            assert len(piece) < BUFFER_BYTES + READ_BYTES
            total_bytes += len(piece)
    assert total_bytes == 4 * BUFFER_BYTES


# What ends badly


@pytest.mark.parametrize("whole", [chunked(b"body"), of_length(b"body")], ids=["chunked", "of known length"])
async def test_a_body_that_ends_too_early_is_an_error_behind_what_came(whole: bytes) -> None:
    end = whole.index(b"body")
    server = Server({"/": whole[: end + 2]})
    server.closes = True
    async with (
        listening(server) as url,
        bulk_client() as client,
        client.stream("GET", url + "/") as response,
    ):
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"bo"
        with pytest.raises(httpx.RemoteProtocolError, match="too early"):
            await anext(pieces)


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
async def test_what_is_no_http_is_an_error_of_the_server(said: bytes) -> None:
    server = Server({"/": said})
    server.closes = True
    async with listening(server) as url, bulk_client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await body_of(client, url + "/")


@pytest.mark.parametrize("before", [b"", of_length(b"body")[:-2]], ids=["silent", "silent in its body"])
async def test_a_server_that_falls_silent_meets_the_deadline_of_the_request(before: bytes) -> None:
    server = Server({"/": before + HOLD + b"never"})
    async with listening(server) as url, bulk_client(read=0.05) as client:
        with pytest.raises(httpx.ReadTimeout):
            await body_of(client, url + "/")


async def test_where_nobody_listens_there_is_no_connection() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        async with bulk_client() as client:
            with pytest.raises(httpx.ConnectError):
                await body_of(client, f"http://127.0.0.1:{unused.getsockname()[1]}/")


# Connections


async def test_a_connection_serves_the_next_request_too() -> None:
    server = Server({"/": chunked(b"one"), "/two": of_length(b"two")})
    async with listening(server) as url, bulk_client() as client:
        assert await body_of(client, url + "/") == b"one"
        assert await body_of(client, url + "/two") == b"two"
        assert server.connections == 1


async def test_as_many_connections_are_kept_as_were_used_side_by_side() -> None:
    server = Server({"/": HOLD + of_length(b"one")})
    async with listening(server) as url, bulk_client() as client:
        for turn in range(3):
            server.requests, server.go_on = [], trio.Event()
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(body_of, client, url + "/")
                await eventually(lambda: len(server.requests) == 3)
                server.go_on.set()
            assert server.connections == 3, turn


async def whole(client: httpx.AsyncClient, url: str) -> bytes:
    response = await client.get(url, extensions={AT_ONCE: True})
    return response.content


@pytest.mark.parametrize("size_bytes", [0, 1, 300_000, AT_ONCE_BYTES + 1])
async def test_a_body_that_is_asked_for_at_once_is_the_same(size_bytes: int) -> None:
    server = Server({"/": of_length(b"x" * size_bytes), "/chunks": chunked(b"in", b"pieces")})
    async with listening(server) as url, bulk_client() as client:
        assert await whole(client, url + "/") == b"x" * size_bytes
        assert await whole(client, url + "/chunks") == b"inpieces"
    assert server.connections == 1


async def test_a_body_that_is_asked_for_at_once_and_ends_too_early_is_an_error() -> None:
    server = Server({"/": HEAD + b"Content-Length: 9\r\n\r\nshort"})
    server.closes = True
    async with listening(server) as url, bulk_client() as client:
        with pytest.raises(httpx.RemoteProtocolError, match="too early"):
            await whole(client, url + "/")


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again() -> None:
    server = Server({"/": of_length(b"one")})
    server.closes = True
    async with listening(server) as url, bulk_client() as client:
        assert await body_of(client, url + "/") == b"one"
        await trio.testing.wait_all_tasks_blocked()
        assert await body_of(client, url + "/") == b"one"
    assert server.connections == 2


async def test_a_connection_whose_answer_was_left_early_is_not_used_again() -> None:
    server = Server({"/": of_length(b"body" * BUFFER_BYTES), "/two": of_length(b"two")})
    async with listening(server) as url:
        archive = HttpClient(url, HttpLimits(), retries=0)
        async with archive.stream("", {}) as pieces:
            assert await anext(aiter(pieces))
        async with archive.stream("two", {}) as pieces:
            assert [piece async for piece in pieces] == [b"two"]
        await archive.aclose()
    assert server.connections == 2


async def test_who_is_cancelled_while_the_server_is_silent_leaves_at_once() -> None:
    server = Server({"/": HOLD + b"never"})
    async with listening(server) as url, bulk_client() as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(body_of, client, url + "/")
                await eventually(lambda: bool(server.requests))
                scope.cancel()
        assert scope.cancelled_caught


# Trust, and proxies: in HttpClient, as users have it


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_of(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def streamed(url: str, path: str = "image") -> bytes:
    archive = HttpClient(url, HttpLimits(), retries=0)
    try:
        async with archive.stream(path, {}) as pieces:
            return b"".join([piece async for piece in pieces])
    finally:
        await archive.aclose()


async def test_a_server_with_a_certificate_that_is_trusted_is_read_from(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    body = bytes(range(256)) * 4096
    async with listening(Server({"/image": chunked(body)}), tls_of(authority, "127.0.0.1")) as url:
        assert await streamed(url) == body


@pytest.mark.parametrize("trusted", [False, True], ids=["of an unknown authority", "of another name"])
async def test_a_server_that_is_not_who_it_should_be_gets_no_request(
    trusted: bool, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    server = Server({"/image": of_length(b"body")})
    async with listening(server, tls_of(authority, "other.example" if trusted else "127.0.0.1")) as url:
        with pytest.raises(Unreachable, match=r"certificate of 127.0.0.1:\d+ is not trusted") as raised:
            await streamed(url)
    assert not raised.value.retryable
    assert not server.requests


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
async def test_a_proxy_in_the_environment_is_asked(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://archive.example/image"
    proxy = Server({address: of_length(b"through the proxy")})
    async with listening(proxy) as url:
        monkeypatch.setenv(variable, url)
        assert await streamed("http://archive.example") == b"through the proxy"


async def test_a_host_that_needs_no_proxy_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(Server({"/image": of_length(b"itself")})) as url:
        monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await streamed(url) == b"itself"


async def test_a_redirect_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"
    async with listening(Server({"/image": elsewhere, "/there": chunked(b"there")})) as url:
        assert await streamed(url) == b"there"


async def test_a_piece_that_comes_just_before_it_is_waited_for_is_taken() -> None:
    body = _Body(cast(Any, None), cast(Any, None), lambda: None)

    class Hurried(threading.Condition):
        """Lets a piece come at the moment in which whoever takes them has let go of the lock."""

        def __exit__(self, *error: Any) -> None:
            super().__exit__(*error)
            if body._awaited is not None:
                body._pieces, body._waiting_bytes = [b"piece"], 5
                body._wake()

    body._changing = Hurried()
    with trio.fail_after(10):
        assert await body._waited() == 5
