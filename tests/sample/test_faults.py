"""The back door: what was asked, what goes wrong on demand, and holding a download in the middle."""

import io
import zipfile
import zlib
from collections.abc import Iterator

import httpx
import pytest

from tests.sample.running import RunningSample, running_sample

ECHO, BRAIN = "Phantom-Echo-NC", "Phantom-Brain-MR"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningSample]:
    with running_sample() as started:
        yield started


@pytest.fixture
def sample(server: RunningSample) -> Iterator[RunningSample]:
    yield server
    server.clear_faults()
    server.forget_requests()


def download(sample: RunningSample, collection: str = BRAIN) -> httpx.Response:
    uid = sample.series_uid(collection)
    query = {"SeriesInstanceUID": uid, "NewFileNames": "Yes", "IncludeMD5": "Yes"}
    return sample.get("v4/getImage", **query)


def test_requests_are_recorded_until_forgotten(sample: RunningSample) -> None:
    sample.forget_requests()
    sample.get("v4/getPatient", Collection="a b&c")
    (request,) = sample.requests()
    assert (request.method, request.endpoint) == ("GET", "getPatient")
    assert request.query == {"Collection": "a b&c"}
    assert sample.requests("getImage") == []
    sample.forget_requests()
    assert sample.requests() == []


def test_requests_are_counted_by_endpoint_until_forgotten(sample: RunningSample) -> None:
    sample.forget_requests()
    for _ in range(3):
        sample.get("v4/getPatient", Collection=ECHO)
    sample.get("v1/getPatient", Collection=ECHO)
    sample.get("v4/getCollectionValues")
    assert sample.tally() == {"getPatient": 4, "getCollectionValues": 1}
    sample.forget_requests()
    assert not sample.tally()


def test_a_status_is_given_as_often_as_asked(sample: RunningSample) -> None:
    sample.fault("status", "getPatient", times=2, code=503, body="busy", retry_after="7")
    answers = [sample.get("v4/getPatient", Collection=ECHO) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert (answers[0].text, answers[0].headers["retry-after"]) == ("busy", "7")


def test_a_fault_can_be_meant_for_one_series(sample: RunningSample) -> None:
    sample.fault("status", series=sample.series_uid(ECHO), code=500)
    assert download(sample, BRAIN).status_code == 200
    assert download(sample, ECHO).status_code == 500


def test_a_cleared_fault_does_not_happen(sample: RunningSample) -> None:
    sample.fault("status", times=9)
    sample.clear_faults()
    assert download(sample).status_code == 200


def test_a_hanging_answer_never_begins_and_harms_nobody_else(sample: RunningSample) -> None:
    sample.fault("hang", "getPatient")
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{sample.url}/v4/getPatient", timeout=0.2, trust_env=False)
    assert sample.get("v4/getPatient").status_code == 200


def receive(url: str, query: dict[str, str], received: list[bytes]) -> None:
    """Read an answer to its end, whatever that is, and keep what came."""
    with httpx.stream("GET", url, params=query, trust_env=False) as answer:
        received.extend(answer.iter_raw())


@pytest.mark.parametrize("after_bytes", [0, 1, 20_000])
def test_a_cut_answer_ends_without_its_end(sample: RunningSample, after_bytes: int) -> None:
    sample.fault("cut", after_bytes=after_bytes)
    query = {"SeriesInstanceUID": sample.series_uid(BRAIN)}
    received: list[bytes] = []
    with pytest.raises(httpx.RemoteProtocolError):
        receive(f"{sample.url}/v4/getImage", query, received)
    assert sum(map(len, received)) == after_bytes
    assert download(sample).status_code == 200


def test_a_corrupt_answer_differs_in_one_byte(sample: RunningSample) -> None:
    uid = sample.series_uid(ECHO)
    images = sample.rows("v4/getSOPInstanceUIDs", SeriesInstanceUID=uid)
    query = {"SeriesInstanceUID": uid, **images[0]}
    good = sample.get("v4/getSingleImage", **query).content
    sample.fault("corrupt", "getSingleImage", after_bytes=1000)
    bad = sample.get("v4/getSingleImage", **query).content
    assert [place for place in range(len(good)) if good[place] != bad[place]] == [1000]


def read_all(content: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def test_a_corrupt_zip_fails_its_check(sample: RunningSample) -> None:
    sample.fault("corrupt", after_bytes=100_000)
    content = download(sample).content
    with pytest.raises((zipfile.BadZipFile, zlib.error)):
        read_all(content)


def test_a_short_zip_is_valid_and_lacks_the_last_images(sample: RunningSample) -> None:
    sample.fault("short", images=3)
    with zipfile.ZipFile(io.BytesIO(download(sample).content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert len(names) == 1 + 40 - 3
    assert names[-1] == "2-17.dcm"


def test_a_wrong_checksum_is_only_wrong_in_the_table(sample: RunningSample) -> None:
    good = zipfile.ZipFile(io.BytesIO(download(sample, ECHO).content))
    sample.fault("wrong_md5")
    bad = zipfile.ZipFile(io.BytesIO(download(sample, ECHO).content))
    with good, bad:
        assert good.read("1-1.dcm") == bad.read("1-1.dcm")
        assert good.read("md5hashes.csv") != bad.read("md5hashes.csv")


def test_a_long_listing_comes_in_pieces_and_can_be_cut_and_halved() -> None:
    with running_sample("--many-patients", "1200") as sample:
        whole = sample.get("v4/getPatient", Collection="MANY")
        assert whole.headers["transfer-encoding"] == "chunked"
        assert len(whole.json()) == 1200
        sample.fault("truncate_json", "getPatient")
        sample.fault("cut", "getPatient", after_bytes=1000)
        sample.fault("empty", "getPatient")
        half = sample.get("v4/getPatient", Collection="MANY")
        assert half.content == whole.content[: len(whole.content) // 2]
        with pytest.raises(httpx.RemoteProtocolError):
            sample.get("v4/getPatient", Collection="MANY")
        assert sample.get("v4/getPatient", Collection="MANY").content == b""


def test_answers_can_be_html_or_empty_or_half(sample: RunningSample) -> None:
    whole = sample.get("v4/getPatient").content
    for kind in ("html", "empty", "truncate_json"):
        sample.fault(kind, "getPatient")
    html, empty, half = (sample.get("v4/getPatient") for _ in range(3))
    assert (html.status_code, html.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (empty.status_code, empty.content) == (200, b"")
    assert half.content == whole[: len(whole) // 2]


def test_an_answer_can_stall_in_its_middle(sample: RunningSample) -> None:
    sample.fault("stall", "getPatient", after_bytes=10)
    received: list[bytes] = []
    with (
        pytest.raises(httpx.ReadTimeout),
        httpx.stream("GET", f"{sample.url}/v4/getPatient", timeout=0.2, trust_env=False) as answer,
    ):
        received.extend(answer.iter_raw())
    assert sample.get("v4/getPatient").status_code == 200


def test_an_answer_can_drip_and_is_the_same_in_the_end(sample: RunningSample) -> None:
    whole = sample.get("v4/getPatient", Collection=ECHO).content
    sample.fault("drip", "getPatient", after_bytes=len(whole) - 3, pace_s=0.001)
    assert sample.get("v4/getPatient", Collection=ECHO).content == whole


def test_a_listing_can_claim_what_is_not_so(sample: RunningSample) -> None:
    (row,) = sample.rows("v4/getSeries", Collection=ECHO)
    sample.fault("claim", "getSeries", columns={"ImageCount": 99})
    assert sample.rows("v4/getSeries", Collection=ECHO) == [row | {"ImageCount": 99}]


def test_an_answer_can_have_any_header(sample: RunningSample) -> None:
    sample.fault("status", "getPatient", code=302, headers={"Location": "elsewhere"})
    assert sample.get("v4/getPatient").headers["location"] == "elsewhere"


def test_a_fault_that_does_not_exist_is_refused(sample: RunningSample) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        sample.fault("earthquake")
    with pytest.raises(httpx.HTTPStatusError):
        sample.fault("cut", magnitude=9)


def local_headers(content: bytes) -> int:
    """Return how many members have begun (LICENSE counted)."""
    return content.count(b"PK\x03\x04\x14\x00")


def test_a_held_download_gives_the_images_before_and_goes_on_when_let(
    sample: RunningSample,
) -> None:
    uid = sample.series_uid(BRAIN)
    sample.pace(uid, 3)
    url, query = f"{sample.url}/v4/getImage", {"SeriesInstanceUID": uid}
    with (
        httpx.Client(trust_env=False, timeout=60) as client,
        client.stream("GET", url, params=query) as answer,
    ):
        pieces = answer.iter_raw()
        received = b""
        while received.count(b"PK\x07\x08") < 4:  # the descriptors of LICENSE and three images
            received += next(pieces)
        assert local_headers(received) == 4
        sample.pace(uid, 5)
        while received.count(b"PK\x07\x08") < 6:
            received += next(pieces)
        assert local_headers(received) == 6
        sample.pace(uid, None)
        received += b"".join(pieces)
    with zipfile.ZipFile(io.BytesIO(received)) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 41


def test_a_client_that_leaves_a_held_download_is_forgotten(sample: RunningSample) -> None:
    uid = sample.series_uid(ECHO)
    sample.pace(uid, 0)
    url, query = f"{sample.url}/v4/getImage", {"SeriesInstanceUID": uid}
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("GET", url, params=query) as answer,
    ):
        assert answer.status_code == 200
    sample.pace(uid, None)
    assert download(sample, ECHO).status_code == 200


def test_files_that_are_lost_are_not_to_be_had_one_by_one_either(sample: RunningSample) -> None:
    uid = sample.series_uid("Phantom-Echo-NC", ImageCount=1)
    (row,) = sample.rows("v4/getSOPInstanceUIDs", SeriesInstanceUID=uid)
    sample.fault("short", series=uid)
    assert sample.get("v4/getSingleImage", SeriesInstanceUID=uid, **row).status_code == 500
    sample.get("v4/getImage", SeriesInstanceUID=uid)
    assert sample.get("v4/getSingleImage", SeriesInstanceUID=uid, **row).status_code == 200
