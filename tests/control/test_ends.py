"""Both ends of the control socket, over a real one: what is asked is answered, whatever else comes."""

import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec
import pytest
import trio
from msgspec.structs import replace as altered

from tciafs.control import client, place
from tciafs.control import server as server_module
from tciafs.control.client import (
    ask_cached,
    ask_check,
    ask_evict,
    ask_failed,
    ask_failures,
    ask_known,
    ask_locate,
    ask_named,
    ask_pause,
    ask_pin,
    ask_prefetch,
    ask_refresh,
    ask_series,
    ask_status,
    ask_used,
)
from tciafs.control.commands import Commands
from tciafs.control.known_values import KnownFolder, KnownPage, LocatedImage
from tciafs.control.manifest_client import ask_add_manifest, ask_manifests, ask_remove_manifest
from tciafs.control.manifest_values import AddedManifest, AddManifest, KeptManifest, ManifestPage
from tciafs.control.place import listening, sockets
from tciafs.control.series_values import ListedSeries, Prefetch, PrefetchedSeries, PrefetchTurn, SeriesPage
from tciafs.control.server import MOST_ANSWER_BYTES, MOST_REQUEST_BYTES, serve
from tciafs.control.usage_values import UsedPage, UsedSource
from tciafs.control.values import (
    CachedPage,
    CachedSeries,
    CacheStatus,
    CatalogueStatus,
    CheckPlace,
    CheckTurn,
    DownloadStatus,
    Evicted,
    FailurePage,
    FailureStatus,
    Status,
)
from tciafs.errors import AccessDenied, Misuse, NoDaemon, NoSuchName, SlowDown, TciafsError, Unreachable
from tests.statuses import make_status

A = TypeVar("A")

MOUNT = Path("/mnt/tcia")
DOWNLOAD = DownloadStatus("1.2.3", "Lung", "P1", "arriving", 1, 2, 100, 90, None)
STATUS = make_status(
    mounted_at=1e9,
    patience_s=10.0,
    cache=CacheStatus(1000, 100, 900, 1),
    downloads=(DOWNLOAD,),
    downloads_total=1,
    inodes=3,
    catalogue=CatalogueStatus(5, 4, ()),
)

KNOWN = KnownPage((KnownFolder("P1", 2, None, None, 1, 4096),), 7, "P1")


@dataclass
class FakeDaemon:
    """Answers with a value or an error; a refresh waits while `open` is not set."""

    answer: Status | Exception = STATUS
    failure: Exception | None = None
    failures: list[FailureStatus] = field(default_factory=list)
    cached: list[CachedSeries] = field(default_factory=list)
    checked: list[tuple[str, CheckPlace]] = field(default_factory=list)
    series: list[ListedSeries] = field(default_factory=list)
    prefetched: list[Prefetch] = field(default_factory=list)
    refreshed: list[str] = field(default_factory=list)
    pauses: list[bool] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)
    pins: list[tuple[str, bool]] = field(default_factory=list)
    manifest_parts: list[AddManifest] = field(default_factory=list)
    manifests: list[KeptManifest] = field(default_factory=list)
    asked: trio.Event = field(default_factory=trio.Event)
    open: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    @property
    def commands(self) -> Commands:
        return Commands(
            status=self.status,
            failures=self.list_failures,
            cached=self.list_cached,
            check=self.check,
            series=self.list_series,
            failed=self.list_failed,
            named=self.list_named,
            prefetch=self.prefetch,
            refresh=self.refresh,
            pause=self.pauses.append,
            log_level=self.levels.append,
            pin=self.pin,
            evict=self.evict,
            add_manifest=self.add_manifest,
            manifests=self.list_manifests,
            remove_manifest=self.remove_manifest,
            used=self.list_used,
            known=self.known,
            locate=self.locate,
        )

    async def known(self, path: str, after: str) -> KnownPage:
        self.refreshed.append(path + after)
        return KNOWN

    async def locate(self, series_uid: str, image: int | None) -> LocatedImage:
        if image is not None and image > 1:
            raise NoSuchName("no such image")
        return LocatedImage("/cache/pack", 10, 20, "1-2.dcm", 1 if image is None else image, 2)

    async def add_manifest(self, part: AddManifest) -> AddedManifest | None:
        self.manifest_parts.append(part)
        return AddedManifest(2, ("one is missing",)) if part.is_whole else None

    def list_manifests(self, after: str) -> ManifestPage:
        behind = [each for each in self.manifests if each.name > after]
        return ManifestPage(tuple(behind[:2]), more=len(behind) > 2)

    def list_used(self, since: str, place: int) -> UsedPage:
        page = tuple(UsedSource("Lung", str(number), "", "", "", number) for number in range(place, 5))
        return UsedPage(page[:2], more=len(page) > 2)

    async def remove_manifest(self, name: str) -> None:
        self.manifests = [each for each in self.manifests if each.name != name]

    async def pin(self, path: str, pinned: bool) -> None:
        self.pins.append((path, pinned))
        if self.failure is not None:
            raise self.failure

    async def evict(self, path: str, after: str) -> Evicted:
        """Drop one series at a time."""
        behind = [each for each in self.cached if each.series_uid > after]
        following = behind[0].series_uid if len(behind) > 1 else None
        return Evicted(1, behind[0].image_bytes, pinned=2, in_use=3, next=following)

    async def list_cached(self, path: str, after: str) -> CachedPage:
        behind = [each for each in self.cached if each.series_uid > after]
        return CachedPage(tuple(behind[:2]), behind[1].series_uid if len(behind) > 2 else None)

    async def list_series(self, path: str, after: tuple[str, ...]) -> SeriesPage:
        behind = [each for each in self.series if each.path > after]
        return SeriesPage(tuple(behind[:2]), more=len(behind) > 2)

    async def list_failed(self, path: str, after: tuple[str, ...]) -> SeriesPage:
        return await self.list_series(path, after)

    async def list_named(self, series_uids: tuple[str, ...], after: str) -> SeriesPage:
        behind = [each for each in self.series if each.path[-1] in series_uids and each.path[-1] > after]
        return SeriesPage(tuple(behind[:2]), more=len(behind) > 2)

    async def prefetch(self, wish: Prefetch) -> PrefetchTurn:
        self.prefetched.append(wish)
        return PrefetchTurn(tuple(PrefetchedSeries(path[-1], "here", 7) for path in wish.series))

    async def check(self, series_uid: str, place: CheckPlace) -> CheckTurn:
        self.checked.append((series_uid, place))
        return CheckTurn(10, CheckPlace(place.image + 1, 2, 3, "x"), None, is_gone=False)

    def list_failures(self, after: str) -> FailurePage:
        behind = [each for each in self.failures if each.series_uid > after]
        return FailurePage(tuple(behind[:2]), more=len(behind) > 2)

    def status(self) -> Status:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def refresh(self, path: str) -> None:
        self.refreshed.append(path)
        self.asked.set()
        await self.open.wait()
        if self.failure is not None:
            raise self.failure


@pytest.fixture(autouse=True)
def _folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="tciafs-test-", dir="/tmp") as folder:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr(place, "RUNTIME", Path(folder))
        monkeypatch.setattr(place, "TEMPORARY", Path(folder))
        yield


@asynccontextmanager
async def served(daemon: FakeDaemon) -> AsyncIterator[None]:
    """Serve for the length of the block; at the end the server can be stopped, whatever happened."""
    with listening(MOUNT) as listener:
        assert listener is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listener, daemon.commands)
            yield
            nursery.cancel_scope.cancel()


async def in_thread(call: Callable[..., A], *arguments: object) -> A:
    return await trio.to_thread.run_sync(partial(call, *arguments), abandon_on_cancel=True)


def send(method: str, path: str, body: bytes | None = None) -> httpx.Response:
    """Say anything to the server."""
    (socket_path,) = sockets(MOUNT)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket_path)), trust_env=False) as speaker:
        return speaker.request(method, f"http://x{path}", content=body)


def connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(sockets(MOUNT)[0]))
    return connection


class Connections(list[socket.socket]):
    """Connections that are closed at the end, behind the server."""

    def __enter__(self) -> "Connections":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self:
            connection.close()


# What is asked


async def test_failures_come_page_by_page_and_each_once() -> None:
    failures = [
        FailureStatus(f"1.{number}", "Lung", "P1", 1e9, "SeriesDamaged", "short", "") for number in range(5)
    ]
    async with served(FakeDaemon(failures=failures)):
        assert await in_thread(ask_failures, MOUNT) == failures
    async with served(FakeDaemon()):
        assert await in_thread(ask_failures, MOUNT) == []


async def test_what_is_on_disk_comes_page_by_page_and_each_once() -> None:
    cached = [CachedSeries(f"1.{number}", "Lung", "P1", 2, 30, ("crc32",)) for number in range(5)]
    async with served(FakeDaemon(cached=cached)):
        assert await in_thread(ask_cached, MOUNT, "/Lung") == cached


async def test_what_is_known_comes_as_it_was_given() -> None:
    daemon = FakeDaemon()
    async with served(daemon):
        assert await in_thread(ask_known, MOUNT, "/Lung", "/P0") == KNOWN
    assert daemon.refreshed == ["/Lung/P0"]


async def test_an_image_on_disk_is_located_and_no_other() -> None:
    async with served(FakeDaemon()):
        middle = await in_thread(ask_locate, MOUNT, "1.2")
        first = await in_thread(ask_locate, MOUNT, "1.2", 0)
        with pytest.raises(NoSuchName):
            await in_thread(ask_locate, MOUNT, "1.2", 2)
    assert middle == LocatedImage("/cache/pack", 10, 20, "1-2.dcm", 1, 2)
    assert first.image == 0


async def test_a_check_goes_on_where_the_last_turn_ended() -> None:
    daemon = FakeDaemon()
    async with served(daemon):
        turn = await in_thread(ask_check, MOUNT, "1.2", CheckPlace())
        assert turn.next is not None
        await in_thread(ask_check, MOUNT, "1.2", turn.next)
    assert daemon.checked == [("1.2", CheckPlace()), ("1.2", CheckPlace(1, 2, 3, "x"))]


async def test_all_series_at_a_path_are_listed_however_many_pages_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = [ListedSeries(("Lung", "P1", "1.2", f"1.2.{number}"), 2, None) for number in range(5)]
    async with served(FakeDaemon(series=listed)):
        assert await in_thread(lambda: list(ask_series(MOUNT, "/Lung"))) == listed
        assert await in_thread(lambda: list(ask_failed(MOUNT, "/Lung"))) == listed
        uids = [each.path[-1] for each in listed]
        assert await in_thread(lambda: list(ask_named(MOUNT, [*uids, "9.9"]))) == listed
        monkeypatch.setattr(client, "MOST_NAMED", 2)
        assert await in_thread(lambda: list(ask_named(MOUNT, uids))) == listed


async def test_a_wish_to_have_series_fetched_reaches_the_daemon_and_its_answer_the_command() -> None:
    daemon = FakeDaemon()
    wanted = (("Lung", "P1", "1.2", "1.2.3"), ("Lung", "P1", "1.2", "1.2.4"))
    async with served(daemon):
        turn = await in_thread(ask_prefetch, MOUNT, Prefetch(wanted, 17.5))
    assert daemon.prefetched == [Prefetch(wanted, 17.5)]
    assert turn.series == (PrefetchedSeries("1.2.3", "here", 7), PrefetchedSeries("1.2.4", "here", 7))


async def test_a_status_comes_back_as_it_was_given() -> None:
    async with served(FakeDaemon()):
        assert await in_thread(ask_status, MOUNT) == STATUS
        response = await in_thread(send, "GET", "/v1/status")
    assert json.loads(response.content)["downloads"][0]["collection"] == "Lung"
    assert response.headers["content-type"] == "application/json"
    assert "server" not in response.headers


async def test_a_status_can_be_had_as_metrics() -> None:
    daemon = FakeDaemon()
    async with served(daemon):
        response = await in_thread(send, "GET", "/v1/metrics")
        daemon.answer = Unreachable("not now")
        failed = await in_thread(send, "GET", "/v1/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert 'tciafs_cache_used_bytes{mountpoint="/mnt/tcia"} 100.0\n' in response.text
    assert (failed.status_code, json.loads(failed.content)["error"]) == (500, "Unreachable")


async def test_a_refresh_tells_the_path_and_waits_for_the_archive() -> None:
    daemon = FakeDaemon()
    async with served(daemon):
        await in_thread(ask_refresh, MOUNT, "/Lung/P 1/größe")
    assert daemon.refreshed == ["/Lung/P 1/größe"]


async def test_a_status_is_answered_while_a_refresh_hangs() -> None:
    daemon = FakeDaemon()
    daemon.open = trio.Event()
    async with served(daemon), trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, ask_refresh, MOUNT, "/")
        await daemon.asked.wait()
        assert await in_thread(ask_status, MOUNT) == STATUS
        daemon.open.set()


async def test_what_comes_before_the_server_is_loaded_is_answered_then() -> None:
    daemon = FakeDaemon()
    with listening(MOUNT) as listener:
        assert listener is not None
        with connect() as early:
            early.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, listener, daemon.commands)
                assert (await in_thread(early.recv, 100)).startswith(b"HTTP/1.1 200")
                nursery.cancel_scope.cancel()


async def test_a_manifest_of_any_length_comes_in_parts_that_fit_into_a_request() -> None:
    daemon = FakeDaemon()
    uids = [f"{'1.' * 25}{number:014}" for number in range(2500)]
    async with served(daemon):
        added = await in_thread(ask_add_manifest, MOUNT, "mine", uids)
    assert added == AddedManifest(2, ("one is missing",))
    assert [uid for part in daemon.manifest_parts for uid in part.uids] == uids
    assert [part.is_whole for part in daemon.manifest_parts] == [False, False, False, True]


async def test_what_was_read_comes_page_by_page() -> None:
    async with served(FakeDaemon()):
        assert [each.series for each in await in_thread(ask_used, MOUNT, "2026-01-31")] == list(range(5))


async def test_manifests_come_page_by_page_and_go_by_name() -> None:
    kept = [KeptManifest(str(number), number) for number in range(5)]
    async with served(FakeDaemon(manifests=list(kept))):
        assert await in_thread(ask_manifests, MOUNT) == kept
        await in_thread(ask_remove_manifest, MOUNT, "3")
        assert len(await in_thread(ask_manifests, MOUNT)) == 4


# Errors


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("no route"),
        AccessDenied("not for guests"),
        NoSuchName("no such collection"),
        Misuse("a path begins with /"),
        SlowDown("wait", 30.0),
        TciafsError("it failed"),
    ],
)
async def test_an_error_of_the_daemon_is_the_same_one_in_the_command(error: TciafsError) -> None:
    async with served(FakeDaemon(failure=error)):
        with pytest.raises(type(error)) as raised:
            await in_thread(ask_refresh, MOUNT, "/")
    assert (type(raised.value), str(raised.value)) == (type(error), str(error))


async def test_what_a_terminal_would_obey_is_escaped_in_an_error() -> None:
    async with served(FakeDaemon(failure=Unreachable("\x1b[2J\x9b31m\u202egone"))):
        with pytest.raises(Unreachable) as raised:
            await in_thread(ask_refresh, MOUNT, "/")
    assert str(raised.value) == r"\x1b[2J\x9b31m\u202egone"


async def test_a_mistake_in_the_daemon_is_an_error_and_no_end(expect_log: Callable[[str], None]) -> None:
    expect_log(r"a command failed in an unexpected way: /v1/status(.|\n)*ZeroDivisionError")
    daemon = FakeDaemon(answer=ZeroDivisionError("oops"))
    async with served(daemon):
        with pytest.raises(TciafsError, match="oops"):
            await in_thread(ask_status, MOUNT)
        daemon.answer = STATUS
        assert await in_thread(ask_status, MOUNT) == STATUS


async def test_a_path_that_is_no_unicode_is_refused_before_it_is_sent() -> None:
    daemon = FakeDaemon()
    async with served(daemon):
        with pytest.raises(TciafsError, match=r"no UTF-8"):
            await in_thread(ask_refresh, MOUNT, "/Lung/\udcff")
    assert daemon.refreshed == []


async def test_an_answer_that_cannot_be_sent_is_an_error() -> None:
    daemon = FakeDaemon(answer=altered(STATUS, archive="\ud800"))
    async with served(daemon):
        with pytest.raises(TciafsError, match="no Unicode"):
            await in_thread(ask_status, MOUNT)
        daemon.answer = altered(STATUS, archive="x" * MOST_ANSWER_BYTES)
        with pytest.raises(TciafsError, match="more than allowed"):
            await in_thread(ask_status, MOUNT)


# What nobody should send


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/status", b"{}", 405),
        ("GET", "/v1/refresh", None, 405),
        ("DELETE", "/v1/refresh", None, 405),
        ("GET", "/", None, 404),
        ("GET", "/v2/status", None, 404),
        ("GET", "/v1/status/", None, 404),
        ("GET", "/v1/../v1/" + "x" * 1000, None, 404),
        ("POST", "/v1/refresh", b"", 400),
        ("POST", "/v1/refresh", b"{", 400),
        ("POST", "/v1/refresh", b"[]", 400),
        ("POST", "/v1/refresh", b"{}", 400),
        ("POST", "/v1/refresh", b'{"path": 3}', 400),
        ("POST", "/v1/refresh", b'{"path": "\xff"}', 400),
        ("POST", "/v1/refresh", b'{"path": "/' + b"x" * MOST_REQUEST_BYTES + b'"}', 400),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_and_the_server_lives(
    method: str, path: str, body: bytes | None, status: int
) -> None:
    daemon = FakeDaemon()
    async with served(daemon):
        response = await in_thread(send, method, path, body)
        assert await in_thread(ask_status, MOUNT) == STATUS
    assert (response.status_code, json.loads(response.content)["error"]) == (status, "Misuse")
    assert daemon.refreshed == []


@pytest.mark.parametrize(
    "rubbish", [b"\0" * 100, b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /v1/status HTTP/1.1\r\n"]
)
async def test_what_is_no_request_ends_its_connection_only(rubbish: bytes) -> None:
    async with served(FakeDaemon()):
        with connect() as connection:
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            while await in_thread(connection.recv, 1000):
                pass
        assert await in_thread(ask_status, MOUNT) == STATUS


async def test_one_who_sends_without_end_is_refused_and_does_not_hold_up_the_end() -> None:
    async with served(FakeDaemon()):
        with connect() as connection:
            head = b"POST /v1/refresh HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"

            def send_on() -> None:
                connection.sendall(head)
                while True:
                    connection.sendall(b"x" * 1_000_000)

            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await in_thread(send_on)
            assert await in_thread(ask_status, MOUNT) == STATUS


async def test_those_who_are_silent_or_do_not_read_hold_up_neither_others_nor_the_end() -> None:
    half = b"POST /v1/refresh HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"
    many = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    large = FakeDaemon(answer=altered(STATUS, archive="x" * (MOST_ANSWER_BYTES - 2000)))
    with Connections() as connections:
        async with served(large):
            for words in (b"", b"GET /v1/st", half, many):
                connections.append(connect())
                connections[-1].sendall(words)
            assert (await in_thread(ask_status, MOUNT)).pid == STATUS.pid


async def test_a_request_that_does_not_go_on_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_S", 0.0)
    async with served(FakeDaemon()):
        with connect() as connection:
            connection.sendall(b"POST /v1/refresh HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
            assert (await in_thread(connection.recv, 1000)).startswith(b"HTTP/1.1 400")


@pytest.mark.expect_log("commands do not reach this mount any more")
async def test_a_server_that_fails_is_a_warning_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError("no more")

    monkeypatch.setattr("tciafs.control.server.hypercorn.trio.serve", fail)
    with socket.socket(socket.AF_UNIX) as listener, listener.dup() as given:
        daemon = FakeDaemon()
        await serve(given, daemon.commands)


# A daemon that is not there, or not well


def test_without_a_socket_there_is_no_daemon() -> None:
    with pytest.raises(NoDaemon, match=r"the daemon of /mnt/tcia takes no commands"):
        ask_status(MOUNT)


def test_a_socket_that_a_dead_daemon_left_is_no_daemon() -> None:
    with listening(MOUNT):
        (path,) = sockets(MOUNT)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NoDaemon):
        ask_status(MOUNT)


async def test_the_socket_of_a_living_daemon_is_found_behind_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(FakeDaemon()):
        (living,) = sockets(MOUNT)
        dead = living.with_name("dead.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(dead))
        monkeypatch.setattr(client, "sockets", lambda _mountpoint: [dead, living])
        assert await in_thread(ask_status, MOUNT) == STATUS


@pytest.mark.parametrize("question", [ask_status, partial(ask_refresh, path="/")])
def test_a_daemon_that_says_nothing_is_not_waited_for(
    question: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.01)
    with listening(MOUNT), pytest.raises(TciafsError, match=r"did not answer within 0\.01 s"):
        question(MOUNT)


def answering(listener: socket.socket, answer: bytes) -> None:
    """Be a daemon that gives one answer to whatever comes."""
    for _ in range(2):  # the first call only looks whether anybody listens
        connection, _ = listener.accept()
        with connection:
            if connection.recv(10_000):
                connection.sendall(answer)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "ended before it answered"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "ended before it answered"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "started by another version of tciafs"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops", "started by another version of tciafs"),
    ],
)
async def test_an_answer_that_is_none_is_said_to_be_so(answer: bytes, sentence: str) -> None:
    with listening(MOUNT) as listener:
        assert listener is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, answering, listener, answer)
            with pytest.raises(NoDaemon, match=sentence):
                await in_thread(ask_status, MOUNT)


async def test_an_answer_of_a_newer_daemon_that_says_more_is_understood() -> None:
    more = json.dumps({**msgspec.to_builtins(STATUS), "new": 1}).encode()
    with listening(MOUNT) as listener:
        assert listener is not None
        async with trio.open_nursery() as nursery:
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(more)
            nursery.start_soon(in_thread, answering, listener, head + more)
            assert await in_thread(ask_status, MOUNT) == STATUS


async def test_a_pause_begins_and_ends() -> None:
    daemon = FakeDaemon()
    async with served(daemon):
        for paused in (True, False):
            await in_thread(partial(ask_pause, MOUNT, paused=paused))
    assert daemon.pauses == [True, False]


async def test_what_is_pinned_and_what_is_not_any_more_arrives() -> None:
    daemon = FakeDaemon()
    async with served(daemon):
        for pinned in (True, False):
            await in_thread(partial(ask_pin, MOUNT, "/Lung", pinned=pinned))
        daemon.failure = Misuse("it lies in a folder that is pinned: unpin that one")
        with pytest.raises(Misuse, match="unpin that one"):
            await in_thread(partial(ask_pin, MOUNT, "/Lung/P1", pinned=False))
    assert daemon.pins == [("/Lung", True), ("/Lung", False), ("/Lung/P1", False)]


async def test_evictions_go_on_to_the_end_and_are_added_up() -> None:
    cached = [CachedSeries(f"1.{number}", "Lung", "P1", 2, 1000, ()) for number in range(3)]
    async with served(FakeDaemon(cached=cached)):
        done = await in_thread(partial(ask_evict, MOUNT, "/Lung"))
    assert done == Evicted(3, 3000, pinned=6, in_use=9, next=None)
