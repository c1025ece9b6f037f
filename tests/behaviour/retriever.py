"""What the NBIA Data Retriever would leave on a disk: folders by its rules, images out of `unzip`.

An independent witness of names and bytes: written from the rules, asking the archive
over HTTP, and importing nothing of the product. Blocking calls.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from tests.mounting import run
from tests.sample.running import RunningSample

__all__ = [
    "ExpectedSeries",
    "expected_series",
    "files_of",
    "images_of",
    "md5",
    "middle_of_an_image",
    "unzip_series",
]

Row = Mapping[str, Any]
LOCAL_HEADER_BYTES = 30
NOT_IMAGES = ("LICENSE", "md5hashes.csv")


@dataclass(frozen=True, slots=True)
class ExpectedSeries:
    """A series, and where the retriever puts it below its chosen folder."""

    path: str
    uid: str
    row: Row

    @property
    def image_count(self) -> int:
        """The number of images that the archive lists."""
        return int(self.row["ImageCount"])

    @property
    def size_bytes(self) -> int:
        """The bytes that the archive lists."""
        return int(self.row["FileSize"])


def expected_series(
    sample: RunningSample, *collections: str, patient: str | None = None, classic: bool = False
) -> list[ExpectedSeries]:
    """Return all series of some collections (none named: of all), or of one patient, with their path."""
    names = collections or [row["Collection"] for row in sample.rows("v4/getCollectionValues")]
    return [one for name in names for one in _of_collection(sample, name, patient, classic)]


def _of_collection(
    sample: RunningSample, name: str, patient: str | None, classic: bool
) -> Iterable[ExpectedSeries]:
    studies = _rows(sample, "getPatientStudy", name, patient)
    series = _rows(sample, "getSeries", name, patient)
    study_folders: dict[tuple[str, str], str] = {}
    for (patient_id,), rows in _grouped(studies, "PatientID").items():
        for uid, folder in _folders(rows, "StudyInstanceUID", _study_folder, classic).items():
            study_folders[patient_id, uid] = folder
    for (patient_id, study_uid), rows in _grouped(series, "PatientID", "StudyInstanceUID").items():
        above = f"{_holdable(name)}/{_holdable(patient_id)}/{study_folders[patient_id, study_uid]}"
        folders = _folders(rows, "SeriesInstanceUID", _series_folder, classic)
        for row in rows:
            uid = str(row["SeriesInstanceUID"])
            yield ExpectedSeries(f"{above}/{folders[uid]}", uid, row)


def _rows(sample: RunningSample, endpoint: str, collection: str, patient: str | None) -> list[Row]:
    query = {"Collection": collection} | ({} if patient is None else {"PatientID": patient})
    # The archive compares without regard to case, so it also answers with the twin in capitals.
    return [
        row
        for row in sample.rows(f"v4/{endpoint}", **query)
        if row["Collection"] == collection and patient in (None, row["PatientID"])
    ]


def _grouped(rows: Iterable[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(str(row[column]) for column in columns)].append(row)
    return groups


def _folders(rows: Iterable[Row], column: str, describe: Any, classic: bool) -> dict[str, str]:
    """Return folder names by UID; of several that want one name, the smallest UID gets it."""
    named: dict[str, str] = {}
    taken: set[str] = set()
    for row in sorted(rows, key=lambda row: str(row[column])):
        uid = str(row[column])
        name = uid if classic else _holdable(describe(row))
        named[uid] = f"{name} ({uid[-12:]})" if name in taken else name
        taken.add(named[uid])
    return named


def _study_folder(row: Row) -> str:
    date, study_id = row.get("StudyDate", ""), _cleaned(row.get("StudyID"))
    return (
        (f"{date}-" if date else "")
        + ("" if study_id == "null" else f"{study_id}-")
        + _description(row.get("StudyDescription"))
        + str(row["StudyInstanceUID"])[-5:]
    )


def _series_folder(row: Row) -> str:
    number = f"{row['SeriesNumber']:.6f}-" if "SeriesNumber" in row else ""
    return number + _description(row.get("SeriesDescription")) + str(row["SeriesInstanceUID"])[-5:]


def _cleaned(text: str | None) -> str:
    return re.sub(r"[^a-zA-Z0-9 .-]", "", text or "") or "NA"


def _description(text: str | None) -> str:
    cleaned = _cleaned(text)
    return "" if cleaned in ("-", "null") else f"{cleaned[:53]}-"


def _holdable(text: str) -> str:
    """Return a text as a Linux name: a slash, and the folder itself and the one above, cannot be one."""
    text = text.replace("/", "%2F")
    return f"%2E{text[1:]}" if text in (".", "..") else text


def images_of(sample: RunningSample, series_uid: str) -> dict[str, bytes]:
    """Return the images of a series by the name that the archive gives them."""
    return {
        name: content
        for name, content in _zip_members(_zip(sample, series_uid)).items()
        if name not in NOT_IMAGES
    }


def files_of(sample: RunningSample, series_uid: str) -> dict[str, bytes]:
    """Return what the retriever leaves in the folder of a series: images, and annotations if it has some."""
    members = _zip_members(_zip_with_annotations(sample, series_uid))
    return {name: content for name, content in members.items() if name not in NOT_IMAGES}


def _zip_with_annotations(sample: RunningSample, series_uid: str) -> bytes:
    answer = sample.get("v1/getDCMImage", SeriesInstanceUID=series_uid, IncludeAnnotation="true")
    return answer.raise_for_status().content


def middle_of_an_image(sample: RunningSample, series_uid: str) -> int:
    """Return the place of a byte of a series' ZIP that belongs to an image's own bytes, not to the ZIP."""
    with ZipFile(BytesIO(_zip(sample, series_uid))) as archive:
        image = next(member for member in archive.infolist() if member.filename not in NOT_IMAGES)
    end_of_header = image.header_offset + LOCAL_HEADER_BYTES + len(image.filename)
    return end_of_header + image.compress_size // 2


def _zip(sample: RunningSample, series_uid: str) -> bytes:
    answer = sample.get("v4/getImage", SeriesInstanceUID=series_uid, NewFileNames="Yes")
    return answer.raise_for_status().content


def _zip_members(content: bytes) -> dict[str, bytes]:
    with ZipFile(BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def unzip_series(sample: RunningSample, series: ExpectedSeries, folder: Path) -> Path:
    """Take a series out of its ZIP with `unzip`, below `folder`, and return its own folder."""
    target = folder / series.path
    target.mkdir(parents=True)
    (target / "series.zip").write_bytes(_zip_with_annotations(sample, series.uid))
    done = run("unzip", "-q", target / "series.zip", "-d", target)
    assert done.returncode == 0, done.stderr
    for name in ("series.zip", *NOT_IMAGES):
        (target / name).unlink(missing_ok=True)
    return target


def md5(content: bytes) -> str:
    """Return what tells two images apart."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
