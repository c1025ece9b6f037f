"""NbiaArchive against a scripted server that answers as NBIA's source says it does."""

import datetime as dt
import hashlib
import io
import json
import logging
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import httpx
import msgspec
import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from tciafs.archives.http.limits import HttpLimits
from tciafs.archives.nbia.archive import DEFAULT_URL, Api, NbiaArchive, NbiaConfig
from tciafs.archives.nbia.images import parse_checksums
from tciafs.errors import (
    AccessDenied,
    DeadlinePassed,
    Misuse,
    SeriesDamaged,
    SlowDown,
    TciafsError,
    Unreachable,
    UnreadableAnswer,
)
from tciafs.model import (
    Archive,
    Change,
    Checksums,
    Collection,
    Delivery,
    Member,
    Patient,
    Series,
    Study,
)

T = TypeVar("T")

URL = "https://archive.example/nbia-api/services"
SERIES = Series("LIDC-IDRI", "LIDC-IDRI-0001", "1.2", "1.2.3", image_count=3, size_bytes=60_000)
IMAGES = {"1-1.dcm": b"a" * 20_000, "1-2.dcm": b"", "1-3.dcm": bytes(range(250)) * 160}
LICENCE = {"LICENSE": b"License\n\nThe collection is distributed under ..."}
MD5 = {name: hashlib.md5(content).hexdigest() for name, content in IMAGES.items()}


class Body(httpx.AsyncByteStream):
    """A body in pieces, which may end in an exception."""

    def __init__(self, content: bytes, size: int = 997, failure: Exception | None = None) -> None:
        self._pieces = [content[start : start + size] for start in range(0, len(content), size)]
        self._failure = failure
        self.sent = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await trio.lowlevel.checkpoint()
            self.sent += 1
            yield piece
        if self._failure is not None:
            raise self._failure

    async def aclose(self) -> None:
        self.closed = True


def answer(content: bytes = b"", status: int = 200) -> httpx.Response:
    return httpx.Response(status, stream=Body(content))


class Server:
    """Answers by endpoint, such as "v4/getSeries"; what it does not know is 404."""

    def __init__(self, **endpoints: Callable[[httpx.Request], httpx.Response]) -> None:
        self.endpoints = endpoints
        self.asked: list[str] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/nbia-api/services/")
        self.asked.append(path)
        self.requests.append(request)
        endpoint = self.endpoints.get(path.replace("/", "_"))
        return answer(b"not found", 404) if endpoint is None else endpoint(request)


def archive(
    server: Callable[..., Any], *, api: Api | None = "v4", url: str = URL, retries: int = 0
) -> NbiaArchive:
    config = NbiaConfig(url=url, api=api, retries=retries)
    return NbiaArchive(config, transport=httpx.MockTransport(server))


def always(content: bytes | str = b"", status: int = 200) -> Callable[[httpx.Request], httpx.Response]:
    sent = content.encode() if isinstance(content, str) else content
    return lambda request: answer(sent, status)


def zipped(*groups: dict[str, bytes]) -> bytes:
    """Return a ZIP as Java writes it: deflated, sizes and CRC behind the data."""

    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.sent = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.sent += data
            return len(data)

    target = Unseekable()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in (pair for group in groups for pair in group.items()):
            writer.writestr(name, content)
    return bytes(target.sent)


def md5_table(rows: dict[str, str]) -> dict[str, bytes]:
    lines = ["Filename,MD5Hash", *(f"{name},{md5}" for name, md5 in rows.items()), ""]
    return {"md5hashes.csv": "\n".join(lines).encode()}


COMPLETE = zipped(LICENCE, IMAGES, md5_table(MD5))


# Configuration


def test_a_configuration_crosses_to_a_worker_as_json() -> None:
    config = NbiaConfig(URL, "v1", 2, HttpLimits(connect_timeout_s=3), "agent/1")
    sent = msgspec.json.encode(config)
    assert msgspec.json.decode(sent, type=NbiaConfig) == config
    assert msgspec.json.decode(b"{}", type=NbiaConfig) == NbiaConfig(DEFAULT_URL, None)


def test_the_archive_keeps_the_protocol() -> None:
    kept: Archive = archive(Server())
    assert kept is not None


@pytest.mark.parametrize(
    ("url", "api", "path"),
    [
        (URL, "v4", "v4/getCollectionValues"),
        (URL + "/", "v1", "v1/getCollectionValues"),
        (URL + "/v1", None, "v1/getCollectionValues"),
        (URL + "/v4/", None, "v4/getCollectionValues"),
        (URL + "/v1", "v4", "v4/getCollectionValues"),
    ],
)
async def test_an_address_may_end_in_a_slash_or_in_a_version(url: str, api: Api | None, path: str) -> None:
    server = Server(v4_getCollectionValues=always("[]"), v1_getCollectionValues=always("[]"))
    await archive(server, url=url, api=api).collections()
    assert server.asked == [path]


def test_an_address_that_is_none_is_misuse() -> None:
    with pytest.raises(Misuse):
        archive(Server(), url="nbia")


async def test_a_token_is_sent_and_shows_in_no_repr() -> None:
    class Bearer:
        async def token(self) -> str:
            return "s3cret"

        async def renewed(self, refused: str) -> str:
            return refused

    server = Server(v4_getCollectionValues=always())
    nbia = NbiaArchive(NbiaConfig(URL, "v4"), bearer=Bearer(), transport=httpx.MockTransport(server))
    await nbia.collections()
    assert server.requests[0].headers["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(nbia) + repr(nbia.config)


# Which version


async def test_v4_is_found_by_asking_once() -> None:
    server = Server(v4_getCollectionValues=always('[{"Collection": "X"}]'), v4_getPatient=always())
    nbia = archive(server, api=None)
    assert nbia.config.api is None
    assert await nbia.collections() == (Collection("X"),)
    await nbia.patients("X")
    assert server.asked == ["v4/getCollectionValues", "v4/getPatient"]
    assert nbia.config.api == "v4"


async def test_the_collections_that_tell_the_version_serve_once_and_are_asked_for_again() -> None:
    answers = iter([answer(b'[{"Collection": "X"}]'), answer(b'[{"Collection": "Y"}]')])
    nbia = archive(Server(v4_getCollectionValues=lambda request: next(answers)), api=None)
    assert await nbia.collections() == (Collection("X"),)
    assert await nbia.collections() == (Collection("Y"),)


async def test_the_collections_that_told_another_the_version_are_not_believed_later() -> None:
    answers = iter([answer(b'[{"Collection": "X"}]'), answer(b'[{"Collection": "Y"}]')])
    server = Server(v4_getCollectionValues=lambda request: next(answers), v4_getPatient=always())
    nbia = archive(server, api=None)
    await nbia.patients("X")
    assert await nbia.collections() == (Collection("Y"),)


async def test_who_waits_for_the_version_to_list_the_collections_need_not_ask_again() -> None:
    gate = Gate()
    nbia = archive(gate, api=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nbia.patients, "X")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(nbia.collections)
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert gate.asked == ["v4/getCollectionValues", "v4/getPatient"]


@pytest.mark.parametrize("status", [404, 405, 410, 501])
async def test_a_server_without_v4_is_spoken_to_in_v1(status: int) -> None:
    server = Server(
        v4_getCollectionValues=always("", status),
        v1_getCollectionValues=always(),
        v1_getPatient=always('[{"PatientId": "P", "Collection": "X"}]'),
    )
    nbia = archive(server, api=None)
    assert await nbia.patients("X") == (Patient("X", "P"),)
    assert nbia.config.api == "v1"


async def test_an_address_without_any_version_is_unreadable() -> None:
    with pytest.raises(UnreadableAnswer, match="neither v4 nor v1"):
        await archive(Server(), api=None).collections()


async def test_a_network_error_is_no_verdict_on_the_version() -> None:
    answers = iter([answer(b"", 502), answer(), answer()])
    server = Server(v4_getCollectionValues=lambda request: next(answers))
    nbia = archive(server, api=None)
    with pytest.raises(Unreachable):
        await nbia.collections()
    assert nbia.config.api is None
    assert await nbia.collections() == ()
    assert nbia.config.api == "v4"


class Gate:
    """A server whose first answer waits until it is opened."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = iter(statuses)
        self.opened = trio.Event()
        self.asked: list[str] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path.removeprefix("/nbia-api/services/"))
        await self.opened.wait()
        return answer(b"", next(self.statuses, 200))


async def test_many_who_need_the_version_ask_for_it_once() -> None:
    gate = Gate()
    nbia = archive(gate, api=None)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(nbia.patients, "X")
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert gate.asked.count("v4/getCollectionValues") == 1
    assert gate.asked.count("v4/getPatient") == 5


async def test_a_failure_to_find_the_version_is_shared_by_all_who_waited() -> None:
    gate = Gate(500)
    nbia = archive(gate, api=None)
    failures: list[TciafsError] = []

    async def ask() -> None:
        with pytest.raises(Unreachable) as caught:
            await nbia.patients("X")
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert gate.asked == ["v4/getCollectionValues"]
    assert len({str(failure) for failure in failures}) == 1
    assert len({id(failure) for failure in failures}) == 5


async def test_when_the_one_who_asks_for_the_version_is_killed_the_next_one_asks() -> None:
    gate = Gate()
    nbia = archive(gate, api=None)
    killed = trio.CancelScope()

    async def ask_and_die() -> None:
        with killed:
            await nbia.patients("X")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_die)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(nbia.patients, "X")
        await trio.testing.wait_all_tasks_blocked()
        killed.cancel()
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert gate.asked == ["v4/getCollectionValues"] * 2 + ["v4/getPatient"]


# Listings


async def test_listings_ask_with_the_names_of_the_api() -> None:
    server = Server(v4_getPatient=always(), v4_getPatientStudy=always(), v4_getSeries=always("", 204))
    nbia = archive(server)
    assert await nbia.patients("CT Lymph Nodes") == ()
    assert await nbia.studies("X", "P & Q") == ()
    assert await nbia.series("X", "P") == ()
    assert await rows_of(nbia.every_study("X")) == []
    assert await rows_of(nbia.every_series("X")) == []
    assert [dict(request.url.params) for request in server.requests] == [
        {"Collection": "CT Lymph Nodes"},
        {"Collection": "X", "PatientID": "P & Q"},
        {"Collection": "X", "PatientID": "P"},
        {"Collection": "X"},
        {"Collection": "X"},
    ]


async def test_a_listing_holds_exactly_what_was_asked_for() -> None:
    row = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "PatientID": "p"}
    body = json.dumps([row | {"Collection": "Lung"}, row | {"Collection": "LUNG"}])
    server = Server(v4_getSeries=always(body), v4_getPatientStudy=always(body))
    nbia = archive(server)
    assert [record.collection for record in await rows_of(nbia.every_series("LUNG"))] == ["LUNG"]
    assert [record.collection for record in await nbia.series("LUNG", "p")] == ["LUNG"]
    assert [record.collection for record in await nbia.studies("Lung", "p")] == ["Lung"]
    assert await nbia.studies("Lung", "P") == ()


async def test_a_maintenance_page_is_asked_past(autojump_clock: MockClock) -> None:
    answers = iter([answer(b"<html>"), answer(b"", 503), answer(b'[{"Collection": "X"}]')])
    server = Server(v4_getCollectionValues=lambda request: next(answers))
    assert await archive(server, retries=2).collections() == (Collection("X"),)


async def test_a_series_that_is_denied_comes_with_the_page_that_says_how_to_apply() -> None:
    nbia = archive(Server(v4_getImage=always(DENIED, 400)))
    page = "https://doi.org/10.7937/K9/TCIA.2015.X"
    with pytest.raises(AccessDenied, match=r"has not been granted"):
        async with nbia.images(SERIES):
            raise AssertionError("not reached")
    with pytest.raises(AccessDenied, match=r"has not been granted.* \(see https://doi\.org/10\.7937/"):
        async with nbia.images(replace(SERIES, data_uri=page)):
            raise AssertionError("not reached")


async def test_a_series_that_is_denied_without_a_page_is_not_its_own_cause() -> None:
    nbia = archive(Server(v4_getImage=always(DENIED, 400)))
    with pytest.raises(AccessDenied) as refused:
        async with nbia.images(SERIES):
            raise AssertionError("not reached")
    assert refused.value.__cause__ is not refused.value


DENIED = "The user has not been granted the access to image with given SeriesInstanceUID,1.2.3."
NOT_PUBLIC = "Image with given SeriesInstanceUID,1.2.3, is not in public domain."
UNKNOWN = "Invalid query parameter: 'PatientID'. Allowed parameters are: [Collection]"
REFUSALS = [
    (400, DENIED, AccessDenied, "has not been granted"),
    (400, NOT_PUBLIC, AccessDenied, "not in public domain"),
    (400, UNKNOWN, UnreadableAnswer, "--api"),
    (400, "A parameter, Collection, is required", UnreadableAnswer, "is required"),
    (401, "", AccessDenied, "401"),
    (403, "", AccessDenied, "403"),
    (404, "", UnreadableAnswer, "404"),
    (422, "", UnreadableAnswer, "422"),
    (429, "", SlowDown, "429"),
    (500, "Server was not able to process your request\nnull", Unreachable, "not able to process"),
]


@pytest.mark.parametrize(("status", "text", "expected", "said"), REFUSALS)
async def test_a_refusal_says_what_it_means(
    status: int, text: str, expected: type[TciafsError], said: str
) -> None:
    refusing = always(text, status)
    nbia = archive(Server(v4_getSeries=refusing, v4_getImage=refusing))
    with pytest.raises(expected, match=said) as caught:
        await nbia.series("X", "P")
    assert type(caught.value) is expected
    with pytest.raises(expected, match=said) as caught:
        await rows_of(nbia.every_series("X"))
    assert type(caught.value) is expected
    with pytest.raises(expected, match=said) as caught:
        await delivered(nbia)
    assert type(caught.value) is expected


# Whole collections


Batches = AbstractAsyncContextManager[AsyncIterator[Sequence[T]]]


async def rows_of(every: Batches[T]) -> list[T]:
    async with every as batches:
        return [record async for batch in batches for record in batch]


def series_rows(count: int) -> bytes:
    row = {"StudyInstanceUID": "1.2", "Collection": "X", "SeriesDescription": "},{" * 20}
    return json.dumps(
        [row | {"SeriesInstanceUID": f"1.3.{number}", "PatientID": f"P{number}"} for number in range(count)]
    ).encode()


async def test_all_series_come_in_batches_while_the_rest_is_still_to_come() -> None:
    body = Body(series_rows(5_000), size=8_192)
    nbia = archive(Server(v4_getSeries=lambda request: httpx.Response(200, stream=body)))
    sent: list[int] = []
    found: list[Series] = []
    async with nbia.every_series("X") as batches:
        async for batch in batches:
            sent.append(body.sent)
            found += batch
    assert [series.series_uid for series in found] == [f"1.3.{number}" for number in range(5_000)]
    assert len(sent) > 5
    assert sent[0] < 12


@pytest.mark.parametrize(
    ("content", "failure", "expected"),
    [
        (series_rows(500)[:-1], None, UnreadableAnswer),
        (series_rows(500) + b"]", None, UnreadableAnswer),
        (series_rows(500)[:-1], httpx.ReadError("reset"), Unreachable),
        (series_rows(500)[:-1], httpx.ReadTimeout(""), DeadlinePassed),
    ],
)
async def test_series_that_break_off_are_an_error_after_what_has_come(
    content: bytes, failure: Exception | None, expected: type[TciafsError]
) -> None:
    server = Server(v4_getSeries=lambda request: httpx.Response(200, stream=Body(content, failure=failure)))
    found: list[Series] = []

    async def take() -> None:
        async with archive(server, retries=4).every_series("X") as batches:
            async for batch in batches:
                found.extend(batch)

    with pytest.raises(expected):
        await take()
    assert found
    assert len(server.requests) == 1


async def test_all_studies_of_v1_are_asked_for_in_v1() -> None:
    row = {
        "StudyInstanceUID": "1.2",
        "PatientID": "P",
        "Collection": "X",
        "StudyDate": "2000-01-01 00:00:00.0",
    }
    server = Server(v1_getPatientStudy=always(json.dumps([row])))
    studies = await rows_of(archive(server, api="v1").every_study("X"))
    assert studies == [Study("X", "P", "1.2", dt.date(2000, 1, 1))]


# Changes


DAY = dt.date(2026, 1, 2)


async def test_changes_are_asked_for_by_a_day_in_the_order_of_v4() -> None:
    row = {"Collection": "X", "PatientID": "P", "DateReleased": "02-01-2026"}
    server = Server(v4_getUpdatedSeries=always(json.dumps([row])))
    assert await archive(server).changes(DAY) == (Change("X", "P", dt.date(2026, 2, 1)),)
    assert dict(server.requests[0].url.params) == {"fromDate": "01-02-2026"}


async def test_nothing_new_is_no_change() -> None:
    assert await archive(Server(v4_getUpdatedSeries=always())).changes(DAY) == ()


async def test_v1_cannot_tell_changes_and_is_not_asked() -> None:
    server = Server(v1_getUpdatedSeries=always("[]"))
    assert await archive(server, api="v1").changes(DAY) is None
    assert server.asked == []


@pytest.mark.parametrize("status", [404, 405, 410, 501])
async def test_a_server_without_changes_cannot_tell_them(status: int) -> None:
    assert await archive(Server(v4_getUpdatedSeries=always("", status))).changes(DAY) is None


@pytest.mark.parametrize(
    ("status", "expected"), [(400, UnreadableAnswer), (403, AccessDenied), (500, Unreachable)]
)
async def test_changes_that_are_refused_are_an_error(status: int, expected: type[TciafsError]) -> None:
    with pytest.raises(expected) as caught:
        await archive(Server(v4_getUpdatedSeries=always("no", status))).changes(DAY)
    assert type(caught.value) is expected


# Images


async def delivered(nbia: NbiaArchive, series: Series = SERIES) -> dict[str | None, bytes]:
    """Return all members of a series, read to their ends, and the checksums under None."""
    found: dict[str | None, bytes] = {}
    async with nbia.images(series) as deliveries:
        async for delivery in deliveries:
            if isinstance(delivery, Checksums):
                found[None] = repr(delivery.md5_by_name).encode()
            else:
                found[delivery.name] = b"".join([chunk async for chunk in delivery.chunks])
    return found


def sending(content: bytes, **options: Any) -> Server:
    return Server(v4_getImage=lambda request: httpx.Response(200, stream=Body(content, **options)))


@pytest.mark.parametrize("size", [1, 7, 8192, 1 << 20])
async def test_images_arrive_with_names_bytes_and_checksums(size: int) -> None:
    server = sending(COMPLETE, size=size)
    expected: dict[str | None, bytes] = {None: repr(tuple(MD5.items())).encode()}
    expected.update(IMAGES)
    assert await delivered(archive(server)) == expected
    (request,) = server.requests
    assert dict(request.url.params) == {
        "SeriesInstanceUID": "1.2.3",
        "NewFileNames": "Yes",
        "IncludeMD5": "Yes",
    }
    assert request.headers["Accept-Encoding"] == "identity"


async def test_v1_is_not_asked_for_checksums() -> None:
    server = Server(v1_getImage=always(zipped(LICENCE, IMAGES)))
    assert await delivered(archive(server, api="v1")) == IMAGES
    assert "IncludeMD5" not in server.requests[0].url.params


async def test_a_v4_that_does_not_know_checksums_is_asked_for_them_once() -> None:
    def old(request: httpx.Request) -> httpx.Response:
        if "IncludeMD5" in request.url.params:
            return answer(b"Invalid query parameter: 'IncludeMD5'. Allowed ...", 400)
        return answer(zipped(LICENCE, IMAGES))

    server = Server(v4_getImage=old)
    nbia = archive(server)
    for _ in range(2):
        assert await delivered(nbia) == IMAGES
    asked = ["IncludeMD5" in request.url.params for request in server.requests]
    assert asked == [True, False, False]


async def test_what_is_no_image_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tciafs")
    others = {"069.xml": b"<annotation/>", "notes.txt": b"", "md5hashes.txt": b"x"}
    nbia = archive(sending(zipped(LICENCE, others, IMAGES)))
    assert await delivered(nbia) == IMAGES
    assert "069.xml" in caplog.text


async def test_names_of_a_server_without_new_names_are_used_as_given() -> None:
    old = {"00000001.dcm": b"one", "00000002.DCM": b"two"}
    assert await delivered(archive(sending(zipped(old)))) == old


async def test_a_short_but_valid_zip_is_the_business_of_whoever_counts() -> None:
    one = {"1-1.dcm": b"one"}
    assert await delivered(archive(sending(zipped(LICENCE, one)))) == one


async def test_members_that_are_passed_by_are_read_past() -> None:
    seen: list[str | None] = []
    async with archive(sending(COMPLETE)).images(SERIES) as deliveries:
        async for delivery in deliveries:
            seen.append(delivery.name if isinstance(delivery, Member) else None)
    assert seen == [*IMAGES, None]


async def first_two(deliveries: AsyncIterator[Delivery]) -> tuple[Member, Member]:
    first = await anext(deliveries)
    assert isinstance(first, Member)
    await anext(first.chunks)
    second = await anext(deliveries)
    assert isinstance(second, Member)
    return first, second


async def test_a_member_that_was_passed_by_cannot_seem_complete() -> None:
    async with archive(sending(COMPLETE, size=8)).images(SERIES) as deliveries:
        first, _ = await first_two(deliveries)
        with pytest.raises(RuntimeError, match=r"'1-1\.dcm' was passed by"):
            await anext(first.chunks)


async def test_a_member_read_to_its_end_stays_ended() -> None:
    async with archive(sending(COMPLETE)).images(SERIES) as deliveries:
        first = await anext(deliveries)
        assert isinstance(first, Member)
        assert b"".join([chunk async for chunk in first.chunks]) == IMAGES["1-1.dcm"]
        await anext(deliveries)
        assert [chunk async for chunk in first.chunks] == []


async def test_leaving_in_the_middle_of_a_member_closes_the_answer() -> None:
    body = Body(COMPLETE, size=16)
    server = Server(v4_getImage=lambda request: httpx.Response(200, stream=body))
    async with archive(server).images(SERIES) as deliveries:
        member = await anext(deliveries)
        assert isinstance(member, Member)
        await anext(member.chunks)
    assert body.closed
    assert body.sent < len(COMPLETE) / 16


async def test_chunks_are_batched_and_bounded() -> None:
    big = {"1-1.dcm": bytes(5_000_000)}
    content = zipped(big)
    series = Series("X", "P", "1", "2", image_count=1, size_bytes=5_000_000)
    async with archive(sending(content, size=len(content))).images(series) as deliveries:
        member = await anext(deliveries)
        assert isinstance(member, Member)
        sizes = [len(chunk) async for chunk in member.chunks]
    assert sum(sizes) == 5_000_000
    assert min(sizes) > 0
    assert max(sizes) <= 2 << 20


# Bodies that are no series


@pytest.mark.parametrize(
    ("content", "expected", "said"),
    [
        (b"", SeriesDamaged, r"empty answer instead of series 1\.2\.3"),
        (b"<html>Maintenance</html>", UnreadableAnswer, "a web page instead of series"),
        (b"Server was not able", UnreadableAnswer, "no ZIP instead of series"),
        (b"P", UnreadableAnswer, "no ZIP instead of series"),
        (b"PKxx not a ZIP after all", UnreadableAnswer, "ZIP"),
    ],
)
async def test_a_good_status_with_another_body_is_told(
    content: bytes, expected: type[TciafsError], said: str
) -> None:
    with pytest.raises(expected, match=said) as caught:
        await delivered(archive(sending(content, size=1)))
    assert type(caught.value) is expected


@pytest.mark.parametrize("kept", [3, 30, len(COMPLETE) // 2, len(COMPLETE) - 1])
async def test_a_body_that_ends_early_is_unreadable(kept: int) -> None:
    with pytest.raises(UnreadableAnswer):
        await delivered(archive(sending(COMPLETE[:kept])))


async def test_a_member_whose_bytes_fail_their_check_raises_where_it_is_read() -> None:
    content = bytearray(zipped({"1-1.dcm": b"x" * 1000}))
    descriptor = content.index(b"PK\x07\x08")
    content[descriptor + 4] ^= 1  # the CRC-32
    async with archive(sending(bytes(content))).images(SERIES) as deliveries:
        member = await anext(deliveries)
        assert isinstance(member, Member)
        with pytest.raises(UnreadableAnswer):
            [chunk async for chunk in member.chunks]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (httpx.RemoteProtocolError("incomplete chunked read"), Unreachable),
        (httpx.ReadError("reset"), Unreachable),
        (httpx.ReadTimeout(""), DeadlinePassed),
    ],
)
async def test_a_cut_connection_is_told_where_the_bytes_are_read_and_not_retried(
    failure: Exception, expected: type[TciafsError]
) -> None:
    server = sending(COMPLETE[: len(COMPLETE) // 4], failure=failure)
    with pytest.raises(expected):
        await delivered(archive(server, retries=4))
    assert len(server.requests) == 1


async def test_a_bomb_is_stopped() -> None:
    bomb = zipped({"1-1.dcm": bytes(80_000_000)})
    series = Series("X", "P", "1", "2", image_count=1, size_bytes=1000)
    with pytest.raises(UnreadableAnswer):
        await delivered(archive(sending(bomb, size=65536)), series)


async def test_a_table_of_checksums_without_end_is_stopped() -> None:
    endless = zipped({"md5hashes.csv": bytes(3_000_000)})
    with pytest.raises(UnreadableAnswer, match=r"md5hashes\.csv has more than"):
        await delivered(archive(sending(endless)))


# Checksums

HASH = "0123456789abcdef" * 2


TABLES = [
    f"Filename,MD5Hash\n1-1.dcm,{HASH}\n",
    f"Filename,MD5Hash\r\n1-1.dcm,{HASH}\r\n",
    f'"Filename","MD5Hash"\r\n"1-1.dcm","{HASH.upper()}"',
    f"\ufeff1-1.dcm, {HASH} \n\n\n",
    f"Filename,MD5Hash\n1-1.dcm,{HASH}\n1-2.dcm,null\n1-3.dcm\n,{HASH}\n1-4.dcm,{HASH},x\n",
]


@pytest.mark.parametrize("text", TABLES)
def test_a_table_of_checksums_is_read_in_any_dress(text: str) -> None:
    assert parse_checksums(text) == Checksums((("1-1.dcm", HASH),))


def test_a_table_that_is_no_csv_is_unreadable_or_empty() -> None:
    assert parse_checksums("") == Checksums(())
    with pytest.raises(UnreadableAnswer):
        parse_checksums('"' + "x" * 200_000)
