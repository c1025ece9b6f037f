"""HttpClient against a scripted transport, and against a real socket where httpcore matters."""

import datetime as dt
import email.utils
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tciafs import __version__
from tciafs.archives.http.body import PIECE_BYTES
from tciafs.archives.http.client import HttpClient, checked_url
from tciafs.archives.http.errors import _TRANSLATIONS, RequestRejected, translate
from tciafs.archives.http.limits import HttpLimits, parse_retry_after_s
from tciafs.errors import (
    AccessDenied,
    DeadlinePassed,
    Misuse,
    SlowDown,
    TciafsError,
    Unreachable,
    UnreadableAnswer,
)

BASE = "https://archive.example/services"
QUESTION = ("v4/getSeries", {"Collection": "CT Lymph Nodes"})

Handler = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Awaitable[Any]]


def client(handler: Handler, *, retries: int = 2, base: str = BASE, **limits: Any) -> HttpClient:
    return HttpClient(
        base,
        HttpLimits(**limits),
        retries=retries,
        transport=httpx.MockTransport(handler),  # type: ignore[arg-type]
    )


class Script:
    """Answers with each of `steps` in turn; a step is a response, or an exception to raise."""

    def __init__(self, *steps: httpx.Response | Exception) -> None:
        self._steps = iter(steps)
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(trio.current_time())
        step = next(self._steps)
        if isinstance(step, Exception):
            raise step
        return step


def answer(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> httpx.Response:
    """Return an answer whose body has yet to be read, as from a network."""
    return httpx.Response(status, stream=httpx.ByteStream(body), headers=headers)


class Pieces(httpx.AsyncByteStream):
    """A body sent piece by piece that notes how far it got and whether it was closed."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces
        self.sent = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await trio.lowlevel.checkpoint()
            if isinstance(piece, Exception):
                raise piece
            self.sent += 1
            yield piece

    async def aclose(self) -> None:
        self.closed = True


def compressed(body: bytes) -> httpx.Response:
    return answer(body, headers={"Content-Encoding": "gzip"})


class Whole:
    """A reader that keeps the body as it is, and notes the pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def feed(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def finish(self) -> bytes:
        return b"".join(self.pieces)


# Translation


def tree(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def of_httpx() -> list[type[Exception]]:
    exported = {
        value
        for name in httpx.__all__
        if isinstance(value := getattr(httpx, name), type) and issubclass(value, Exception)
    }
    found = {cls for root in exported for cls in tree(root) if cls.__module__.startswith("httpx")}
    return sorted(found, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", of_httpx())
def test_every_exception_of_httpx_has_a_row_of_its_own(cls: type[Exception]) -> None:
    assert cls in [row[0] for row in _TRANSLATIONS]


def test_no_exception_is_shadowed_by_a_more_general_one_above_it() -> None:
    rows = [row[0] for row in _TRANSLATIONS]
    assert not [
        (above, below)
        for place, below in enumerate(rows)
        for above in rows[:place]
        if issubclass(below, above)
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("Name or service not known"), Unreachable),
        (httpx.ConnectTimeout(""), DeadlinePassed),
        (httpx.ReadTimeout(""), DeadlinePassed),
        (httpx.PoolTimeout(""), DeadlinePassed),
        (httpx.ReadError(""), Unreachable),
        (httpx.RemoteProtocolError("incomplete chunked read"), Unreachable),
        (httpx.ProxyError("407 Proxy Authentication Required"), Unreachable),
        (httpx.DecodingError(""), UnreadableAnswer),
        (httpx.TooManyRedirects(""), UnreadableAnswer),
        (httpx.LocalProtocolError(""), UnreadableAnswer),
        (httpx.StreamClosed(), UnreadableAnswer),
    ],
)
def test_an_exception_of_httpx_becomes_ours_and_names_host_and_question(
    error: Exception, expected: type[TciafsError]
) -> None:
    ours = translate(error, "archive.example", "getSeries")
    assert type(ours) is expected
    assert "archive.example" in str(ours)
    assert "getSeries" in str(ours)


def refused_certificate() -> httpx.ConnectError:
    reason = ssl.SSLCertVerificationError(1, "certificate verify failed")
    reason.verify_message = "self-signed certificate"
    broken = trio.BrokenResourceError()
    broken.__cause__ = reason
    error = httpx.ConnectError("")
    error.__cause__ = broken
    return error


async def test_a_refused_certificate_is_named_and_not_asked_again() -> None:
    script = Script(refused_certificate())
    with pytest.raises(Unreachable, match=r"certificate of archive\.example .* self-signed"):
        await client(script).fetch(*QUESTION, Whole)
    assert len(script.requests) == 1


# Requests


async def test_a_listing_is_asked_for_by_name_version_and_compressed() -> None:
    script = Script(compressed(gzip.compress(b"[]")))
    assert await client(script).fetch(*QUESTION, Whole) == b"[]"
    (request,) = script.requests
    assert str(request.url.copy_with(query=None)) == f"{BASE}/v4/getSeries"
    assert dict(request.url.params) == {"Collection": "CT Lymph Nodes"}
    assert request.headers["User-Agent"] == f"tciafs/{__version__}"
    assert request.headers["Accept-Encoding"] == "gzip"
    assert "Authorization" not in request.headers


async def test_the_deadlines_reach_the_transport() -> None:
    script = Script(answer(b"", 200))
    await client(script, connect_timeout_s=1, stall_timeout_s=2, write_timeout_s=3).fetch(*QUESTION, Whole)
    timeout = script.requests[0].extensions["timeout"]
    assert (timeout["connect"], timeout["read"], timeout["write"]) == (1, 2, 3)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://archive.example/",
        "archive.example/services",
        "https://",
        "https://user:secret@archive.example/",
        "https://archive.example/?a=b",
        "https://archive.example:port/",
        f"https://{'a' * 70}.example/",
        "",
    ],
)
def test_an_address_that_cannot_work_is_misuse_and_shows_no_password(url: str) -> None:
    with pytest.raises(Misuse) as caught:
        checked_url(url)
    assert "secret" not in str(caught.value)


@given(st.text())
def test_any_text_is_an_address_or_misuse(text: str) -> None:
    try:
        url = checked_url(text)
    except Misuse:
        return
    assert url.scheme in ("http", "https")


def test_a_proxy_that_cannot_be_used_is_misuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy.example:70")
    with pytest.raises(Misuse, match="proxy"):
        HttpClient(BASE, HttpLimits(), retries=0)


def test_a_missing_certificate_file_is_misuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")
    with pytest.raises(Misuse, match="SSL_CERT_FILE"):
        HttpClient(BASE, HttpLimits(), retries=0)


# Retries


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.ReadTimeout(""),
        httpx.RemoteProtocolError("incomplete"),
        answer(b"", 429),
        answer(b"Server was not able to process your request", 500),
        answer(b"", 502),
        answer(b"", 503),
        answer(b"", 504),
        compressed(b"not gzip"),
        compressed(gzip.compress(b"cut off")[:-4]),
    ],
    ids=str,
)
async def test_what_may_pass_is_asked_again(
    failure: httpx.Response | Exception, autojump_clock: MockClock
) -> None:
    script = Script(failure, answer(b"ok"))
    assert await client(script).fetch(*QUESTION, Whole) == b"ok"


async def test_an_answer_that_cannot_be_decoded_is_asked_for_again(
    autojump_clock: MockClock,
) -> None:
    class Rows(Whole):
        def finish(self) -> bytes:
            if super().finish() != b"rows":
                raise UnreadableAnswer("a web page")
            return b"read"

    script = Script(answer(b"<html>"), answer(b"rows"))
    assert await client(script).fetch(*QUESTION, Rows) == b"read"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, RequestRejected),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, RequestRejected),
        (422, RequestRejected),
        (501, RequestRejected),
        (304, RequestRejected),
    ],
)
async def test_what_will_not_pass_is_asked_once(status: int, expected: type[TciafsError]) -> None:
    script = Script(answer(b"because", status))
    with pytest.raises(expected, match=rf"archive\.example .* getSeries .* {status}: because"):
        await client(script).fetch(*QUESTION, Whole)
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (partial(answer, b"", 500), Unreachable),
        (partial(answer, b"", 503), Unreachable),
        (partial(answer, b"", 503, headers={"Retry-After": "1"}), SlowDown),
        (partial(answer, b"", 429), SlowDown),
        (partial(httpx.ConnectError, "refused"), Unreachable),
        (partial(httpx.ConnectTimeout, ""), DeadlinePassed),
    ],
)
async def test_when_the_retries_are_used_up_the_error_says_why(
    answer: Callable[[], httpx.Response | Exception],
    expected: type[TciafsError],
    autojump_clock: MockClock,
) -> None:
    script = Script(*(answer() for _ in range(3)))
    with pytest.raises(expected) as caught:
        await client(script, retries=2).fetch(*QUESTION, Whole)
    assert type(caught.value) is expected
    assert len(script.requests) == 3


async def test_without_retries_there_is_one_attempt() -> None:
    script = Script(answer(b"", 500))
    with pytest.raises(Unreachable):
        await client(script, retries=0).fetch(*QUESTION, Whole)


async def test_there_is_no_other_attempt_when_it_is_of_no_use_any_more(autojump_clock: MockClock) -> None:
    script = Script(*(answer(b"", 500) for _ in range(8)))
    asked = HttpClient(
        BASE,
        HttpLimits(),
        retries=7,
        may_repeat=lambda: len(script.requests) < 3,
        transport=httpx.MockTransport(script),
    )
    with pytest.raises(Unreachable):
        await asked.fetch(*QUESTION, Whole)
    assert len(script.requests) == 3


async def test_pauses_grow_up_to_their_bound(autojump_clock: MockClock) -> None:
    script = Script(*(answer(b"", 500) for _ in range(8)))
    with pytest.raises(Unreachable):
        await client(script, retries=7, backoff_initial_s=1, backoff_max_s=5).fetch(*QUESTION, Whole)
    pauses = [later - sooner for sooner, later in zip(script.times, script.times[1:], strict=False)]
    assert 1 <= pauses[0] <= 2 <= pauses[1] <= 3
    assert pauses[-1] == 5


async def test_the_pause_that_the_server_asks_for_is_kept(
    autojump_clock: MockClock,
) -> None:
    busy = answer(b"", 503, headers={"Retry-After": "7"})
    script = Script(busy, answer(b"", 200))
    await client(script).fetch(*QUESTION, Whole)
    assert script.times[1] - script.times[0] == 7


@pytest.mark.parametrize(("patience_s", "deadline_s"), [(60, 7200), (7200, 60)])
async def test_a_pause_beyond_all_patience_fails_at_once(patience_s: float, deadline_s: float) -> None:
    script = Script(answer(b"", 429, headers={"Retry-After": "3600"}))
    with pytest.raises(SlowDown) as caught:
        await client(script, retry_after_max_s=patience_s, listing_timeout_s=deadline_s).fetch(
            *QUESTION, Whole
        )
    assert caught.value.retry_after_s == 3600


NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "pause_s"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("9" * 400, 999_999_999),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60),
        ("Fri, 02 Jan 2026 03:05:05 -0000", 60),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0),
        ("-5", None),
        ("1.5", None),
        ("\N{ARABIC-INDIC DIGIT THREE}", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_forms(text: str, pause_s: float | None) -> None:
    assert parse_retry_after_s(text, NOW) == pause_s


@given(st.text())
def test_no_retry_after_is_negative_or_an_error(text: str) -> None:
    assert (parse_retry_after_s(text, NOW) or 0) >= 0


@given(st.integers(0, 10**6))
def test_a_retry_after_date_is_the_pause_until_then(seconds: int) -> None:
    moment = NOW + dt.timedelta(seconds=seconds)
    assert parse_retry_after_s(email.utils.format_datetime(moment, usegmt=True), NOW) == seconds


# Bounds


async def test_a_listing_ends_at_its_deadline_retries_included(
    autojump_clock: MockClock,
) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(DeadlinePassed, match="getSeries within 30 s"):
        await client(never, listing_timeout_s=30).fetch(*QUESTION, Whole)
    assert trio.current_time() == pytest.approx(30)


async def test_a_listing_that_is_too_long_is_not_read_to_its_end(
    autojump_clock: MockClock,
) -> None:
    body = Pieces(*[b"x" * 100] * 50)
    script = Script(httpx.Response(200, stream=body))
    with pytest.raises(UnreadableAnswer, match="more than 250 bytes"):
        await client(script, retries=0, listing_size_bytes=250).fetch(*QUESTION, Whole)
    assert body.sent == 3
    assert body.closed


async def test_a_listing_that_inflates_beyond_its_bound_is_not_inflated_to_its_end() -> None:
    script = Script(compressed(gzip.compress(bytes(10_000_000))))
    with pytest.raises(UnreadableAnswer, match="more than 250 bytes"):
        await client(script, retries=0, listing_size_bytes=250).fetch(*QUESTION, Whole)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
async def test_a_compression_that_was_not_asked_for_is_unreadable(encoding: str) -> None:
    script = Script(answer(b"x", headers={"Content-Encoding": encoding}))
    with pytest.raises(UnreadableAnswer, match="not by gzip"):
        await client(script, retries=0).fetch(*QUESTION, Whole)


async def test_a_listing_of_exactly_the_limit_is_read() -> None:
    script = Script(answer(b"x" * 250))
    assert await client(script, listing_size_bytes=250).fetch(*QUESTION, Whole) == b"x" * 250


async def test_others_have_their_turn_between_the_pieces_of_a_listing() -> None:
    reader = Whole()
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(reader.pieces))
            await trio.lowlevel.checkpoint()

    script = Script(compressed(gzip.compress(bytes(1_000_000))))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await client(script).fetch(*QUESTION, lambda: reader)
        nursery.cancel_scope.cancel()
    assert len(reader.pieces) == 16
    # Of two tasks that are ready, trio lets either go first, so two pieces can come between two turns.
    assert all(later - sooner <= 2 for sooner, later in pairwise(turns))


async def test_each_attempt_has_a_new_reader(autojump_clock: MockClock) -> None:
    cut_off = httpx.Response(200, stream=Pieces(b"one", httpx.ReadError("reset")))
    script = Script(cut_off, answer(b"two"))
    assert await client(script).fetch(*QUESTION, Whole) == b"two"


async def test_a_busy_pool_is_waited_for_only_so_long(
    autojump_clock: MockClock,
) -> None:
    script = Script(*(httpx.Response(200, stream=Pieces(b"a")) for _ in range(2)))
    archive = client(script, retries=0, connections=1, pool_timeout_s=5)
    async with archive.stream(*QUESTION):
        with pytest.raises(DeadlinePassed, match="all 1 connections"):
            await archive.fetch(*QUESTION, Whole)
    assert await archive.fetch(*QUESTION, Whole) == b"a"


async def test_cancelling_a_listing_between_attempts_is_not_taken_for_a_failure(
    autojump_clock: MockClock,
) -> None:
    def busy(request: httpx.Request) -> httpx.Response:
        return answer(b"", 500)

    with trio.move_on_after(3) as scope:
        await client(busy, retries=100, backoff_initial_s=2).fetch(*QUESTION, Whole)
    assert scope.cancelled_caught


async def test_cancelling_an_attempt_is_not_followed_by_another() -> None:
    asked = 0
    scope = trio.CancelScope()

    async def cancelling(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        scope.cancel()
        await trio.lowlevel.checkpoint()
        raise AssertionError

    with scope:
        await client(cancelling).fetch(*QUESTION, Whole)
    assert scope.cancelled_caught
    assert asked == 1


async def test_what_a_server_writes_reaches_the_message_as_one_short_printable_line() -> None:
    script = Script(answer(b"no\x1b[31m\n\x00such  thing" + b"x" * 9999, 400))
    with pytest.raises(RequestRejected) as caught:
        await client(script).fetch(*QUESTION, Whole)
    assert caught.value.status == 400
    assert caught.value.text.startswith("no [31m such thing")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


# Redirects and tokens


class Tokens:
    """A bearer of one token and, after a refusal, another."""

    def __init__(self, *tokens: str | None) -> None:
        self.tokens = [*tokens]
        self.refused: list[str] = []

    async def token(self) -> str | None:
        return self.tokens[0]

    async def renewed(self, refused: str) -> str | None:
        self.refused.append(refused)
        if len(self.tokens) > 1:
            del self.tokens[0]
        return self.tokens[0]


def with_token(handler: Handler, *tokens: str | None) -> HttpClient:
    transport = httpx.MockTransport(handler)  # type: ignore[arg-type]
    bearer = Tokens(*(tokens or ["s3cret"]))
    return HttpClient(BASE, HttpLimits(), retries=0, bearer=bearer, transport=transport)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(("another", "sent"), [("other", "Bearer other"), (None, None)])
async def test_after_a_refused_token_it_is_asked_once_more_with_another_or_as_a_guest(
    status: int, another: str | None, sent: str | None
) -> None:
    script = Script(answer(b"", status), answer(b"there"))
    assert await with_token(script, "stale", another).fetch(*QUESTION, Whole) == b"there"
    assert [r.headers.get("Authorization") for r in script.requests] == ["Bearer stale", sent]


async def test_where_another_token_would_not_help_access_is_denied() -> None:
    script = Script(answer(b"", 403))
    with pytest.raises(AccessDenied):
        await with_token(script, "good").fetch(*QUESTION, Whole)
    assert len(script.requests) == 1


async def test_a_second_refusal_is_the_answer() -> None:
    script = Script(answer(b"", 401), answer(b"", 401))
    with pytest.raises(AccessDenied):
        await with_token(script, "stale", "other").fetch(*QUESTION, Whole)
    assert len(script.requests) == 2


def moved(address: str) -> httpx.Response:
    return answer(b"", 302, {"Location": address})


async def test_a_redirect_is_followed_with_the_token_on_the_same_host() -> None:
    script = Script(moved("/elsewhere"), answer(b"there"))
    assert await with_token(script).fetch(*QUESTION, Whole) == b"there"
    assert [r.headers.get("Authorization") for r in script.requests] == ["Bearer s3cret"] * 2


async def test_a_token_never_goes_to_another_host() -> None:
    script = Script(moved("https://other.example/"), answer(b"there"))
    assert await with_token(script).fetch(*QUESTION, Whole) == b"there"
    assert [r.headers.get("Authorization") for r in script.requests] == ["Bearer s3cret", None]


async def test_a_redirect_away_from_https_is_not_followed() -> None:
    script = Script(moved("http://archive.example/"))
    with pytest.raises(UnreadableAnswer, match="not encrypted"):
        await with_token(script).fetch(*QUESTION, Whole)
    assert len(script.requests) == 1


async def test_the_body_of_a_redirect_is_not_read() -> None:
    body = Pieces(*[b"x"] * 9)
    address = {"Location": "/elsewhere"}
    script = Script(httpx.Response(302, stream=body, headers=address), answer(b"there"))
    assert await client(script).fetch(*QUESTION, Whole) == b"there"
    assert body.closed
    assert body.sent == 0


@pytest.mark.parametrize("address", [BASE, "ftp://other.example/", "https://[", "https://a:b:c/"])
async def test_a_redirect_to_nowhere_is_an_error_of_ours(address: str) -> None:
    def go(request: httpx.Request) -> httpx.Response:
        return moved(address)

    with pytest.raises((UnreadableAnswer, Unreachable)):
        await client(go, retries=0).fetch(*QUESTION, Whole)


async def test_neither_token_nor_parameters_appear_in_messages() -> None:
    script = Script(answer(b"", 401))
    with pytest.raises(AccessDenied) as caught:
        await with_token(script).fetch("v4/getSeries", {"PatientID": "P-1"}, Whole)
    assert "s3cret" not in str(caught.value)
    assert "P-1" not in str(caught.value)


async def test_a_proxy_that_asks_for_a_user_is_said_to_and_not_asked_again() -> None:
    for refused in (answer(b"", 407), httpx.ProxyError("407 Proxy Authentication Required")):
        script = Script(refused)
        with pytest.raises(Unreachable, match=r"the proxy .* it asks for a user name and password"):
            await client(script).fetch(*QUESTION, Whole)
        assert len(script.requests) == 1


# Streams


async def test_a_stream_yields_each_piece_when_it_comes() -> None:
    body = Pieces(b"one", b"two")
    script = Script(httpx.Response(200, stream=body))
    async with client(script).stream(*QUESTION) as chunks:
        assert await anext(aiter(chunks)) == b"one"
        assert body.sent == 1
        assert [chunk async for chunk in chunks] == [b"two"]
    assert body.closed
    assert script.requests[0].headers["Accept-Encoding"] == "identity"


async def test_a_stream_that_is_left_early_is_closed() -> None:
    body = Pieces(*[b"x"] * 10)
    script = Script(httpx.Response(200, stream=body))
    async with client(script).stream(*QUESTION) as chunks:
        async for _ in chunks:
            break
    assert body.closed
    assert body.sent == 1


async def test_an_error_of_the_reader_passes_through_a_stream_unchanged() -> None:
    body = Pieces(b"\xff", b"y")
    script = Script(httpx.Response(200, stream=body))

    async def read() -> None:
        async with client(script).stream(*QUESTION) as chunks:
            async for chunk in chunks:
                chunk.decode()

    with pytest.raises(UnicodeDecodeError):
        await read()
    assert body.closed


async def test_a_stream_that_breaks_is_our_error_where_it_is_read_and_not_retried() -> None:
    script = Script(httpx.Response(200, stream=Pieces(b"x", httpx.RemoteProtocolError("cut"))))
    async with client(script).stream(*QUESTION) as chunks:
        with pytest.raises(Unreachable, match="broke off its answer to getSeries: cut"):
            [chunk async for chunk in chunks]
    assert len(script.requests) == 1


class Drip(httpx.AsyncByteStream):
    """So many pieces, one of them in `pace_s` seconds."""

    def __init__(self, piece: bytes, times: int, pace_s: float) -> None:
        self._piece, self._times, self._pace_s = piece, times, pace_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._times):
            await trio.sleep(self._pace_s)
            yield self._piece


async def test_a_stream_that_drips_is_as_dead_as_a_silent_one(autojump_clock: MockClock) -> None:
    script = Script(httpx.Response(200, stream=Drip(b"x", 10_000, 1.0)))
    async with client(script, stall_timeout_s=60).stream(*QUESTION) as chunks:
        with pytest.raises(DeadlinePassed, match=r"archive\.example sends getSeries too slowly"):
            [chunk async for chunk in chunks]
    assert trio.current_time() < 100


async def test_a_stream_whose_start_never_comes_has_a_bound(autojump_clock: MockClock) -> None:
    async def headers_that_drip(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError("not reached")

    with pytest.raises(DeadlinePassed, match="did not finish getSeries within 160 s"):
        async with client(headers_that_drip).stream(*QUESTION):
            raise AssertionError("not reached")


async def test_a_stream_over_a_slow_line_may_take_hours(autojump_clock: MockClock) -> None:
    script = Script(httpx.Response(200, stream=Drip(b"x" * 1000, 5000, 2.0)))
    async with client(script, stall_timeout_s=60).stream(*QUESTION) as chunks:
        assert sum([len(chunk) async for chunk in chunks]) == 5_000_000


async def test_the_time_that_a_reader_takes_is_not_the_servers(autojump_clock: MockClock) -> None:
    script = Script(httpx.Response(200, stream=Drip(b"x" * 200, 500, 1.0)))
    async with client(script, stall_timeout_s=60).stream(*QUESTION) as chunks:
        async for _ in chunks:
            await trio.sleep(3600)


async def test_a_stream_that_stood_still_as_a_whole_goes_on(autojump_clock: MockClock) -> None:
    # As a process that was paused sees it: no deadline of a socket passed, and hours did.
    script = Script(httpx.Response(200, stream=Drip(b"x" * 10, 3, 7200.0)))
    async with client(script, stall_timeout_s=60).stream(*QUESTION) as chunks:
        assert len([chunk async for chunk in chunks]) == 3


async def test_a_stream_with_a_bad_status_is_an_error_at_once() -> None:
    script = Script(httpx.Response(400, stream=Pieces(*[b"z" * 1000] * 9)))
    with pytest.raises(RequestRejected):
        async with client(script).stream(*QUESTION):
            pass


# Rows


class Lines:
    """A reader of rows: what is before each slash, and at the end what is left."""

    def __init__(self) -> None:
        self.left = b""

    def feed(self, piece: bytes) -> list[bytes]:
        *rows, self.left = (self.left + piece).split(b"/")
        return rows

    def finish(self) -> list[bytes]:
        if self.left == b"bad":
            raise UnreadableAnswer("a bad end")
        return [self.left] if self.left else []


async def test_rows_come_in_batches_while_the_rest_is_still_to_come() -> None:
    body = Pieces(b"a/b/c", b"c", b"/d/", b"e")
    script = Script(httpx.Response(200, stream=body))
    async with client(script).stream_rows(*QUESTION, Lines()) as batches:
        assert await anext(aiter(batches)) == [b"a", b"b"]
        assert body.sent == 1
        assert [batch async for batch in batches] == [[b"cc", b"d"], [b"e"]]
    assert body.closed
    assert script.requests[0].headers["Accept-Encoding"] == "gzip"


async def test_compressed_rows_are_inflated_while_they_come() -> None:
    sent = gzip.compress(b"a/" * 500_000)
    script = Script(compressed(sent))
    async with client(script).stream_rows(*QUESTION, Lines()) as batches:
        sizes = [len(batch) async for batch in batches]
    assert sum(sizes) == 500_000
    assert max(sizes) <= PIECE_BYTES // 2


async def rows_of(archive: HttpClient, path: str = QUESTION[0]) -> list[bytes]:
    async with archive.stream_rows(path, {}, Lines()) as batches:
        return [row async for batch in batches for row in batch]


@pytest.mark.parametrize(
    ("response", "expected", "said"),
    [
        (partial(httpx.Response, 200, stream=Pieces(b"a/", httpx.ReadError("reset"))), Unreachable, "broke"),
        (partial(answer, b"a/bad"), UnreadableAnswer, "answered getSeries unreadably: a bad end"),
        (partial(compressed, gzip.compress(b"a/b/")[:-1]), UnreadableAnswer, "ended early"),
        (partial(answer, b"a/" * 100), UnreadableAnswer, "more than 150 bytes"),
        (partial(answer, b"", 500), Unreachable, "500"),
        (partial(answer, b"", 404), RequestRejected, "404"),
    ],
)
async def test_rows_that_end_in_an_error_say_which_and_are_asked_for_once(
    response: Callable[[], httpx.Response], expected: type[TciafsError], said: str
) -> None:
    script = Script(response())
    with pytest.raises(expected, match=said) as caught:
        await rows_of(client(script, listing_size_bytes=150))
    assert type(caught.value) is expected
    assert len(script.requests) == 1


async def test_rows_that_are_left_early_are_closed() -> None:
    body = Pieces(*[b"a/"] * 10)
    script = Script(httpx.Response(200, stream=body))
    async with client(script).stream_rows(*QUESTION, Lines()) as batches:
        async for _ in batches:
            break
    assert body.closed
    assert body.sent == 1


class Trickle(httpx.AsyncByteStream):
    """A body without end, of which something comes each second."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await trio.sleep(1)
            yield b"a/"


async def test_rows_without_end_meet_their_deadline_between_two_batches(autojump_clock: MockClock) -> None:
    script = Script(httpx.Response(200, stream=Trickle()))
    with pytest.raises(DeadlinePassed, match="did not finish getSeries within 30 s"):
        await rows_of(client(script, whole_timeout_s=30, listing_timeout_s=5))
    assert trio.current_time() == pytest.approx(30)


async def test_rows_of_which_nothing_comes_meet_their_deadline(autojump_clock: MockClock) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(DeadlinePassed, match="did not finish getSeries within 30 s"):
        await rows_of(client(never, whole_timeout_s=30))
    assert trio.current_time() == pytest.approx(30)


# A real socket: httpcore's pool and h11 are in play


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    b"/quick": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nquick",
    b"/slow": CHUNKED + b"2\r\nPK\r\n",
    b"/silent": b"",
    b"/cut": CHUNKED + b"2\r\nPK\r\n",
}


async def serve(stream: trio.SocketStream) -> None:
    """Answer /quick at once, begin /slow and never go on, never begin /silent, break off /cut."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some()
    path = received.split()[1]
    await stream.send_all(ANSWERS[path])
    if path in (b"/slow", b"/silent"):
        await stream.receive_some()  # until the client goes away


@pytest.fixture
async def server(nursery: trio.Nursery) -> str:
    (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    return f"http://127.0.0.1:{listener.socket.getsockname()[1]}"


def direct(server: str, **limits: Any) -> HttpClient:
    return HttpClient(server, HttpLimits(**limits), retries=0)


async def read_all(archive: HttpClient, path: str) -> bytes:
    async with archive.stream(path, {}) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_after_fifty_cancelled_streams_the_next_request_is_answered(server: str) -> None:
    archive = direct(server, connections=4)

    async def begin_and_leave(scope: trio.CancelScope) -> None:
        with scope:
            async with archive.stream("slow", {}) as chunks:
                async for _ in chunks:
                    scope.cancel()

    async with trio.open_nursery() as readers:
        for number in range(50):
            scope = trio.CancelScope()
            readers.start_soon(begin_and_leave, scope)
            if number % 3 == 0:
                scope.cancel()  # while it waits for its connection
    assert await archive.fetch("quick", {}, Whole) == b"quick"
    await archive.aclose()


async def test_a_real_stream_that_is_left_early_leaves_nothing_behind(server: str) -> None:
    archive = direct(server)
    async with archive.stream("slow", {}) as chunks:
        async for chunk in chunks:
            assert chunk == b"PK"
            break
    await archive.aclose()


@pytest.mark.parametrize("path", ["slow", "silent"])
async def test_a_server_that_falls_silent_meets_the_stall_deadline(server: str, path: str) -> None:
    archive = direct(server, stall_timeout_s=0.05)
    with pytest.raises(DeadlinePassed, match="stopped sending"):
        await read_all(archive, path)
    await archive.aclose()


@pytest.mark.parametrize("path", ["slow", "silent"])
async def test_rows_of_a_server_that_falls_silent_meet_the_stall_deadline(server: str, path: str) -> None:
    archive = direct(server, stall_timeout_s=0.05)
    with pytest.raises(DeadlinePassed, match="stopped sending"):
        await rows_of(archive, path)
    await archive.aclose()


async def test_cancelled_and_failing_rows_leave_nothing_behind(server: str) -> None:
    archive = direct(server, connections=1)
    for _ in range(5):
        with trio.CancelScope() as scope:
            async with archive.stream_rows("slow", {}, Lines()) as batches:
                scope.cancel()
                [batch async for batch in batches]
        with pytest.raises(Unreachable, match="broke off"):
            await rows_of(archive, "cut")
    assert await archive.fetch("quick", {}, Whole) == b"quick"
    await archive.aclose()


async def test_a_connection_cut_within_a_chunked_body_is_unreachable(server: str) -> None:
    archive = direct(server)
    with pytest.raises(Unreachable, match="broke off"):
        await read_all(archive, "cut")
    await archive.aclose()


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        archive = direct(f"http://127.0.0.1:{port}")
        with pytest.raises(Unreachable, match=f"127.0.0.1:{port} could not be reached"):
            await archive.fetch("quick", {}, Whole)
        await archive.aclose()
