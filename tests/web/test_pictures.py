"""Pictures of images: windowed as they say or as is sensible, and a sentence for what cannot be shown."""

import io
import re
from pathlib import Path
from typing import Any

import numpy
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from tciafs.web import pictures
from tciafs.web.pictures import NoPicture, picture

Pixels = NDArray[Any]
RAMP = numpy.arange(16 * 16, dtype=numpy.uint16).reshape(16, 16)


def image(pixels: Pixels, **attributes: Any) -> FileDataset:
    """Return a grey image of these pixels; frames come first, colours last."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    is_colour = attributes.get("SamplesPerPixel") == 3
    made.Rows, made.Columns = pixels.shape[-3:-1] if is_colour else pixels.shape[-2:]
    made.Modality, made.SamplesPerPixel = "CT", 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = pixels.dtype.itemsize * 8
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(pixels.dtype.kind == "i")
    for name, value in attributes.items():
        setattr(made, name, value)
    made.PixelData = pixels.tobytes()
    return made


def encoded(made: Dataset) -> bytes:
    file = io.BytesIO()
    made.save_as(file)
    return file.getvalue()


def seen(data: bytes, folder: Path) -> Pixels:
    """Return the picture of an image that lies in the middle of a pack."""
    pack = folder / "pack"
    pack.write_bytes(b"before" + data + b"behind")
    return numpy.asarray(Image.open(io.BytesIO(picture(pack, 6, len(data)))))


def test_a_window_of_the_image_is_what_is_black_and_white(tmp_path: Path) -> None:
    shown = seen(encoded(image(RAMP, WindowCenter="100", WindowWidth="41")), tmp_path)
    assert shown.shape == (16, 16)
    flat = shown.ravel()
    assert (flat[:80].max(), flat[120:].min()) == (0, 255)
    assert 120 < flat[100] < 135


def test_the_first_of_several_windows_counts_and_the_rescaled_values(tmp_path: Path) -> None:
    made = image(RAMP, RescaleSlope="2", RescaleIntercept="-100", RescaleType="HU")
    made.WindowCenter, made.WindowWidth = ["100", "0"], ["41", "9"]
    flat = seen(encoded(made), tmp_path).ravel()
    assert (flat[:90].max(), flat[111:].min()) == (0, 255)


@pytest.mark.parametrize(
    "window",
    [{}, {"WindowCenter": "9000", "WindowWidth": "10"}, {"WindowCenter": "100", "WindowWidth": "0"}],
    ids=["none", "beside", "empty"],
)
def test_without_a_sensible_window_all_but_the_extremes_is_seen(
    window: dict[str, str], tmp_path: Path
) -> None:
    pixels = RAMP.copy()
    pixels[0, 0], pixels[15, 15] = 0, 60_000
    flat = seen(encoded(image(pixels, **window)), tmp_path).ravel()
    assert 110 < flat[128] < 145


def test_monochrome1_is_the_other_way_round_and_padding_black(tmp_path: Path) -> None:
    pixels = RAMP.copy()
    pixels[0] = 5000
    made = image(pixels, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=5000)
    shown = seen(encoded(made), tmp_path)
    assert shown[1, 0] > 240
    assert shown[15, 15] < 15
    assert shown[0].max() == 0


def test_of_many_frames_the_middle_one_is_shown(tmp_path: Path) -> None:
    frames = numpy.stack([numpy.full((4, 4), value, numpy.uint8) for value in (10, 20, 30, 40, 50)])
    made = image(frames, NumberOfFrames="5", WindowCenter="128", WindowWidth="256")
    assert seen(encoded(made), tmp_path)[0, 0] == 30


def test_an_enhanced_image_says_its_window_in_groups(tmp_path: Path) -> None:
    made = image(numpy.stack([RAMP, RAMP, RAMP]), NumberOfFrames="3")
    voi, rescale = Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = "200", "41"
    rescale.RescaleSlope, rescale.RescaleIntercept = "2", "0"
    shared, of_frame = Dataset(), Dataset()
    shared.PixelValueTransformationSequence = Sequence([rescale])
    of_frame.FrameVOILUTSequence = Sequence([voi])
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    made.PerFrameFunctionalGroupsSequence = Sequence([Dataset(), of_frame, Dataset()])
    flat = seen(encoded(made), tmp_path).ravel()
    assert (flat[:89].max(), flat[111:].min()) == (0, 255)


def test_colours_stay_colours(tmp_path: Path) -> None:
    pixels = numpy.zeros((4, 4, 3), numpy.uint8)
    pixels[..., 0], pixels[..., 2] = 200, 50
    made = image(pixels, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    assert seen(encoded(made), tmp_path)[1, 1].tolist() == [200, 0, 50]


def test_what_is_compressed_is_shown_where_it_can_be_decoded(tmp_path: Path) -> None:
    made = image(RAMP, WindowCenter="100", WindowWidth="41")
    made.compress(RLELossless)
    assert seen(encoded(made), tmp_path).ravel()[120:].min() == 255


def test_pixels_that_are_not_square_are_shown_as_they_are_in_the_body(tmp_path: Path) -> None:
    assert seen(encoded(image(RAMP, PixelSpacing=["3", "1"])), tmp_path).shape == (48, 16)


def test_a_large_image_is_made_smaller(tmp_path: Path) -> None:
    assert seen(encoded(image(numpy.zeros((3000, 1500), numpy.uint8))), tmp_path).shape == (768, 384)


def test_what_cannot_be_decoded_is_said_by_name(tmp_path: Path) -> None:
    made = image(RAMP)
    made.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7"])
    made["PixelData"].VR = "OB"
    made.file_meta.TransferSyntaxUID = JPEGLSLossless
    with pytest.raises(NoPicture, match="nothing is installed that can decode JPEG-LS Lossless"):
        seen(encoded(made), tmp_path)


def test_what_has_no_pixels_is_said(tmp_path: Path) -> None:
    made = image(RAMP, Modality="RTSTRUCT")
    del made.PixelData, made.Rows, made.Columns
    with pytest.raises(NoPicture, match="a series of modality RTSTRUCT has no pixels"):
        seen(encoded(made), tmp_path)


def test_what_claims_to_be_huge_is_not_tried(tmp_path: Path) -> None:
    made = image(RAMP)
    data = encoded(made)
    made.Rows = made.Columns = 65_000
    with pytest.raises(NoPicture, match="65000 x 65000 pixels is too large"):
        seen(encoded(made), tmp_path)
    with pytest.raises(NoPicture, match="made room"):
        picture(tmp_path / "nothing", 0, len(data))


def test_what_could_inflate_to_very_much_is_not_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = image(RAMP, WindowCenter="100", WindowWidth="41")
    made.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data = encoded(made)
    assert seen(data, tmp_path).ravel()[120:].min() == 255
    monkeypatch.setattr(pictures, "LARGEST_DEFLATED_BYTES", len(data) - 1)
    with pytest.raises(NoPicture, match="is not inflated"):
        seen(data, tmp_path)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_a_file_has_there_is_a_picture_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(encoded(image(RAMP, WindowCenter="100", WindowWidth="41")))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    sentence = ""
    try:
        seen(bytes(content), tmp_path_factory.mktemp("fuzz"))
    except NoPicture as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert len(sentence) < 400


@pytest.mark.filterwarnings("ignore")  # pydicom tells who writes such a header
def test_a_modality_that_is_none_is_not_said(tmp_path: Path) -> None:
    plan = image(RAMP)
    del plan.Rows
    for modality, said in (("RTPLAN", "RTPLAN"), ("CT\n" + 99 * "x", "?")):
        plan.Modality = modality
        with pytest.raises(NoPicture, match=rf"of modality {re.escape(said)} has no pixels"):
            seen(encoded(plan), tmp_path)
