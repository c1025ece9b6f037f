"""What is read of a plain header, held against pydicom: the same, or nothing."""

from io import BytesIO
from itertools import product
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from tciafs.headers import BEGINNING_TAGS, Beginning, _careful_beginning, _plain_beginning
from tciafs.plain_headers import plain_number, plain_text, plain_uid, plain_values

CT = Path(str(pydicom.data.get_testdata_file("CT_small.dcm")))
PLAIN = (ExplicitVRLittleEndian, JPEG2000Lossless)
OTHERS = (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LAST_TAG = BEGINNING_TAGS[-1]


def written(syntax: UID = ExplicitVRLittleEndian, **elements: object) -> bytes:
    """Return an image with elements by keyword, and some others around them."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, UID("1.2.3")
    image.SeriesInstanceUID = "1.2"
    image.ReferencedImageSequence = Sequence([Dataset(), Dataset()])
    image.ReferencedImageSequence[1].SOPInstanceUID = "9.9.9"
    for keyword, value in elements.items():
        setattr(image, keyword, value)
    image.Rows = 1
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = syntax
    image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    file = BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("syntax", PLAIN)
def test_a_plain_header_says_what_pydicom_would(syntax: UID) -> None:
    header = written(syntax, StudyID="S 1", AcquisitionNumber=7, InstanceNumber=12)
    assert _plain_beginning(header) == Beginning("1.2.3", "1.2", "S 1", 7, 12)
    assert _careful_beginning(header, is_whole=True) == Beginning("1.2.3", "1.2", "S 1", 7, 12)


@pytest.mark.parametrize("syntax", OTHERS)
def test_what_is_not_plain_is_left_to_pydicom(syntax: UID) -> None:
    assert _plain_beginning(written(syntax, InstanceNumber=12)) is None


def test_a_header_that_breaks_off_is_none_until_all_of_it_is_there() -> None:
    header = written(AcquisitionNumber=7, InstanceNumber=12)
    whole = _careful_beginning(header, is_whole=True)
    said = [_plain_beginning(header[:size]) for size in range(len(header) + 1)]
    assert set(said) == {None, whole}
    assert said[0] is None
    assert said[-1] == whole


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("StudyID", "Müller"), ("StudyID", ["1", "2"]), ("InstanceNumber", ["1", "2"]), ("InstanceNumber", -1)],
)
def test_values_that_are_not_plain_are_left_to_pydicom(keyword: str, value: object) -> None:
    header = written(**{"SpecificCharacterSet": "ISO_IR 100", keyword: value})  # type: ignore[arg-type]
    assert plain_values(header, BEGINNING_TAGS, LAST_TAG) is not None
    assert _plain_beginning(header) is None
    assert _careful_beginning(header, is_whole=True) is not None


texts = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=16)
numbers = st.none() | st.integers(-5, 2**31 - 1)


@given(study_id=texts, acquisition=numbers, instance=numbers, syntax=st.sampled_from(PLAIN + OTHERS))
def test_values_are_those_of_pydicom_or_none(
    study_id: str, acquisition: int | None, instance: int | None, syntax: UID
) -> None:
    header = written(syntax, StudyID=study_id, AcquisitionNumber=acquisition, InstanceNumber=instance)
    plain = _plain_beginning(header)
    assert plain in (None, _careful_beginning(header, is_whole=True))


@given(data=st.data())
def test_bytes_that_were_changed_make_it_say_nothing_that_pydicom_would_not(data: st.DataObject) -> None:
    header = bytearray(written(StudyID="S1", AcquisitionNumber=7, InstanceNumber=12))
    place = data.draw(st.integers(132, len(header) - 1))
    header[place] = data.draw(st.integers(0, 255))
    plain = _plain_beginning(bytes(header))
    if plain is not None and (careful := _careful_beginning(bytes(header), is_whole=True)) != Beginning(
        None, None, None, None, None
    ):
        assert plain == careful


def test_real_images_say_the_same_both_ways() -> None:
    looked_at = 0
    for path in sorted(CT.parent.rglob("*.dcm")):
        header = path.read_bytes()
        if (plain := _plain_beginning(header)) is not None:
            assert plain == _careful_beginning(header, is_whole=True), path.name
            looked_at += 1
    assert looked_at > 10


def test_bytes_that_are_no_dicom_are_not_looked_at() -> None:
    for size, filling in product((0, 131, 132, 140, 5000), (b"\0", b"D", b"\xff")):
        assert plain_values(filling * size, BEGINNING_TAGS, LAST_TAG) is None
        assert plain_values(filling * 128 + b"DICM" + filling * size, BEGINNING_TAGS, LAST_TAG) is None


def test_values_are_read_as_dicom_pads_them() -> None:
    assert (plain_uid(b"1.2.3\0"), plain_uid(b""), plain_uid(b"1.2 3")) == ("1.2.3", "", None)
    assert (plain_number(b" 12 "), plain_number(b""), plain_number(b"1.0")) == (12, None, None)
    assert (plain_text(b"S 1 "), plain_text(b""), plain_text(b"\xc4")) == ("S 1", "", None)


def test_an_element_behind_the_last_one_is_not_read() -> None:
    header = written(InstanceNumber=12)
    rows_at = header.index(b"\x28\0\x10\0US")
    assert plain_values(header[: rows_at + 12], BEGINNING_TAGS, LAST_TAG) is not None
