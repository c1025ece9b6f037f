"""A transport for httpx that carries bodies with little work: a thread reads each of them.

httpx takes a body apart in Python, piece by piece, which costs more than to inflate it. Here http.client
does, ahead of whoever takes the pieces and beside them: inflating lets go of the interpreter, and so does
decrypting. What has come and is not taken is at most BUFFER_BYTES; then the thread, and with it the server,
waits. A body that is asked for AT_ONCE, and says that it is small, comes with its headers in one go.
Connections, their encryption and their errors are as httpx has them, deadlines are those of the request.
Defined here and only here: how a large body is read. Knows nothing of archives.
"""

import http.client
import io
import select
import socket
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar, cast

import httpx
import trio

from tciafs.archives.http.asking import AT_ONCE, tls

__all__ = ["BulkTransport", "Lent"]

AT_ONCE_BYTES = 4 << 20
"""What is longer comes in pieces, so that it never lies in memory twice."""

BUFFER_BYTES = 1 << 20
READ_BYTES = 64 << 10
WORTHWHILE_BYTES = 64 << 10
GATHERING_S = 0.002
"""A slow line gives a few kilobytes at a time; to be woken for each costs more than what they bring."""

IDLE_S = 5.0
"""How long a connection is kept for the next request, as httpx keeps its own."""

MOST_IDLE = 32
"""To one server: as many as are asked side by side."""

Origin: TypeAlias = tuple[str, str, int]
T = TypeVar("T")


class BulkTransport(httpx.AsyncBaseTransport):
    """Sends requests over connections of its own; proxies are not its business (see httpx, mounts).

    Raises what httpx's own transport would. Used from one trio thread.
    """

    def __init__(self) -> None:
        self._idle: defaultdict[Origin, list[tuple[_Line, float]]] = defaultdict(list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer once the headers are in; the body is still to come."""
        wait = _Deadlines(**request.extensions["timeout"])
        origin = _origin(request.url)
        await request.aread()
        line = self._take_idle(origin) or await self._connected(origin, wait)
        try:
            answer, content = await line.let(partial(line.ask, request, wait))
        except (OSError, http.client.HTTPException) as error:
            raise _in_httpx_words(error) from error
        stream: httpx.AsyncByteStream
        if content is None:
            stream = _Body(line, answer, lambda: self._keep(origin, line))
        else:
            stream = httpx.ByteStream(content)
            self._keep(origin, line)
        return httpx.Response(
            answer.status,
            headers=answer.getheaders(),
            stream=stream,
            extensions={"reason_phrase": answer.reason.encode("latin-1", "replace")},
        )

    async def lend(
        self,
        request: httpx.Request,
        work: Callable[["Lent"], bool],
        limiter: trio.CapacityLimiter,
    ) -> None:
        """Have blocking work done in a thread, with a connection to where a request would go.

        It is kept where `work` returns True. Raises what a connection fails with.
        """
        wait, origin = _Deadlines(**request.extensions["timeout"]), _origin(request.url)
        line = self._take_idle(origin) or await self._connected(origin, wait)
        if await line.let(partial(work, Lent(line, request, wait)), limiter):
            self._keep(origin, line)
        else:
            line.cut()

    async def aclose(self) -> None:
        """Close the connections that are kept; those in use belong to their bodies."""
        for lines in self._idle.values():
            for line, _ in lines:
                line.cut()
        self._idle.clear()

    def _take_idle(self, origin: Origin) -> "_Line | None":
        """Return the connection that was kept last, if one still is one."""
        lines = self._idle[origin]
        while lines:
            line, until = lines.pop()
            # What can be read before anything was asked is the end of the connection.
            if trio.current_time() < until and not select.select([line.socket], [], [], 0)[0]:
                return line
            line.cut()
        return None

    def _keep(self, origin: Origin, line: "_Line") -> None:
        lines, now = self._idle[origin], trio.current_time()
        while lines and (len(lines) >= MOST_IDLE or lines[0][1] <= now):
            lines.pop(0)[0].cut()
        lines.append((line, now + IDLE_S))

    async def _connected(self, origin: Origin, wait: "_Deadlines") -> "_Line":
        """Return a new connection to a server, encrypted and verified where it has to be."""
        scheme, host, port = origin
        try:
            with trio.fail_after(wait.connect):
                # trio tries the addresses of a name side by side; then the socket is http.client's.
                stream = await trio.open_tcp_stream(host, port)
        except trio.TooSlowError as error:
            raise httpx.ConnectTimeout("") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        connected = socket.socket(fileno=stream.socket.detach())
        connected.settimeout(wait.connect)
        return _Line(connected) if scheme == "http" else await self._encrypted(connected, host)

    async def _encrypted(self, connected: socket.socket, host: str) -> "_Line":
        secured = tls().wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
        line = _Line(secured)
        try:
            await line.let(secured.do_handshake)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return line


@dataclass(frozen=True, slots=True)
class _Deadlines:
    """How many seconds each step may take, as httpx hands them to a transport."""

    connect: float
    read: float
    write: float
    pool: float


class _Answer(http.client.HTTPResponse):
    """An answer that is read from its line in large pieces."""

    def __init__(self, sock: socket.socket, *args: object, **kwargs: object) -> None:
        super().__init__(sock, *args, **kwargs)  # type: ignore[arg-type]  # handed through
        self.fp.close()
        self.fp = cast(io.BufferedReader, sock.makefile("rb", READ_BYTES))


class _Line:
    """One connection, with http.client at our end of it.

    A thread that uses it while it is cut finds it at its end, and closes it: nobody else may, since the
    number of a closed file can be another's at once.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        host, port = connected.getpeername()[:2]
        self._client = http.client.HTTPConnection(host, port)
        self._client.response_class = _Answer
        self._client.sock = connected
        self._lock = threading.Lock()
        self._users = 0
        self._is_cut = False

    async def let(self, work: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
        """Return what blocking work with this connection returns; it is cut if that fails or is cancelled."""
        try:
            return await trio.to_thread.run_sync(self._using, work, abandon_on_cancel=True, limiter=limiter)
        except BaseException:
            self.cut()
            raise

    def _using(self, work: Callable[[], T]) -> T:
        with self.in_use():
            return work()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Mark a thread's use of the connection."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._close_if_done()

    def ask(self, request: httpx.Request, wait: _Deadlines) -> tuple[http.client.HTTPResponse, bytes | None]:
        """Send a request and return the answer up to its headers, and its body if that comes with them.

        Blocks. Raises OSError, HTTPException.
        """
        answer = self.answer(request, wait)
        comes_at_once = request.extensions.get(AT_ONCE, False) and not answer.will_close
        if not comes_at_once or answer.length is None or answer.length > AT_ONCE_BYTES:
            return answer, None
        return answer, answer.read()

    def answer(
        self,
        request: httpx.Request,
        wait: _Deadlines,
        behind: str = "",
        more: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Send a request, of a path behind its own and with more headers, and return the answer to it.

        Blocks, up to the headers. Raises OSError, HTTPException.
        """
        client = self._client
        self.socket.settimeout(wait.write)
        target = request.url.raw_path.decode("ascii") + behind
        client.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        for name, said in (*request.headers.multi_items(), *(more or {}).items()):
            client.putheader(name, said)
        client.endheaders(request.content or None)
        self.socket.settimeout(wait.read)
        return client.getresponse()

    def cut(self) -> None:
        """Close the connection, also under a thread that reads from it."""
        with self._lock:
            self._is_cut = True
            with suppress(OSError):
                # Not SSLSocket's own, which would let a thread go on without decrypting.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._is_cut and not self._users:
            self._client.close()
            self.socket.close()


@dataclass(frozen=True, slots=True)
class Lent:
    """A connection for a thread, with what all its requests have in common."""

    _line: _Line
    _request: httpx.Request
    _wait: _Deadlines

    def get(self, path: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Return the answer to a path, quoted and behind that of the request, up to its headers.

        Its body has to be read before the next one is asked for. Blocks. Raises OSError, HTTPException.
        """
        return self._line.answer(self._request, self._wait, path, headers)


class _Body(httpx.AsyncByteStream):
    """The body of an answer, read ahead by a thread from the first piece on that is asked for."""

    def __init__(self, line: _Line, answer: http.client.HTTPResponse, keep: Callable[[], None]) -> None:
        self._line = line
        self._answer = answer
        self._keep = keep
        self._changing = threading.Condition()
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._ended = self._closed = False
        self._failure: Exception | None = None
        self._awaited: trio.Event | None = None
        self._loop = trio.lowlevel.current_trio_token()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        threading.Thread(target=self._read, name="body", daemon=True).start()
        while piece := await self._next():
            yield piece

    async def aclose(self) -> None:
        """Let go of the connection; it is kept only if the whole answer was read."""
        with self._changing:
            if self._closed:
                return
            self._closed = True
            self._changing.notify_all()
            is_whole = self._ended and self._failure is None
        if is_whole and not self._answer.will_close:
            self._keep()
        else:
            self._line.cut()

    # -- the side of whoever takes the pieces -----------------------------------------------------

    async def _next(self) -> bytes:
        """Return what has come, b"" at the end."""
        if await self._waited() < WORTHWHILE_BYTES and not self._ended:
            await trio.sleep(GATHERING_S)
        with self._changing:
            pieces, self._pieces, self._waiting_bytes = self._pieces, [], 0
            self._changing.notify_all()
        if not pieces and isinstance(self._failure, OSError | http.client.HTTPException):
            raise _in_httpx_words(self._failure) from self._failure
        if not pieces and self._failure is not None:
            raise self._failure
        return b"".join(pieces)

    async def _waited(self) -> int:
        """Return how many bytes there are to take, once there are any or there will be none."""
        while True:
            with self._changing:
                if self._pieces or self._ended:
                    return self._waiting_bytes
                awaited = self._awaited = trio.Event()
            # Not the attribute, which the thread may have taken away by now.
            await awaited.wait()

    # -- the side of the thread -------------------------------------------------------------------

    def _read(self) -> None:
        failure = None
        try:
            with self._line.in_use():
                self._read_all()
        except Exception as error:
            failure = error
        self._answer.close()
        with self._changing:
            self._ended, self._failure = True, failure
            self._wake()

    def _read_all(self) -> None:
        while (data := self._answer.read1(READ_BYTES)) and self._offer(data):
            pass
        if self._answer.length:
            raise http.client.IncompleteRead(b"", self._answer.length)

    def _offer(self, data: bytes) -> bool:
        """Add a piece, once there is room for it; False where nobody wants any more."""
        with self._changing:
            self._changing.wait_for(lambda: self._closed or self._waiting_bytes < BUFFER_BYTES)
            self._pieces.append(data)
            self._waiting_bytes += len(data)
            self._wake()
            return not self._closed

    def _wake(self) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            with suppress(trio.RunFinishedError):  # nobody is left to be woken
                self._loop.run_sync_soon(awaited.set)


def _origin(url: httpx.URL) -> Origin:
    return url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)


def _in_httpx_words(error: Exception) -> httpx.TransportError:
    """Return what httpx would raise for an error of http.client or of a socket."""
    match error:
        case TimeoutError():
            return httpx.ReadTimeout("")
        case http.client.RemoteDisconnected():
            return httpx.RemoteProtocolError("it closed the connection")
        case http.client.IncompleteRead():
            return httpx.RemoteProtocolError("it ended too early")
        case OSError():
            return httpx.ReadError(str(error))
        case _:
            return httpx.RemoteProtocolError(repr(error))
