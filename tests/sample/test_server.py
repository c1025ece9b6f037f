"""The API over HTTP: listings, downloads, refusals, as the NBIA server gives them."""

import hashlib
import io
import zipfile
from collections.abc import Iterator

import httpx
import pytest
import trio
from pydicom import dcmread

from tciafs.sample.content import shelves
from tciafs.sample.holdings import Holdings
from tciafs.sample.server import SampleServer, serve
from tests.sample.running import RunningSample, running_sample

GUEST_COLLECTIONS = {
    "Phantom-Head",
    "Phantom-Brain-MR",
    "Phantom-Mammography",
    "Phantom-Echo-NC",
    "Phantom-Lung-Marked",
    "Transfer-Syntaxes",
    "CT Naming Traps",
    "Numbering_Traps",
    "Twin-Case",
    "TWIN-CASE",
    "MANYSERIES",
}
VERSIONS = ("v1", "v4")
YES = {"NewFileNames": "Yes", "IncludeMD5": "Yes"}


@pytest.fixture(scope="module")
def sample() -> Iterator[RunningSample]:
    with running_sample("--many-series", "20", "--login", "user:word") as server:
        yield server


def unzipped(answer: httpx.Response) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("version", VERSIONS)
def test_guests_see_every_collection_but_the_restricted(sample: RunningSample, version: str) -> None:
    rows = sample.rows(f"{version}/getCollectionValues")
    assert {row["Collection"] for row in rows} == GUEST_COLLECTIONS


def test_nothing_found_is_an_empty_body(sample: RunningSample) -> None:
    answer = sample.get("v4/getSeries", Collection="no such collection")
    assert (answer.status_code, answer.content) == (200, b"")


def test_v4_refuses_a_parameter_that_v1_passes_over(sample: RunningSample) -> None:
    answer = sample.get("v4/getPatient", Colour="red")
    assert answer.status_code == 400
    assert answer.text.startswith("Invalid query parameter: 'Colour'. Allowed parameters are: [")
    assert sample.rows("v1/getPatient", Colour="red")


def test_a_missing_required_parameter_is_refused(sample: RunningSample) -> None:
    for endpoint in ("getImage", "getSeriesSize", "getSOPInstanceUIDs", "getUpdatedSeries"):
        assert sample.get(f"v4/{endpoint}").status_code == 400


def test_columns_are_spelt_as_the_version_spells_them(sample: RunningSample) -> None:
    (v1,) = sample.rows("v1/getSeries", Collection="Phantom-Brain-MR")
    (v4,) = sample.rows("v4/getSeries", Collection="Phantom-Brain-MR")
    assert v1["StudyDate"] == "2020-11-03 00:00:00.0"
    assert v4["StudyDate"] == "11-03-2020"
    assert {"TimeStamp", "CollectionURI"} <= v1.keys()
    assert {"MaxSubmissionTimestamp", "DataDescriptionURI", "Site", "Authorized"} <= v4.keys()
    assert v1.keys().isdisjoint({"Authorized", "Site", "ReleasedStatus"})


def test_null_columns_are_missing_and_empty_ones_are_not(sample: RunningSample) -> None:
    rows = sample.rows("v4/getSeries", Collection="CT Naming Traps", PatientID="descriptions")
    described = [row.get("SeriesDescription") for row in rows]
    assert "" in described
    assert None in described
    studies = sample.rows("v4/getPatientStudy", Collection="CT Naming Traps", PatientID="STUDIES")
    assert any("StudyDate" not in study for study in studies)


def test_series_numbers_lose_trailing_zeros_and_nothing_else(sample: RunningSample) -> None:
    rows = sample.rows("v4/getSeries", Collection="CT Naming Traps", PatientID="SERIES-NUMBERS")
    numbers = {row.get("SeriesNumber") for row in rows}
    assert numbers == {None, 0, -5, 2147483647, 2.5, 7}


def test_collection_and_patient_are_compared_without_case(sample: RunningSample) -> None:
    rows = sample.rows("v4/getPatient", Collection="twin-case")
    assert sorted(row["Collection"] for row in rows) == ["TWIN-CASE", "Twin-Case"]
    studies = sample.rows("v4/getPatientStudy", Collection="CT Naming Traps", PatientID="casesensitive-1")
    assert len(studies) == 2


def test_modality_is_compared_without_case_by_v4_only(sample: RunningSample) -> None:
    assert sample.rows("v4/getSeries", Modality="seg")
    assert not sample.rows("v1/getSeries", Modality="seg")


def test_the_filters_of_get_series_select(sample: RunningSample) -> None:
    (ct,) = sample.rows("v4/getSeries", Modality="CT", BodyPartExamined="HEAD")
    (again,) = sample.rows("v4/getSeries", SeriesInstanceUID=ct["SeriesInstanceUID"])
    assert again == ct
    assert len(sample.rows("v4/getSeries", StudyInstanceUID=ct["StudyInstanceUID"])) == 4
    assert ct["ImageCount"] == 60


def test_a_study_counts_its_series(sample: RunningSample) -> None:
    (study,) = sample.rows("v4/getPatientStudy", Collection="Phantom-Head", PatientID="HEAD-001")
    assert (study["SeriesCount"], study["StudyID"]) == (4, "4711")


def test_updated_series_are_those_released_after_the_day(sample: RunningSample) -> None:
    rows = sample.rows("v4/getUpdatedSeries", fromDate="06-01-2021")
    assert {row["Modality"] for row in rows} == {"SEG", "RTSTRUCT"}
    assert sample.get("v1/getUpdatedSeries", fromDate="06-01-2021").status_code == 404


def test_values_of_a_null_column_are_an_empty_row(sample: RunningSample) -> None:
    assert {} in sample.rows("v4/getBodyPartValues")
    assert sample.rows("v4/getModalityValues", Collection="Phantom-Brain-MR") == [{"Modality": "MR"}]


def test_series_size_agrees_with_the_series(sample: RunningSample) -> None:
    (series,) = sample.rows("v4/getSeries", Modality="MR", Collection="Phantom-Brain-MR")
    size = sample.rows("v4/getSeriesSize", SeriesInstanceUID=series["SeriesInstanceUID"])
    assert size == [{"TotalSizeInBytes": series["FileSize"], "ObjectCount": series["ImageCount"]}]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_download_agrees_with_its_listing(sample: RunningSample, version: str) -> None:
    for row in sample.rows(f"{version}/getSeries"):
        uid = row["SeriesInstanceUID"]
        members = unzipped(sample.get(f"{version}/getImage", SeriesInstanceUID=uid, **YES))
        images = {name: data for name, data in members.items() if name.endswith(".dcm")}
        assert len(images) == row["ImageCount"]
        assert sum(map(len, images.values())) == row["FileSize"]


def test_a_download_has_the_licence_first_and_the_checksums_last(sample: RunningSample) -> None:
    uid = sample.series_uid("Phantom-Brain-MR")
    answer = sample.get("v4/getImage", SeriesInstanceUID=uid, **YES)
    assert "content-length" not in answer.headers
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers["content-disposition"] == f'attachment; filename="{uid}.zip"'
    members = unzipped(answer)
    images = [f"{acquisition}-{place:02}.dcm" for acquisition in (1, 2) for place in range(1, 21)]
    assert list(members) == ["LICENSE", *images, "md5hashes.csv"]
    header, *lines = members["md5hashes.csv"].decode().splitlines()
    assert header == "Filename,MD5Hash"
    assert dict(line.split(",") for line in lines) == {
        name: hashlib.md5(members[name], usedforsecurity=False).hexdigest() for name in images
    }


def test_names_without_new_file_names_are_eight_digits(sample: RunningSample) -> None:
    uid = sample.series_uid("Phantom-Brain-MR")
    names = list(unzipped(sample.get("v1/getImage", SeriesInstanceUID=uid)))
    assert names[:2] == ["LICENSE", "00000001.dcm"]
    assert "md5hashes.csv" not in names


def test_the_numbering_traps_have_the_names_the_server_would_give(sample: RunningSample) -> None:
    uid = sample.series_uid("Numbering_Traps", PatientID="RESTARTING")
    names = list(unzipped(sample.get("v4/getImage", SeriesInstanceUID=uid, NewFileNames="yes")))
    assert names[1:] == [f"{group}-1.dcm" for group in range(1, 7)]


def test_a_single_image_comes_whole_and_with_its_length(sample: RunningSample) -> None:
    uid = sample.series_uid("Phantom-Mammography")
    (row,) = sample.rows("v4/getSOPInstanceUIDs", SeriesInstanceUID=uid)
    answer = sample.get("v4/getSingleImage", SeriesInstanceUID=uid, **row)
    assert answer.headers["content-type"] == "application/dicom"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert dcmread(io.BytesIO(answer.content)).SOPInstanceUID == row["SOPInstanceUID"]
    digest = hashlib.md5(answer.content, usedforsecurity=False).hexdigest()
    assert sample.get("v4/getMD5HashForImage", **row).text == digest
    spelt = {"SOPInstanceUid": row["SOPInstanceUID"]}
    assert sample.get("v1/getM5HashForImage", **spelt).text == digest


def test_the_md5_of_a_series_is_that_of_the_sorted_md5s_of_its_images(sample: RunningSample) -> None:
    uid = sample.series_uid("Numbering_Traps", PatientID="RESTARTING")
    images = list(unzipped(sample.get("v4/getImage", SeriesInstanceUID=uid, NewFileNames="yes")).values())[1:]
    digests = sorted(hashlib.md5(data, usedforsecurity=False).hexdigest() for data in images)
    expected = hashlib.md5("".join(digests).encode(), usedforsecurity=False).hexdigest()
    assert sample.post("v4/getMD5Hierarchy", SeriesInstanceUID=uid).text == expected
    assert sample.post("v4/getMD5Hierarchy", SeriesInstanceUID="1.2").text == ""
    assert sample.post("v1/getMD5Hierarchy", SeriesInstanceUID=uid).status_code == 404
    assert sample.get("v4/getMD5Hierarchy", SeriesInstanceUID=uid).status_code == 405


def test_an_unknown_single_image_breaks_the_server(sample: RunningSample) -> None:
    answer = sample.get("v4/getSingleImage", SeriesInstanceUID="1.2", SOPInstanceUID="1.3")
    assert answer.status_code == 500
    assert answer.text.startswith("Server was not able to process your request\n")


def test_a_series_that_may_not_be_seen_is_refused_with_a_sentence(sample: RunningSample) -> None:
    v1 = sample.get("v1/getImage", SeriesInstanceUID="1.2")
    v4 = sample.get("v4/getImage", SeriesInstanceUID="1.2")
    assert (v1.status_code, v4.status_code) == (400, 400)
    assert v1.text == "Image with given SeriesInstanceUID,1.2, is not in public domain."
    assert v4.text.startswith("The user has not been granted the access to image")


def test_a_token_that_is_not_known_is_refused_on_v4_and_ignored_on_v1(
    sample: RunningSample,
) -> None:
    def status(path: str, token: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.get(f"{sample.url}/{path}", headers=headers, trust_env=False)
        return answer.status_code, answer.content[:1]

    assert status("v4/getCollectionValues", "stale") == (401, b"")
    assert status("v4/getCollectionValues", "undefined") == (200, b"[")
    assert status("v1/getCollectionValues", "stale") == (200, b"[")


def test_who_logs_in_sees_the_restricted_collection_until_the_token_is_stale(
    sample: RunningSample,
) -> None:
    root = sample.url.removesuffix("/services")
    form = {"grant_type": "password", "username": "user", "password": "word"}
    with httpx.Client(trust_env=False) as client:
        token = client.post(f"{root}/oauth/token", data=form).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        rows = client.get(f"{sample.url}/v4/getSeries?Collection=Limited-Access").json()
        query = {"SeriesInstanceUID": rows[0]["SeriesInstanceUID"]}
        assert client.get(f"{sample.url}/v4/getImage", params=query).status_code == 200
        assert sample.get("v4/getImage", **query).status_code == 400
        sample.expire_tokens()
        assert client.get(f"{sample.url}/v4/getImage", params=query).status_code == 401


def test_a_wrong_password_gets_no_token(sample: RunningSample) -> None:
    form = {"grant_type": "password", "username": "user", "password": "no"}
    url = sample.url.removesuffix("/services") + "/oauth/token"
    assert httpx.post(url, data=form, trust_env=False).status_code == 401


async def test_it_can_be_served_inside_another_program() -> None:
    holdings = Holdings([shelf for shelf in shelves() if shelf.name == "Phantom-Echo-NC"])
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve, SampleServer(holdings))
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{url}/v4/getCollectionValues")
        assert answer.json() == [{"Collection": "Phantom-Echo-NC"}]
        nursery.cancel_scope.cancel()
