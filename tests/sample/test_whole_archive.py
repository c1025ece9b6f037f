"""The whole of TCIA as the index of the Imaging Data Commons knows it: the hard cases that are in it.

Needs the packages of the extra idc-sample, 80 MB, and is skipped without.
"""

import datetime as dt
import hashlib
import importlib.metadata
import importlib.util
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tciafs.sample import content, traps
from tests.sample.running import RunningSample, running_sample

VERSION = "25.0.5"


def installed() -> str | None:
    try:
        return importlib.metadata.version("idc-index-data")
    except importlib.metadata.PackageNotFoundError:
        return None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        installed() != VERSION or importlib.util.find_spec("duckdb") is None,
        reason=f"idc-index-data {VERSION} and duckdb are not installed: pip install 'tciafs[idc-sample]'",
    ),
]

YES = {"NewFileNames": "Yes", "IncludeMD5": "Yes"}


@pytest.fixture(scope="module")
def archive() -> Iterator[RunningSample]:
    with running_sample("--idc-index") as sample:
        yield sample


@pytest.fixture(scope="module")
def collections(archive: RunningSample) -> set[str]:
    """The names that come from the index."""
    names = {row["Collection"] for row in archive.rows("v4/getCollectionValues")}
    return names - {shelf.name for shelf in (*content.shelves(), *traps.shelves())}


def series_of(archive: RunningSample, collection: str, **keys: str) -> list[dict[str, Any]]:
    return archive.rows("v4/getSeries", Collection=collection, **keys)


def test_all_of_it_is_there(archive: RunningSample, collections: set[str]) -> None:
    patients = [row for row in archive.rows("v4/getPatient") if row["Collection"] in collections]
    studies = [row for row in archive.rows("v4/getPatientStudy") if row["Collection"] in collections]
    assert len(collections) == 141
    assert len({row["PatientId"] for row in patients}) == 65_896
    assert len(patients) == 65_985
    assert len({row["StudyInstanceUID"] for row in studies}) == 145_739
    assert sum(row["SeriesCount"] for row in studies) == 528_998


def test_it_needs_little_memory(archive: RunningSample) -> None:
    status = Path(f"/proc/{archive.process.pid}/status").read_text()
    (most_kib,) = re.findall(r"VmHWM:\s*(\d+) kB", status)
    assert int(most_kib) < 1.5 * (1 << 20)


def test_names_are_the_archives_own_spelling_with_their_spaces(collections: set[str]) -> None:
    assert {"NSCLC Radiogenomics", "PROSTATEx", "NLST", "RIDER Pilot", "4D-Lung"} <= collections
    assert sum(" " in name for name in collections) == 18


def test_patients_of_one_name_are_in_several_collections(
    archive: RunningSample, collections: set[str]
) -> None:
    where: dict[str, set[str]] = {}
    for row in archive.rows("v4/getPatient"):
        where.setdefault(row["PatientId"], set()).add(row["Collection"])
    shared = [patient for patient, names in where.items() if len(names & collections) > 1]
    assert len(shared) == 89
    rows = archive.rows("v4/getSeries", PatientID=shared[0])
    assert {row["Collection"] for row in rows} == where[shared[0]]


def test_one_study_lies_under_two_patients(archive: RunningSample) -> None:
    both = [archive.rows("v4/getPatientStudy", Collection="NLST", PatientID=p) for p in ("108001", "123342")]
    ((uid,),) = [{row["StudyInstanceUID"] for row in both[0]} & {row["StudyInstanceUID"] for row in both[1]}]
    found = archive.rows("v4/getPatientStudy", StudyInstanceUID=uid)
    assert {row["PatientID"] for row in found} == {"108001", "123342"}


def test_control_bytes_arrive_in_listings_and_headers(archive: RunningSample) -> None:
    rows = series_of(archive, "Phantom FDA")
    odd = [row for row in rows if re.search("[\0\1\2]", row.get("SeriesDescription", ""))]
    assert len(odd) == 720
    with_nul = next(row for row in odd if "\0" in row["SeriesDescription"])
    assert any(with_nul["SeriesDescription"].encode() in file for file in images(archive, with_nul))


def test_descriptions_have_slashes_and_other_letters(archive: RunningSample) -> None:
    assert any("/" in row.get("SeriesDescription", "") for row in series_of(archive, "RIDER Pilot"))
    described = {row.get("SeriesDescription", "") for row in series_of(archive, "Prostate-MRI-US-Biopsy")}
    assert any(not description.isascii() for description in described)


def test_identifiers_end_in_less_than_five_digits(archive: RunningSample) -> None:
    rows = series_of(archive, "QIBA CT-1C")
    assert any("." in row["SeriesInstanceUID"][-5:] for row in rows)
    assert any("." in row["StudyInstanceUID"][-5:] for row in rows)


def test_two_studies_would_get_one_folder_name(archive: RunningSample) -> None:
    rows = archive.rows("v4/getPatientStudy", Collection="PROSTATEx", PatientID="ProstateX-0204")
    names = Counter((r["StudyDate"], r["StudyDescription"][:53], r["StudyInstanceUID"][-5:]) for r in rows)
    assert 2 in names.values()


def test_series_of_one_study_would_get_one_folder_name(archive: RunningSample) -> None:
    rows = series_of(archive, "QIBA CT-1C")
    names = Counter(
        (
            row["StudyInstanceUID"],
            row.get("SeriesNumber"),
            row.get("SeriesDescription"),
            row["SeriesInstanceUID"][-5:],
        )
        for row in rows
    )
    assert sum(count > 1 for count in names.values()) == 66


def test_a_patient_has_more_than_a_thousand_studies(archive: RunningSample) -> None:
    name = "CT4Harmonization-Multicentric"
    (patient,) = archive.rows("v4/getPatient", Collection=name)
    assert len(archive.rows("v4/getPatientStudy", Collection=name, PatientID=patient["PatientId"])) == 1378


def test_dates_are_as_old_as_they_were_shifted_to(archive: RunningSample) -> None:
    days = [row["StudyDate"] for row in archive.rows("v4/getPatientStudy") if "StudyDate" in row]
    oldest = min(dt.datetime.strptime(day, "%m-%d-%Y").date() for day in set(days))
    assert oldest == dt.date(1880, 9, 9)


def test_what_is_not_known_is_missing(archive: RunningSample) -> None:
    rows = series_of(archive, "QIBA CT-1C") + series_of(archive, "CBIS-DDSM")
    for column in ("SeriesDescription", "SeriesNumber", "BodyPartExamined"):
        values = [row.get(column) for row in rows]
        assert "" not in values
    assert any("BodyPartExamined" not in row for row in rows)


def test_series_of_one_collection_have_different_licences(archive: RunningSample) -> None:
    names = {row["LicenseName"] for row in series_of(archive, "NSCLC Radiogenomics")}
    assert all(name.startswith("Creative Commons") for name in names)
    assert {row["ThirdPartyAnalysis"] for row in series_of(archive, "LIDC-IDRI")} == {"YES", "NO"}


def test_updated_series_are_those_of_the_latest_version(archive: RunningSample) -> None:
    rows = archive.rows("v4/getUpdatedSeries", fromDate="09-25-2026")
    assert len(rows) == 11_795
    assert {row["DateReleased"] for row in rows} == {"09-26-2026"}


def images(archive: RunningSample, row: dict[str, Any]) -> list[bytes]:
    answer = archive.get("v4/getImage", SeriesInstanceUID=row["SeriesInstanceUID"], **YES).raise_for_status()
    with zipfile.ZipFile(io.BytesIO(answer.content)) as members:
        files = {name: members.read(name) for name in members.namelist() if name.endswith(".dcm")}
        _, *lines = members.read("md5hashes.csv").decode().splitlines()
    assert dict(line.split(",") for line in lines) == {
        name: hashlib.md5(file, usedforsecurity=False).hexdigest() for name, file in files.items()
    }
    return list(files.values())


@pytest.mark.parametrize("collection", ["RIDER Pilot", "PROSTATEx", "LIDC-IDRI", "CBIS-DDSM"])
def test_downloads_agree_with_their_listing(archive: RunningSample, collection: str) -> None:
    for row in series_of(archive, collection)[::2000]:
        files = images(archive, row)
        assert (len(files), sum(map(len, files))) == (row["ImageCount"], row["FileSize"])


def test_the_series_with_most_images_streams_in_little_memory(archive: RunningSample) -> None:
    row = max(series_of(archive, "LDCT-and-Projection-data"), key=lambda row: int(row["ImageCount"]))
    assert row["ImageCount"] == 91_980
    sample, members = archive.process.pid, 0
    query = {"SeriesInstanceUID": row["SeriesInstanceUID"], **YES}
    url = f"{archive.url}/v4/getImage"
    with httpx.stream("GET", url, params=query, trust_env=False, timeout=60) as answer:
        last = b""
        for piece in answer.iter_raw(1 << 20):
            members += (last + piece).count(b"PK\3\4\x14\0")
            last = piece[-5:]
    assert members == 91_980 + 2
    (now_kib,) = re.findall(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{sample}/status").read_text())
    assert int(now_kib) < 1 << 20


def test_some_collections_can_be_chosen_by_either_spelling() -> None:
    with running_sample("--idc-collection", "rider_pilot", "--idc-collection", "4D-Lung") as sample:
        names = {row["Collection"] for row in sample.rows("v4/getCollectionValues")}
        assert {"RIDER Pilot", "4D-Lung"} <= names
        assert "NLST" not in names
        uid = sample.rows("v4/getSeries", Collection="4D-Lung")[0]["SeriesInstanceUID"]
        sample.revise(uid, ImageCount=321, SeriesDescription="revised")
        (row,) = sample.rows("v4/getSeries", SeriesInstanceUID=uid)
        files = images(sample, row)
        assert len(files) == 321
        assert b"revised" in files[0]
        assert sum(map(len, files)) == row["FileSize"]
