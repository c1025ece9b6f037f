"""The archive changes on demand: series withdrawn and revised, listings and images alike."""

import datetime as dt
import io
import zipfile
from collections.abc import Iterator

import httpx
import pytest
from pydicom import dcmread

from tests.sample.running import RunningSample, running_sample

HEAD, BRAIN, ECHO = "Phantom-Head", "Phantom-Brain-MR", "Phantom-Echo-NC"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningSample]:
    with running_sample("--many-series", "20") as started:
        yield started


@pytest.fixture
def sample(server: RunningSample) -> Iterator[RunningSample]:
    yield server
    server.restore()


def listed(sample: RunningSample, uid: str) -> dict[str, object]:
    (found,) = sample.rows("v4/getSeries", SeriesInstanceUID=uid)
    return found


def images(sample: RunningSample, uid: str) -> list[bytes]:
    answer = sample.get("v4/getImage", SeriesInstanceUID=uid, NewFileNames="Yes").raise_for_status()
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return [archive.read(name) for name in archive.namelist() if name.endswith(".dcm")]


def test_a_withdrawn_series_is_in_no_listing_and_refused(sample: RunningSample) -> None:
    uid = sample.series_uid(HEAD, Modality="SR")
    sample.withdraw(uid)
    assert len(sample.rows("v4/getSeries", Collection=HEAD)) == 3
    assert sample.rows("v4/getPatientStudy", Collection=HEAD)[0]["SeriesCount"] == 3
    assert sample.rows("v4/getSeriesSize", SeriesInstanceUID=uid) == []
    assert sample.get("v4/getImage", SeriesInstanceUID=uid).status_code == 400
    sample.restore()
    assert len(sample.rows("v4/getSeries", Collection=HEAD)) == 4
    assert sample.get("v4/getImage", SeriesInstanceUID=uid).status_code == 200


def test_a_collection_whose_series_are_all_withdrawn_has_no_patients(sample: RunningSample) -> None:
    sample.withdraw(sample.series_uid(ECHO))
    assert sample.rows("v4/getPatient", Collection=ECHO) == []
    assert sample.rows("v4/getPatientStudy", Collection=ECHO) == []
    assert {"Collection": ECHO} in sample.rows("v4/getCollectionValues")


def test_a_renamed_series_is_renamed_in_its_images_too(sample: RunningSample) -> None:
    uid = sample.series_uid(BRAIN)
    before = listed(sample, uid)
    sample.revise(uid, SeriesDescription="renamed", SeriesNumber=None)
    after = listed(sample, uid)
    assert after["SeriesDescription"] == "renamed"
    assert "SeriesNumber" not in after
    assert after.keys() | {"SeriesNumber"} == before.keys()
    files = images(sample, uid)
    assert {dcmread(io.BytesIO(file)).SeriesDescription for file in files} == {"renamed"}
    assert sum(map(len, files)) == after["FileSize"]
    sample.restore()
    assert listed(sample, uid) == before


def test_a_revised_series_is_updated_today_unless_another_day_is_given(sample: RunningSample) -> None:
    uid = sample.series_uid(ECHO)
    yesterday = f"{dt.date.today() - dt.timedelta(1):%m-%d-%Y}"
    assert sample.get("v4/getUpdatedSeries", fromDate=yesterday).content == b""
    sample.revise(uid, Manufacturer="another")
    updated = sample.rows("v4/getUpdatedSeries", fromDate=yesterday)
    assert [row["SeriesInstanceUID"] for row in updated] == [uid]
    sample.revise(uid, DateReleased="02-29-2024")
    assert sample.rows("v4/getUpdatedSeries", fromDate=yesterday) == []
    assert [row["DateReleased"] for row in sample.rows("v4/getUpdatedSeries", fromDate="02-28-2024")] == [
        "02-29-2024"
    ]


def test_revisions_add_up(sample: RunningSample) -> None:
    uid = sample.series_uid(ECHO)
    sample.revise(uid, SeriesDescription="one")
    sample.revise(uid, SeriesNumber=77)
    assert listed(sample, uid)["SeriesDescription"] == "one"
    assert listed(sample, uid)["SeriesNumber"] == 77


def test_a_series_can_have_fewer_images_than_before(sample: RunningSample) -> None:
    uid = sample.series_uid(BRAIN)
    size = listed(sample, uid)["FileSize"]
    sample.revise(uid, ImageCount=7)
    row = listed(sample, uid)
    files = images(sample, uid)
    assert (row["ImageCount"], row["FileSize"]) == (7, sum(map(len, files)))
    assert len(files) == 7
    assert row["FileSize"] != size


def test_a_crowds_series_can_be_revised(sample: RunningSample) -> None:
    uid = sample.rows("v4/getSeries", Collection="MANYSERIES")[0]["SeriesInstanceUID"]
    sample.revise(uid, ImageCount=2, SeriesDescription="two of many")
    files = images(sample, uid)
    assert (len(files), sum(map(len, files))) == (2, listed(sample, uid)["FileSize"])


def test_a_study_is_revised_in_all_its_series(sample: RunningSample) -> None:
    uid = sample.series_uid(HEAD, Modality="CT")
    sample.revise(uid, StudyDesc="another study", StudyDate="12-31-2024", StudyID=None)
    rows = sample.rows("v4/getSeries", Collection=HEAD)
    assert {(row["StudyDesc"], row["StudyDate"]) for row in rows} == {("another study", "12-31-2024")}
    (study,) = sample.rows("v4/getPatientStudy", Collection=HEAD)
    assert (study["StudyDescription"], study["StudyDate"]) == ("another study", "12-31-2024")
    assert study["SeriesCount"] == 4
    assert "StudyID" not in study
    assert len({row["DateReleased"] for row in rows}) == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"PatientID": "another"},
        {"DateReleased": "2024-12-31"},
        {"SeriesDescription": 7},
        {"SeriesNumber": "seven"},
        {"SeriesDescription": "x" * 2000},
        {"ImageCount": 0},
        {"ImageCount": 41},
    ],
    ids=str,
)
def test_a_change_that_cannot_be_is_refused_and_changes_nothing(
    sample: RunningSample, columns: dict[str, str | int | None]
) -> None:
    uid = sample.series_uid(BRAIN)
    before = listed(sample, uid)
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        sample.revise(uid, **columns)
    assert listed(sample, uid) == before


def test_a_series_that_is_not_there_cannot_change(sample: RunningSample) -> None:
    for change in (sample.withdraw, sample.revise):
        with pytest.raises(httpx.HTTPStatusError, match="400"):
            change("1.2.3")
