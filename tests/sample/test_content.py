"""What the archive holds: valid DICOM whose headers say what the listings say."""

import datetime as dt
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from tciafs.sample import bulk, content, traps
from tciafs.sample.dicom import encode
from tciafs.sample.holdings import Shelf
from tciafs.sample.phantoms import tile
from tciafs.sample.pictures import captures
from tciafs.sample.records import Image, Series

SHELVES = [
    *content.shelves(),
    *traps.shelves(),
    bulk.many_patients(3),
    bulk.many_series(12),
    bulk.bench(3),
    bulk.huge(12),
]


@pytest.fixture(autouse=True)
def _odd_values_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)


def all_series() -> Iterator[Series]:
    for shelf in SHELVES:
        yield from shelf.series


def read(image: Image) -> Dataset:
    return dcmread(io.BytesIO(b"".join(image.pieces())))


def text(value: str | None) -> str:
    return (value or "").rstrip(" ")


def day(value: dt.date | None) -> str:
    return "" if value is None else f"{value:%Y%m%d}"


def series_called(shelf_name: str, modality: str) -> Series:
    (shelf,) = (shelf for shelf in SHELVES if shelf.name == shelf_name)
    (found,) = (series for series in shelf.series if series.modality == modality)
    return found


@pytest.mark.filterwarnings("ignore:Found unknown escape sequence")  # one is there, as a trap
@pytest.mark.parametrize("shelf", SHELVES, ids=lambda shelf: shelf.name)
def test_rows_agree_with_the_headers_of_the_files(shelf: Shelf) -> None:
    for series in shelf.series:
        study = series.study
        for image in series.images():
            header = read(image)
            assert header.SOPInstanceUID == header.file_meta.MediaStorageSOPInstanceUID
            assert header.SOPInstanceUID == image.sop_uid
            assert header.get("AcquisitionNumber") == image.acquisition
            assert header.InstanceNumber == image.instance
            assert header.SeriesInstanceUID == series.uid
            assert header.StudyInstanceUID == study.uid
            assert text(header.PatientID) == text(study.patient.patient_id)
            assert header.StudyDate == day(study.date)
            assert text(header.StudyID) == text(study.study_id)
            assert text(header.get("StudyDescription")) == text(study.description)
            assert text(header.get("SeriesDescription")) == text(series.description)
            assert header.SeriesNumber == series.number
            assert header.Modality == series.modality


def test_counts_and_sizes_are_those_of_the_files() -> None:
    for series in all_series():
        sizes = [len(b"".join(image.pieces())) for image in series.images()]
        assert series.image_count == len(sizes)
        assert series.size_bytes == sum(sizes)


def test_identifiers_are_valid_and_no_image_has_anothers() -> None:
    seen: set[str] = set()
    for series in all_series():
        uids = [image.sop_uid for image in series.images()]
        assert UID(series.uid).is_valid
        assert UID(series.study.uid).is_valid
        assert all(UID(uid).is_valid for uid in uids)
        assert seen.isdisjoint([*uids, series.uid])
        seen.update([*uids, series.uid])


def test_the_head_is_a_volume_in_hounsfield_units() -> None:
    series = series_called("Phantom-Head", "CT")
    slices = sorted(map(read, series.images()), key=lambda one: one.InstanceNumber)
    assert len(slices) == 60
    heights = [one.ImagePositionPatient[2] for one in slices]
    assert np.allclose(np.diff(heights), slices[0].SliceThickness)
    middle = slices[30].pixel_array + float(slices[30].RescaleIntercept)
    assert middle[2, 2] < -950  # air
    assert middle.max() > 900  # bone
    assert 15 < np.median(middle[100:156, 100:156]) < 50  # brain


def test_an_independent_reader_takes_the_head_for_a_volume(tmp_path: Path) -> None:
    for place, image in enumerate(series_called("Phantom-Head", "CT").images()):
        (tmp_path / f"{place}.dcm").write_bytes(b"".join(image.pieces()))
    reader: Any = SimpleITK  # it has no types
    files = reader.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    volume = reader.ReadImage(files)
    assert volume.GetSize() == (256, 256, 60)
    assert volume.GetSpacing() == pytest.approx((0.9, 0.9, 2.5))


def test_segmentation_and_contours_refer_to_slices_of_the_head() -> None:
    slices = {image.sop_uid for image in series_called("Phantom-Head", "CT").images()}
    for modality in ("SEG", "RTSTRUCT", "SR"):
        (image,) = series_called("Phantom-Head", modality).images()
        referenced = {
            str(element.value)
            for element in read(image).iterall()
            if element.keyword == "ReferencedSOPInstanceUID"
        }
        assert referenced & slices
        assert referenced - slices <= {series_called("Phantom-Head", "CT").study.uid}


def test_compressed_pixels_can_be_decompressed() -> None:
    (shelf,) = (shelf for shelf in SHELVES if shelf.name == "Transfer-Syntaxes")
    (rle,) = (series for series in shelf.series if series.description == "RLE")
    (deflated,) = (series for series in shelf.series if series.description == "Deflated")
    for one, other in zip(rle.images(), deflated.images(), strict=True):
        assert (read(one).pixel_array == read(other).pixel_array).all()


def test_the_same_archive_is_made_again_byte_for_byte() -> None:
    for shelf in (*content.shelves(), *traps.shelves()):
        (before,) = (one for one in SHELVES if one.name == shelf.name)
        for series, twin in zip(shelf.series, before.series, strict=True):
            for image, other in zip(series.images(), twin.images(), strict=True):
                assert b"".join(image.pieces()) == b"".join(other.pieces())


number = st.none() | st.integers(0, 10**6)


@settings(max_examples=25)
@given(st.lists(st.tuples(number, number), min_size=1, max_size=4))
def test_a_small_image_is_what_pydicom_would_write(numbers: list[tuple[int | None, int | None]]) -> None:
    series = bulk.many_series(1).series[0]
    for place, image in enumerate(captures(*numbers)(series), start=1):
        made = read(image)
        told = (made.get("AcquisitionNumber"), made.InstanceNumber)  # decoded, so that they are written anew
        assert told == numbers[place - 1] == (image.acquisition, image.instance)
        assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID == image.sop_uid
        assert (made.pixel_array == tile(32, place)).all()
        assert encode(made) == b"".join(image.pieces())
