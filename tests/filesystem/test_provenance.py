"""The attributes that say where a file comes from; nothing in them asks the archive."""

import datetime as dt
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from trio.testing import wait_all_tasks_blocked

from tciafs.errors import SeriesDamaged
from tciafs.filesystem.provenance import sop_instance_uid, xattrs_of_record, xattrs_of_state
from tciafs.headers import HEADER_BYTES
from tciafs.model import Collection, Patient, Series, Study
from tciafs.store.open_packs import OpenImage
from tests.fakes import make_series
from tests.filesystem.fakes import running_core

SOP_UID = UID("1.2.826.0.1.3680043.8.498.1")


@dataclass
class Image:
    """An open image with these bytes."""

    content: bytes

    @property
    def image(self) -> Any:
        return SimpleNamespace(size_bytes=len(self.content))

    def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


def uid_in(content: bytes) -> str | None:
    return sop_instance_uid(cast(OpenImage, Image(content)))


def dicom(
    syntax: UID = ExplicitVRLittleEndian, private_bytes: int = 0, sop_uid: str | None = SOP_UID
) -> bytes:
    """Return a DICOM file with a large private element behind its SOP Instance UID."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = SOP_UID
    dataset.file_meta.TransferSyntaxUID = syntax
    if sop_uid is not None:
        dataset.SOPInstanceUID = sop_uid
    dataset.PatientID = "P1"
    # Bytes that do not deflate, so that the deflated file is larger than a header is read.
    noise = b"".join(zlib.crc32(b"%d" % place).to_bytes(4, "big") for place in range(private_bytes // 4))
    dataset.private_block(0x0011, "TCIAFS TEST", create=True).add_new(0x01, "OB", noise)
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


# Records


def test_each_record_says_what_the_archive_calls_it() -> None:
    assert xattrs_of_record(Collection("Lung")) == {"user.tcia.Collection": "Lung"}
    assert xattrs_of_record(Patient("Lung", "P1")) == {
        "user.tcia.Collection": "Lung",
        "user.tcia.PatientID": "P1",
    }
    assert xattrs_of_record(Study("Lung", "P1", "1.2", dt.date(2001, 2, 3), description="CT CHEST")) == {
        "user.tcia.Collection": "Lung",
        "user.tcia.PatientID": "P1",
        "user.tcia.StudyInstanceUID": "1.2",
        "user.tcia.StudyDescription": "CT CHEST",
        "user.tcia.StudyDate": "2001-02-03",
    }


def test_a_series_says_its_licence_and_where_it_is_described() -> None:
    series = Series(
        "Lung",
        "P1",
        "1.2",
        "1.2.3",
        modality="CT",
        description="Axial",
        licence_name="CC BY 4.0",
        licence_uri="https://example.org/by",
        data_uri="https://doi.org/10.5072/x",
        body_part="CHEST",
        manufacturer="GE",
        model="LightSpeed",
        third_party="NO",
        released=dt.date(2024, 5, 6),
        image_count=0,
        size_bytes=7,
    )
    assert xattrs_of_record(series) == {
        "user.tcia.Collection": "Lung",
        "user.tcia.PatientID": "P1",
        "user.tcia.StudyInstanceUID": "1.2",
        "user.tcia.SeriesInstanceUID": "1.2.3",
        "user.tcia.SeriesDescription": "Axial",
        "user.tcia.Modality": "CT",
        "user.tcia.LicenseName": "CC BY 4.0",
        "user.tcia.LicenseURI": "https://example.org/by",
        "user.tcia.DataDescriptionURI": "https://doi.org/10.5072/x",
        "user.tcia.BodyPartExamined": "CHEST",
        "user.tcia.Manufacturer": "GE",
        "user.tcia.ManufacturerModelName": "LightSpeed",
        "user.tcia.ThirdPartyAnalysis": "NO",
        "user.tcia.DateReleased": "2024-05-06",
        "user.tcia.ImageCount": "0",
        "user.tcia.FileSize": "7",
    }


def test_what_the_archive_did_not_say_is_left_out() -> None:
    attributes = xattrs_of_record(Series("Lung", "P1", "1.2", "1.2.3", description=""))
    assert attributes.keys() == {
        f"user.tcia.{key}" for key in ("Collection", "PatientID", "StudyInstanceUID", "SeriesInstanceUID")
    }


@pytest.mark.parametrize(
    ("name", "uri", "is_marked"),
    [
        ("Creative Commons Attribution-NonCommercial 4.0 International License", None, True),
        ("Creative Commons Attribution-Noncommercial 3.0 Unported License", None, True),
        ("CC BY-NC, Non Commercial", None, True),
        (None, "https://creativecommons.org/licenses/by-nc/4.0/", True),
        ("Creative Commons Attribution 4.0 International License", "https://x/licenses/by/4.0/", False),
        (None, None, False),
    ],
)
def test_series_that_may_not_be_used_commercially_are_marked(
    name: str | None, uri: str | None, is_marked: bool
) -> None:
    series = Series("Lung", "P1", "1.2", "1.2.3", licence_name=name, licence_uri=uri)
    assert xattrs_of_record(series).get("user.tcia.NonCommercial") == ("yes" if is_marked else None)


# State


async def test_the_state_of_a_series_follows_its_bytes(
    tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("came short")
    series = make_series(image_count=1)
    async with running_core(tmp_path) as core:
        assert xattrs_of_state(core.store, series) == {"user.tciafs.state": "remote"}
        core.store.fetch(series)
        transfer = await core.fetcher.begun()
        assert xattrs_of_state(core.store, series) == {"user.tciafs.state": "arriving"}
        transfer.end(SeriesDamaged("it came short"))
        await wait_all_tasks_blocked()
        assert xattrs_of_state(core.store, series) == {
            "user.tciafs.state": "failed",
            "user.tciafs.error": f"it came short. {SeriesDamaged.hint}",
        }
    assert core.archive.asked == []


async def test_a_local_series_says_which_checks_it_passed(tmp_path: Path) -> None:
    series = make_series(image_count=1)
    async with running_core(tmp_path, contents={series.series_uid: [("1-1.dcm", b"data")]}) as core:
        await core.fetch(series)
        assert xattrs_of_state(core.store, series) == {
            "user.tciafs.state": "local",
            "user.tciafs.verified": "crc32",
        }


# The SOP Instance UID


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("private_bytes", [0, 3 * HEADER_BYTES])
def test_the_uid_of_an_image_is_read_also_where_its_header_is_long(syntax: UID, private_bytes: int) -> None:
    assert uid_in(dicom(syntax, private_bytes)) == SOP_UID


def test_no_more_than_the_beginning_of_an_image_is_read() -> None:
    content = dicom(private_bytes=3 * HEADER_BYTES)
    assert uid_in(content[:HEADER_BYTES] + b"\xff" * (len(content) - HEADER_BYTES)) == SOP_UID


@pytest.mark.parametrize("sop_uid", [None, ""])
def test_an_image_without_a_uid_has_none(sop_uid: str | None) -> None:
    assert uid_in(dicom(sop_uid=sop_uid)) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>maintenance</html>" * 50, bytes(1000)])
def test_what_is_no_dicom_has_none(content: bytes) -> None:
    assert uid_in(content) is None


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.data())
def test_no_bytes_make_it_raise(data: st.DataObject) -> None:
    content = bytearray(DAMAGEABLE)
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    found = uid_in(bytes(content[: data.draw(st.integers(0, len(content)))]))
    assert found is None or isinstance(found, str)


DAMAGEABLE = dicom()
