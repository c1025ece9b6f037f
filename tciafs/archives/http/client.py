"""HTTP as the archives need it: deadlines, retries, bounded bodies, and errors in our own words.

Defined here and only here: `HttpClient`, and what it hands the body of an answer to. One client may serve
many trio tasks at once; each answer belongs to the task that opened it, and others get their turn between
the pieces of a listing. Knows nothing of NBIA, of records or of ZIP.
"""

import datetime as dt
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import Protocol, TypeVar, cast
from urllib.request import getproxies

import httpx
import stamina
import trio

from tciafs import __version__
from tciafs.archives.http.asking import Asking, Span, checked_url, open_client
from tciafs.archives.http.body import Inflater
from tciafs.archives.http.bulk import BulkTransport, Lent
from tciafs.archives.http.errors import (
    FOREIGN,
    RequestRejected,
    printable_line,
    proxy_asks_for_user,
    translate,
)
from tciafs.archives.http.limits import HttpLimits, parse_retry_after_s
from tciafs.archives.http.pace import Pace
from tciafs.archives.http.reading import Reader, RowReader, unwound
from tciafs.archives.http.side_by_side import Careful, Wanted, side_by_side
from tciafs.errors import (
    AccessDenied,
    DeadlinePassed,
    SeriesDamaged,
    SlowDown,
    TciafsError,
    Unreachable,
    UnreadableAnswer,
)

__all__ = ["USER_AGENT", "Bearer", "HttpClient", "Reader", "RowReader", "checked_url", "unwound"]

log = logging.getLogger(__name__)

USER_AGENT = f"tciafs/{__version__}"

T = TypeVar("T")

_EXCERPT_SIZE_BYTES = 4096
_MAX_REDIRECTS = 5
_TOKEN_REFUSED = (401, 403)


class Bearer(Protocol):
    """Gives the token that requests carry."""

    async def token(self) -> str | None:
        """Return the token for the next request, None to ask as a guest; called for each attempt."""
        ...

    async def renewed(self, refused: str) -> str | None:
        """Return what to ask with instead of a token that was refused; the same: it is not the token."""
        ...


class HttpClient:
    """Asks one server by GET or POST, in HTTP/1.1, verified, within limits.

    Proxies and SSL_CERT_FILE come from the environment. Redirects are followed, but not from https
    to http, and a token never goes to another host. `retries` are the attempts after the first, as
    long as `may_repeat` says that another one is of use.
    """

    def __init__(
        self,
        base_url: str,
        limits: HttpLimits,
        *,
        retries: int,
        user_agent: str = USER_AGENT,
        bearer: Bearer | None = None,
        may_repeat: Callable[[], bool] = lambda: True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare; nothing is sent. Raises Misuse for an address or a proxy that cannot work."""
        url = checked_url(base_url)
        self._may_repeat = may_repeat
        self.host = url.netloc.decode("ascii")
        self._limits = limits
        self._bearer = bearer
        # Our own count, not the pool's: a request cancelled while the pool hands it a connection
        # can keep its slot for ever (httpcore issue 658), and a full pool then answers nobody.
        self._free_connections = trio.Semaphore(limits.connections)
        self._client = open_client(url, limits, user_agent, transport)
        # httpx's own way to a server stays where a proxy is: it knows all their kinds.
        bulk = None if transport or "all" in getproxies() else BulkTransport()
        mounts = None if bulk is None else {"all://": bulk}
        self._bulk_client = open_client(url, limits, user_agent, transport, mounts)
        is_direct = bearer is None and url.scheme not in getproxies()
        self._lender = bulk if is_direct else None
        self._caller = stamina.AsyncRetryingCaller(
            attempts=retries + 1,
            timeout=None,  # the listing deadline bounds them all
            wait_initial=limits.backoff_initial_s,
            wait_max=limits.backoff_max_s,
            wait_jitter=limits.backoff_initial_s,
        )

    async def fetch(
        self,
        path: str,
        params: Mapping[str, str],
        reader: Callable[[], Reader[T]],
        form: Mapping[str, str] | None = None,
        span: Span | None = None,
    ) -> T:
        """Return what a reader makes of the answer of `path`, asking again where that may help.

        A `form` is sent by POST, for questions that are too long for an address. A `span` is a part of the
        body.

        Each attempt has a new reader; an answer that it cannot read counts as a failed attempt.
        Raises AccessDenied, RequestRejected, UnreadableAnswer, Unreachable, DeadlinePassed or
        SlowDown.
        """
        with self._within(self._limits.listing_timeout_s, trio.current_time(), _asked(path)):
            return await self._caller(self._pause, self._fetch_once, path, params, reader, form, span)

    @asynccontextmanager
    async def stream_rows(
        self, path: str, params: Mapping[str, str], reader: RowReader[T]
    ) -> AsyncIterator[AsyncIterator[Sequence[T]]]:
        """Open one answer and yield its rows in batches while it comes; never retried.

        Each piece has the stall deadline, the whole has `whole_timeout_s`. Entering and iterating
        raise what `fetch` raises.
        """
        begun, asked = trio.current_time(), _asked(path)
        async with AsyncExitStack() as stack:
            with self._within(self._limits.whole_timeout_s, begun, asked):
                response = await stack.enter_async_context(self._answer(path, params, "gzip"))
            rows = self._rows(response, asked, reader, begun)
            yield await stack.enter_async_context(unwound(rows))

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], span: Span | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open one answer of any length, or a span of it, not compressed for transfer, and never retried.

        The start has `start_timeout_s`, each piece the stall deadline, the whole has none. Entering and
        iterating raise what `fetch` raises.
        """
        begun, asked = trio.current_time(), _asked(path)
        async with AsyncExitStack() as stack:
            with self._within(self._limits.start_timeout_s, begun, asked):
                answer = self._answer(path, params, "identity", client=self._bulk_client, span=span)
                response = await stack.enter_async_context(answer)
            yield await stack.enter_async_context(unwound(self._pieces(response, asked)))

    def fetch_each(
        self, wanted: Sequence[Wanted], careful: Careful, *, most: int
    ) -> AbstractAsyncContextManager[AsyncIterator[AsyncIterator[bytes]]]:
        """Yield the bodies of many small answers in their order, `most` at once; see `side_by_side`.

        `careful` is asked for what does not come at the first attempt.
        """
        lend = None if self._lender is None else self._lend
        return side_by_side(wanted, lend, careful, stall_timeout_s=self._limits.stall_timeout_s, most=most)

    async def _lend(self, work: Callable[[Lent], bool], limiter: trio.CapacityLimiter) -> None:
        assert self._lender is not None
        request = self._bulk_client.build_request("GET", "", headers={"Accept-Encoding": "identity"})
        async with self._connection("many answers"):
            await self._lender.lend(request, work, limiter)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        await self._bulk_client.aclose()

    async def _fetch_once(
        self,
        path: str,
        params: Mapping[str, str],
        reader: Callable[[], Reader[T]],
        form: Mapping[str, str] | None,
        span: Span | None,
    ) -> T:
        # Compressed, it were a part of something else; and there are many of them.
        encoding, client = ("gzip", self._client) if span is None else ("identity", self._bulk_client)
        async with self._answer(path, params, encoding, client=client, form=form, span=span) as response:
            reading = reader()
            with self._complaining(_asked(path)):
                async with unwound(self._inflated(response, _asked(path))) as pieces:
                    async for piece in pieces:
                        reading.feed(piece)
                return reading.finish()

    async def _rows(
        self, response: httpx.Response, asked: str, reader: RowReader[T], begun: float
    ) -> AsyncGenerator[Sequence[T], None]:
        """Yield the rows of the body in batches; none is empty."""
        with self._complaining(asked):
            async with unwound(self._inflated(response, asked)) as pieces:
                piece: bytes | None = b""
                while piece is not None:
                    with self._within(self._limits.whole_timeout_s, begun, asked):
                        piece = await anext(pieces, None)
                    rows = reader.finish() if piece is None else reader.feed(piece)
                    if rows:
                        yield rows

    @asynccontextmanager
    async def _answer(
        self,
        path: str,
        params: Mapping[str, str],
        encoding: str,
        *,
        client: httpx.AsyncClient | None = None,
        form: Mapping[str, str] | None = None,
        span: Span | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Ask, and yield the answer once its status is good; its body is still to come."""
        asked, client = _asked(path), client or self._client
        async with self._connection(asked):
            asking = Asking(path, params, encoding, form, span)
            response = await self._authorized(client, asking)
            asking.tell(log, self.host, response.status_code)
            async with aclosing(response):
                status, headers = response.status_code, response.headers
                if span is not None and span.is_of_another(status, headers):
                    raise self._changed(asked)
                await self._check(response, asked)
                if span is not None and not span.is_in(status, headers):
                    raise UnreadableAnswer(f"{self.host} answered {asked} with another part of it")
                yield response

    async def _authorized(self, client: httpx.AsyncClient, asking: Asking) -> httpx.Response:
        """Ask with the token there is, and once more with another where that one is refused."""
        token = None if self._bearer is None else await self._bearer.token()
        response = await self._send(client, asking.request(client, token), _asked(asking.path))
        if self._bearer is None or token is None or response.status_code not in _TOKEN_REFUSED:
            return response
        try:
            another = await self._bearer.renewed(token)
        except BaseException:
            await response.aclose()
            raise
        if another == token:
            return response
        await response.aclose()
        return await self._send(client, asking.request(client, another), _asked(asking.path))

    async def _send(self, client: httpx.AsyncClient, request: httpx.Request, asked: str) -> httpx.Response:
        """Send, and follow redirects without reading their bodies, which nothing would bound."""
        for _ in range(_MAX_REDIRECTS + 1):
            with self._translated(asked):
                response = await client.send(request, stream=True)
            following = response.next_request
            if following is None:
                return response
            await response.aclose()
            if following.url.scheme not in ("http", "https"):
                raise UnreadableAnswer(f"{self.host} sent {asked} to no web address")
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

    async def _pieces(self, response: httpx.Response, asked: str) -> AsyncGenerator[bytes, None]:
        """Yield the body as it is sent, with httpx's errors translated. Raises DeadlinePassed if it drips."""
        pace = Pace(self._limits.stall_timeout_s)
        raw = cast(AsyncGenerator[bytes, None], response.aiter_raw())
        with self._translated(asked):
            async with unwound(raw) as pieces:
                begun = trio.current_time()
                async for piece in pieces:
                    if pace.is_dead(len(piece), trio.current_time() - begun):
                        raise DeadlinePassed(f"{self.host} sends {asked} too slowly to ever end")
                    yield piece
                    begun = trio.current_time()

    async def _inflated(self, response: httpx.Response, asked: str) -> AsyncGenerator[bytes, None]:
        """Yield the body inflated, in pieces that are small and never empty; others run between them."""
        inflater = Inflater(response.headers.get("Content-Encoding", ""), self._limits.listing_size_bytes)
        async with unwound(self._pieces(response, asked)) as sent:
            async for taken in sent:
                for piece in inflater.inflate(taken):
                    await trio.lowlevel.checkpoint()
                    yield piece
        inflater.finish()

    async def _excerpt(self, response: httpx.Response, asked: str) -> str:
        """Return a line from the start of what the server wrote; "" where that cannot be read."""
        start = bytearray()
        with suppress(TciafsError):  # the status says more than how its explanation went wrong
            async with unwound(self._inflated(response, asked)) as pieces:
                async for piece in pieces:
                    start += piece
                    if len(start) >= _EXCERPT_SIZE_BYTES:
                        break
        return printable_line(start[:_EXCERPT_SIZE_BYTES].decode(errors="replace"))

    async def _check(self, response: httpx.Response, asked: str) -> None:
        """Raise the error that the status of `response` stands for; return if it is good."""
        if response.is_success:
            return
        raise self._refusal(response, asked, await self._excerpt(response, asked))

    def _refusal(self, response: httpx.Response, asked: str, text: str) -> TciafsError:
        status = response.status_code
        said = f"{self.host} answered {asked} with status {status}" + (f": {text}" if text else "")
        pause_s = parse_retry_after_s(response.headers.get("Retry-After", ""), dt.datetime.now(dt.UTC))
        if status in (401, 403):
            return AccessDenied(said)
        if status == 407:
            return proxy_asks_for_user(self.host, asked)
        if status == 429 or (status == 503 and pause_s is not None):
            return SlowDown(said, pause_s)
        if status == 408:
            return DeadlinePassed(said)
        if status >= 500 and status != 501:
            return Unreachable(said)
        return RequestRejected(said, status, text)

    def _changed(self, asked: str) -> SeriesDamaged:
        changed = SeriesDamaged(f"{self.host} has something else as {asked} than it had")
        changed.retryable = False
        return changed

    def _pause(self, error: Exception) -> bool | float:
        """Say whether to ask again, and after how many seconds (True: the usual backoff)."""
        log.info("a listing failed: %s", error)
        if not isinstance(error, TciafsError) or not error.retryable or not self._may_repeat():
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
        except FOREIGN as error:
            raise translate(error, self.host, asked) from error

    @contextmanager
    def _within(self, limit_s: float, begun: float, asked: str) -> Iterator[None]:
        """Bound what began at a time of trio's clock."""
        try:
            with trio.fail_at(begun + limit_s):
                yield
        except trio.TooSlowError as error:
            raise DeadlinePassed(f"{self.host} did not finish {asked} within {limit_s:g} s") from error

    @contextmanager
    def _complaining(self, asked: str) -> Iterator[None]:
        try:
            yield
        except UnreadableAnswer as error:
            raise UnreadableAnswer(f"{self.host} answered {asked} unreadably: {error}") from error


def _asked(path: str) -> str:
    """Return the name of what is asked, for messages: the last part of the path, no parameters."""
    return path.rpartition("/")[2]
