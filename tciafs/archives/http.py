"""HTTP as the archives need it: deadlines, retries, bounded bodies, and errors in our own words.

Defined here and only here: `HttpClient` and the translation of httpx's exceptions.
One client may serve many trio tasks at once; each answer belongs to the task that opened it.
Knows nothing of NBIA, of records or of ZIP.
"""

import datetime as dt
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import TypeAlias, TypeVar

import httpx
import stamina
import trio

from tciafs import __version__
from tciafs.archives.http_body import Body
from tciafs.archives.http_limits import HttpLimits, parse_retry_after_s
from tciafs.errors import (
    AccessDenied,
    DeadlinePassed,
    Misuse,
    SlowDown,
    TciafsError,
    Unreachable,
    UnreadableAnswer,
)

__all__ = [
    "USER_AGENT",
    "Bearer",
    "HttpClient",
    "RequestRejected",
    "checked_url",
    "translate",
]

USER_AGENT = f"tciafs/{__version__}"

Bearer: TypeAlias = Callable[[], Awaitable[str | None]]
"""Gives the token for the next request (None: ask as a guest); called for each attempt."""

T = TypeVar("T")

_EXCERPT_SIZE_BYTES = 4096
_EXCERPT_LENGTH = 200
_MAX_REDIRECTS = 5


class RequestRejected(UnreadableAnswer):
    """The server understood, and refused with a status that asking again does not change.

    `text` is the start of what it wrote, one line of printable characters. For the archives, which
    know what a status means to their server and raise the error that says so.
    """

    retryable = False

    def __init__(self, message: str, status: int, text: str) -> None:
        super().__init__(message)
        self.status = status
        self.text = text


_TRANSLATIONS: tuple[tuple[type[Exception], type[TciafsError], str], ...] = (
    (httpx.ConnectTimeout, DeadlinePassed, "{host} could not be connected to in time for {asked}"),
    (httpx.ReadTimeout, DeadlinePassed, "{host} stopped sending during {asked}"),
    (httpx.WriteTimeout, DeadlinePassed, "{host} did not take the request {asked} in time"),
    (httpx.PoolTimeout, DeadlinePassed, "no connection to {host} became free for {asked}"),
    (httpx.TimeoutException, DeadlinePassed, "{host} did not answer {asked} in time"),
    (httpx.ConnectError, Unreachable, "{host} could not be reached for {asked}"),
    (httpx.ReadError, Unreachable, "the connection to {host} broke during {asked}"),
    (httpx.WriteError, Unreachable, "the connection to {host} broke during the request {asked}"),
    (httpx.CloseError, Unreachable, "the connection to {host} could not be closed after {asked}"),
    (httpx.NetworkError, Unreachable, "the connection to {host} failed during {asked}"),
    (httpx.RemoteProtocolError, Unreachable, "{host} broke off its answer to {asked}"),
    (httpx.LocalProtocolError, UnreadableAnswer, "{asked} could not be put to {host} as HTTP"),
    (httpx.ProtocolError, UnreadableAnswer, "{host} did not speak HTTP in answer to {asked}"),
    (httpx.ProxyError, Unreachable, "the proxy did not let {asked} through to {host}"),
    (httpx.UnsupportedProtocol, UnreadableAnswer, "{host} sent {asked} to no web address"),
    (httpx.TransportError, Unreachable, "the line to {host} failed during {asked}"),
    (httpx.DecodingError, UnreadableAnswer, "{host} compressed its answer to {asked} wrongly"),
    (httpx.TooManyRedirects, UnreadableAnswer, "{host} redirects {asked} in circles"),
    (httpx.RequestError, UnreadableAnswer, "the request {asked} to {host} failed"),
    (httpx.HTTPStatusError, UnreadableAnswer, "{host} answered {asked} with an error status"),
    (httpx.HTTPError, UnreadableAnswer, "the request {asked} to {host} failed"),
    (httpx.InvalidURL, UnreadableAnswer, "{host} sent {asked} to an address that is none"),
    (httpx.CookieConflict, UnreadableAnswer, "{host} sent cookies that contradict each other"),
    (httpx.StreamConsumed, UnreadableAnswer, "the answer of {host} to {asked} was read twice"),
    (httpx.StreamClosed, UnreadableAnswer, "the answer of {host} to {asked} was closed early"),
    (httpx.ResponseNotRead, UnreadableAnswer, "the answer of {host} to {asked} was not read"),
    (httpx.RequestNotRead, UnreadableAnswer, "the request {asked} to {host} was not read"),
    (httpx.StreamError, UnreadableAnswer, "the answer of {host} to {asked} could not be read"),
    # A redirect can name a host that no resolver takes; that surfaces as a plain UnicodeError.
    (UnicodeError, UnreadableAnswer, "{host} sent {asked} to a host name that is none"),
)

_FOREIGN = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.CookieConflict,
    httpx.StreamError,
    UnicodeError,
)


def translate(error: Exception, host: str, asked: str) -> TciafsError:
    """Return our error for one of httpx, with a sentence that names the host and what was asked.

    The text of `error` is added only where it comes from the operating system or from httpx itself:
    never an address, which might hold a secret.
    """
    certificate = _certificate_failure(error)
    if certificate is not None:
        untrusted = Unreachable(
            f"the certificate of {host} is not trusted: {certificate.verify_message} "
            "(SSL_CERT_FILE names a file of certificates to trust)"
        )
        untrusted.retryable = False
        return untrusted
    _, ours, sentence = next(row for row in _TRANSLATIONS if isinstance(error, row[0]))
    detail = str(error) if isinstance(error, httpx.NetworkError | httpx.ProtocolError) else ""
    return ours(sentence.format(host=host, asked=asked) + (f": {detail}" if detail else ""))


def _certificate_failure(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return the refused certificate among the causes of `error`, None if that is not why."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None


def checked_url(url: str) -> httpx.URL:
    """Return `url` without a final slash; raise Misuse where no request could go there.

    A user name or password inside the address is refused: addresses end up in logs.
    """
    try:
        parsed = httpx.URL(url.strip().rstrip("/"))
        parsed.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Misuse("the archive's address cannot be read as a URL") from error
    if parsed.userinfo:
        raise Misuse("the archive's address must not contain a user name or password")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Misuse(f"the archive's address must begin with https:// or http://, not {url!r}")
    if parsed.query or parsed.fragment:
        raise Misuse("the archive's address must end before any ? or #")
    return parsed


def _printable(text: str) -> str:
    """Return a line fit for a message, whatever a server wrote."""
    if text.lstrip().startswith("<"):
        return "a web page"
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:_EXCERPT_LENGTH]


class HttpClient:
    """Asks one server by GET, in HTTP/1.1, verified, within limits.

    Proxies and SSL_CERT_FILE come from the environment. Redirects are followed, but not from https
    to http, and a token never goes to another host. `retries` are the attempts after the first.
    """

    def __init__(
        self,
        base_url: str,
        limits: HttpLimits,
        *,
        retries: int,
        user_agent: str = USER_AGENT,
        bearer: Bearer | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare; nothing is sent. Raises Misuse for an address or a proxy that cannot work."""
        url = checked_url(base_url)
        self.host = url.netloc.decode("ascii")
        self._limits = limits
        self._bearer = bearer
        # Our own count, not the pool's: a request cancelled while the pool hands it a connection
        # can keep its slot for ever (httpcore issue 658), and a full pool then answers nobody.
        self._free_connections = trio.Semaphore(limits.connections)
        self._client = _open_client(url, limits, user_agent, transport)
        self._caller = stamina.AsyncRetryingCaller(
            attempts=retries + 1,
            timeout=None,  # the listing deadline bounds them all
            wait_initial=limits.backoff_initial_s,
            wait_max=limits.backoff_max_s,
            wait_jitter=limits.backoff_initial_s,
        )

    async def fetch(self, path: str, params: Mapping[str, str], decode: Callable[[bytes], T]) -> T:
        """Return the decoded answer of `path`, asking again where that may help.

        `decode` gets the whole body (empty for 204) and raises UnreadableAnswer for what it cannot
        read, which counts as a failed attempt. Raises AccessDenied, RequestRejected,
        UnreadableAnswer, Unreachable, DeadlinePassed or SlowDown.
        """
        limit_s = self._limits.listing_timeout_s
        with trio.move_on_after(limit_s):
            return await self._caller(self._pause, self._fetch_once, path, params, decode)
        raise DeadlinePassed(f"{self.host} did not finish {_asked(path)} within {limit_s:g} s")

    @asynccontextmanager
    async def stream(self, path: str, params: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open one answer of any length, not compressed for transfer, and never retried.

        Each piece has the stall deadline, the whole has none. Entering and iterating raise what
        `fetch` raises.
        """
        async with (
            self._answer(path, params, "identity") as response,
            _unwound(self._pieces(response, _asked(path))) as chunks,
        ):
            yield chunks

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _fetch_once(self, path: str, params: Mapping[str, str], decode: Callable[[bytes], T]) -> T:
        limit_bytes = self._limits.listing_size_bytes
        async with self._answer(path, params, "gzip") as response:
            try:
                body = await self._body(response, _asked(path), limit_bytes)
                if body.is_too_long:
                    raise UnreadableAnswer(f"more than {limit_bytes} bytes")
                return decode(body.finish())
            except UnreadableAnswer as error:
                raise UnreadableAnswer(f"{self.host} answered {_asked(path)} unreadably: {error}") from error

    @asynccontextmanager
    async def _answer(
        self, path: str, params: Mapping[str, str], encoding: str
    ) -> AsyncIterator[httpx.Response]:
        """Ask, and yield the answer once its status is good; its body is still to come."""
        asked = _asked(path)
        async with self._connection(asked):
            headers = {"Accept-Encoding": encoding, **await self._authorization()}
            request = self._client.build_request("GET", path, params=dict(params), headers=headers)
            async with aclosing(await self._send(request, asked)) as response:
                await self._check(response, asked)
                yield response

    async def _send(self, request: httpx.Request, asked: str) -> httpx.Response:
        """Send, and follow redirects without reading their bodies, which nothing would bound."""
        for _ in range(_MAX_REDIRECTS + 1):
            with self._translated(asked):
                response = await self._client.send(request, stream=True)
            following = response.next_request
            if following is None:
                return response
            await response.aclose()
            if request.url.scheme == "https" != following.url.scheme:
                raise UnreadableAnswer(f"{self.host} sends {asked} to an address that is not encrypted")
            request = following
        raise UnreadableAnswer(f"{self.host} redirects {asked} in circles")

    @asynccontextmanager
    async def _connection(self, asked: str) -> AsyncIterator[None]:
        """Hold one of the allowed connections."""
        limit_s = self._limits.pool_timeout_s
        with trio.move_on_after(limit_s) as waiting:
            await self._free_connections.acquire()
        if waiting.cancelled_caught:
            raise DeadlinePassed(
                f"all {self._limits.connections} connections to {self.host} stayed busy "
                f"for {limit_s:g} s before {asked}"
            )
        try:
            yield
        finally:
            self._free_connections.release()

    async def _authorization(self) -> dict[str, str]:
        token = None if self._bearer is None else await self._bearer()
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    async def _pieces(self, response: httpx.Response, asked: str) -> AsyncGenerator[bytes, None]:
        """Yield the body as it is sent, with httpx's errors translated."""
        with self._translated(asked):
            async for piece in response.aiter_raw():
                yield piece

    async def _body(self, response: httpx.Response, asked: str, limit_bytes: int) -> Body:
        """Read the body to its end, or a little beyond `limit_bytes`."""
        body = Body(response.headers.get("Content-Encoding", ""), limit_bytes)
        async with _unwound(self._pieces(response, asked)) as pieces:
            async for piece in pieces:
                body.add(piece)
                if body.is_too_long:
                    break
        return body

    async def _check(self, response: httpx.Response, asked: str) -> None:
        """Raise the error that the status of `response` stands for; return if it is good."""
        if response.is_success:
            return
        text = ""
        with suppress(TciafsError):  # the status says more than how its explanation went wrong
            excerpt = await self._body(response, asked, _EXCERPT_SIZE_BYTES)
            text = _printable(excerpt.finish().decode(errors="replace"))
        raise self._refusal(response, asked, text)

    def _refusal(self, response: httpx.Response, asked: str, text: str) -> TciafsError:
        status = response.status_code
        said = f"{self.host} answered {asked} with status {status}" + (f": {text}" if text else "")
        pause_s = parse_retry_after_s(response.headers.get("Retry-After", ""), dt.datetime.now(dt.UTC))
        if status in (401, 403):
            return AccessDenied(said)
        if status == 429 or (status == 503 and pause_s is not None):
            return SlowDown(said, pause_s)
        if status == 408:
            return DeadlinePassed(said)
        if status >= 500 and status != 501:
            return Unreachable(said)
        return RequestRejected(said, status, text)

    def _pause(self, error: Exception) -> bool | float:
        """Say whether to ask again, and after how many seconds (True: the usual backoff)."""
        if not isinstance(error, TciafsError) or not error.retryable:
            return False
        if not isinstance(error, SlowDown) or error.retry_after_s is None:
            return True
        pause_s = max(error.retry_after_s, self._limits.backoff_initial_s)
        remaining_s = trio.current_effective_deadline() - trio.current_time()
        return pause_s if pause_s <= min(self._limits.retry_after_max_s, remaining_s) else False

    @contextmanager
    def _translated(self, asked: str) -> Iterator[None]:
        try:
            yield
        except _FOREIGN as error:
            raise translate(error, self.host, asked) from error


def _asked(path: str) -> str:
    """Return the name of what is asked, for messages: the last part of the path, no parameters."""
    return path.rpartition("/")[2]


def _open_client(
    url: httpx.URL,
    limits: HttpLimits,
    user_agent: str,
    transport: httpx.AsyncBaseTransport | None,
) -> httpx.AsyncClient:
    timeout = httpx.Timeout(
        connect=limits.connect_timeout_s,
        read=limits.stall_timeout_s,
        write=limits.write_timeout_s,
        pool=limits.pool_timeout_s,
    )
    pool = httpx.Limits(max_connections=None, max_keepalive_connections=limits.connections)
    try:
        return httpx.AsyncClient(
            base_url=url,
            headers={"User-Agent": user_agent},
            timeout=timeout,
            limits=pool,
            follow_redirects=False,
            transport=transport,
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise Misuse("a proxy in the environment (HTTPS_PROXY ...) cannot be used") from error
    except OSError as error:
        raise Misuse("SSL_CERT_FILE or SSL_CERT_DIR cannot be used as certificates") from error


@asynccontextmanager
async def _unwound(
    chunks: AsyncGenerator[bytes, None],
) -> AsyncIterator[AsyncGenerator[bytes, None]]:
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
