"""Series with annotations from NBIA: getDCMImage, getSeriesMetaData, and servers that have neither."""

import hashlib
import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tciafs.archives.nbia.archive import Api, NbiaArchive
from tciafs.archives.nbia.images import SeriesReader
from tciafs.errors import AccessDenied, SeriesDamaged, TciafsError, UnreadableAnswer
from tciafs.model import Checksums, Series
from tests.archives.test_nbia import IMAGES, MD5, Body, Server, always, archive, md5_table, zipped
from tests.archives.test_nbia_single_images import opened
from tests.fakes import make_series
from tests.sample.running import RunningSample

SERIES = replace(make_series("1.2.3", 3, 60_000), has_annotations=True)
XML = {"086.xml": b"<a/>", "069.xml": b"<b/>"}
names = st.text(min_size=1, max_size=60).filter(lambda name: "\0" not in name and not name.endswith("/"))
CUT_OFF = zipped(IMAGES, XML)[:-9]
COLLECTION, PATIENT = "Phantom-Lung-Marked", "LUNG-0001"


async def delivered(
    nbia: NbiaArchive, series: Series = SERIES
) -> tuple[dict[str | None, bytes], dict[str | None, bytes], dict[str, str]]:
    """Return images, annotations and checksums."""
    images: dict[str | None, bytes] = {}
    annotations: dict[str | None, bytes] = {}
    checksums: dict[str, str] = {}
    async with nbia.annotations.images(series) as deliveries:
        async for delivery in deliveries:
            if isinstance(delivery, Checksums):
                checksums |= dict(delivery.md5_by_name)
            else:
                kind = annotations if delivery.is_annotation else images
                kind[delivery.name] = b"".join([chunk async for chunk in delivery.chunks])
    return images, annotations, checksums


@pytest.mark.parametrize("api", ["v4", "v1"])
async def test_one_request_brings_images_annotations_and_checksums(api: Api) -> None:
    server = Server(**{f"{api}_getDCMImage": always(zipped(IMAGES, XML, md5_table(MD5)))})
    assert await delivered(archive(server, api=api)) == (IMAGES, XML, MD5)
    (request,) = server.requests
    assert dict(request.url.params) == {
        "SeriesInstanceUID": "1.2.3",
        "IncludeAnnotation": "true",
        "MD5Verification": "true",
    }


async def test_what_is_no_number_is_an_annotation_whatever_its_ending() -> None:
    others = {"marks.dcm": b"SR", "notes.txt": b"n", "1-1.xml": b"<c/>", "069.XML": b"<d/>", "noending": b""}
    old = {"00000001.dcm": b"one", "00000002.DCM": b"two"}
    server = Server(v4_getDCMImage=always(zipped({"LICENSE": b"L"}, old, others)))
    assert await delivered(archive(server)) == (old, others, {})


async def test_a_refusal_means_what_it_means_elsewhere() -> None:
    denied = always("The user has not been granted the access to image with given ...", 400)
    with pytest.raises(AccessDenied):
        await delivered(archive(Server(v4_getDCMImage=denied)))
    unknown = always("Invalid query parameter: 'MD5Verification'. Allowed ...", 400)
    with pytest.raises(UnreadableAnswer) as caught:
        await delivered(archive(Server(v4_getDCMImage=unknown)))
    assert caught.value.__cause__ is not None, "a refusal, which is not asked again"
    with pytest.raises(UnreadableAnswer):
        await delivered(archive(Server()))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", SeriesDamaged),
        (b"<html>Down</html>", UnreadableAnswer),
        (zipped(IMAGES, XML)[:-9], UnreadableAnswer),
    ],
)
async def test_what_is_no_whole_zip_is_an_error(body: bytes, error: type[TciafsError]) -> None:
    with pytest.raises(error):
        await delivered(archive(Server(v4_getDCMImage=always(body))))


@pytest.mark.parametrize(
    ("rows", "size_bytes"),
    [
        ([{"Annotation Size": "4711"}], 4711),
        ([{"Annotation Size": 4711}], 4711),
        ([{"Annotation Size": "4711.0"}], 4711),
        ([{"Annotation Size": "0"}], None),
        ([{"Annotation Size": "-1"}], None),
        ([{"Annotation Size": "many"}], None),
        ([{"Series UID": "1.2.3"}], None),
        ([], None),
    ],
)
async def test_what_annotations_come_to_is_a_column_of_an_old_question(
    rows: list[object], size_bytes: int | None
) -> None:
    server = Server(v1_getSeriesMetaData=always(json.dumps(rows)))
    assert await archive(server).annotations.size_bytes(SERIES) == size_bytes
    assert server.asked == ["v1/getSeriesMetaData"], "version 4 has not got it"


@pytest.mark.parametrize("status", [400, 404])
async def test_a_server_without_that_question_says_nothing(status: int) -> None:
    server = Server(v1_getSeriesMetaData=always("no", status))
    assert await archive(server).annotations.size_bytes(SERIES) is None


async def test_a_single_row_without_an_array_is_read_too() -> None:
    server = Server(v1_getSeriesMetaData=always(json.dumps({"Annotation Size": "12"})))
    assert await archive(server).annotations.size_bytes(SERIES) == 12


@pytest.mark.parametrize("api", ["v4", "v1"])
async def test_the_sample_gives_the_images_of_get_image_and_the_annotations(
    api: Api, sample: RunningSample
) -> None:
    async with opened(sample.url, api) as nbia:
        for series in await nbia.series(COLLECTION, PATIENT):
            images, annotations, checksums = await delivered(nbia, series)
            plain: dict[str | None, bytes] = {}
            async with nbia.images(series) as deliveries:
                async for delivery in deliveries:
                    if not isinstance(delivery, Checksums):
                        plain[delivery.name] = b"".join([chunk async for chunk in delivery.chunks])
            assert images == plain
            assert list(images) == list(plain), "the order too"
            assert {name: hashlib.md5(data).hexdigest() for name, data in images.items()} == checksums
            assert bool(annotations) == series.has_annotations
            size_bytes = sum(map(len, annotations.values())) or None
            assert await nbia.annotations.size_bytes(series) == size_bytes


@given(st.lists(names, max_size=5, unique=True))
def test_any_name_is_an_image_an_annotation_or_dropped(given_names: list[str]) -> None:
    async def read() -> tuple[list[str], list[str]]:
        images: list[str] = []
        annotations: list[str] = []
        reader = SeriesReader(aiter(Body(body)), SERIES, gives_annotations=True)
        async for delivery in reader:
            if not isinstance(delivery, Checksums):
                (annotations if delivery.is_annotation else images).append(str(delivery.name))
        return images, annotations

    body = zipped(dict.fromkeys(given_names, b"x"))
    images, annotations = trio.run(read)
    assert len(images) + len(annotations) == len(set(given_names) - {"LICENSE", "md5hashes.csv"})
    assert all(name[0].isdecimal() and name.lower().endswith(".dcm") for name in images)
