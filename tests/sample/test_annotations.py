"""Annotations as NBIA sends them: behind the images, by their own names, counted in no column of images."""

import io
from collections.abc import Iterator
from zipfile import ZipFile

import httpx
import pytest

from tests.sample.running import RunningSample, running_sample

COLLECTION = "Phantom-Lung-Marked"


@pytest.fixture(scope="module")
def _archive() -> Iterator[RunningSample]:
    with running_sample() as sample:
        yield sample


@pytest.fixture
def sample(_archive: RunningSample) -> Iterator[RunningSample]:
    yield _archive
    _archive.clear_faults()


@pytest.fixture(scope="module")
def uid(_archive: RunningSample) -> str:
    return _archive.series_uid(COLLECTION, ImageCount=12)


def members(answer: httpx.Response) -> dict[str, bytes]:
    with ZipFile(io.BytesIO(answer.raise_for_status().content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def annotated(sample: RunningSample, uid: str, version: str = "v4", **more: str) -> dict[str, bytes]:
    query = {"SeriesInstanceUID": uid, "IncludeAnnotation": "true", "MD5Verification": "true", **more}
    return members(sample.get(f"{version}/getDCMImage", **query))


def plain(sample: RunningSample, uid: str) -> dict[str, bytes]:
    return members(sample.get("v4/getImage", SeriesInstanceUID=uid, NewFileNames="Yes"))


@pytest.mark.parametrize("version", ["v1", "v4"])
def test_images_come_first_by_the_names_of_get_image_without_a_licence(
    sample: RunningSample, uid: str, version: str
) -> None:
    found = annotated(sample, uid, version)
    images = [name for name in plain(sample, uid) if name != "LICENSE"]
    assert list(found) == [*images, "086.xml", "069.xml", "md5hashes.csv"]
    assert {name: found[name] for name in images} == {name: plain(sample, uid)[name] for name in images}


def test_only_who_asks_for_them_gets_annotations_and_checksums(sample: RunningSample, uid: str) -> None:
    bare = members(sample.get("v4/getDCMImage", SeriesInstanceUID=uid))
    assert all(name.endswith(".dcm") for name in bare)
    assert not any(name.endswith(".xml") for name in plain(sample, uid))


def test_listings_flag_them_and_count_images_alone(sample: RunningSample, uid: str) -> None:
    (row,) = (
        each
        for each in sample.rows("v4/getSeries", Collection=COLLECTION)
        if each["SeriesInstanceUID"] == uid
    )
    found = annotated(sample, uid)
    images = [data for name, data in found.items() if name.endswith(".dcm")]
    assert row["AnnotationsFlag"] is True
    assert (row["ImageCount"], row["FileSize"]) == (len(images), sum(map(len, images)))
    (old,) = sample.rows("v1/getSeriesMetaData", SeriesInstanceUID=uid)
    assert old["Annotation Size"] == str(len(found["086.xml"]) + len(found["069.xml"]))
    assert sample.get("v4/getSeriesMetaData", SeriesInstanceUID=uid).status_code == 404


def test_a_series_without_any_is_flagged_so(sample: RunningSample) -> None:
    uid = sample.series_uid(COLLECTION, Modality="OT", AnnotationsFlag=False)
    assert list(annotated(sample, uid)) == ["1-1.dcm", "md5hashes.csv"]


def test_a_lost_annotation_ends_the_zip_without_checksums(sample: RunningSample, uid: str) -> None:
    sample.fault("short_annotations", "getDCMImage")
    assert list(annotated(sample, uid))[-2:] == ["1-12.dcm", "086.xml"]


def test_half_an_annotation_and_one_with_another_name(sample: RunningSample, uid: str) -> None:
    whole = annotated(sample, uid)
    sample.fault("cut_annotation", "getDCMImage")
    assert len(annotated(sample, uid)["069.xml"]) == len(whole["069.xml"]) // 2
    sample.fault("annotation_name", "getDCMImage", name="../x.xml")
    assert annotated(sample, uid)["../x.xml"] == whole["069.xml"]
