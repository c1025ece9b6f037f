"""Makers of what belongs to images: a segmentation, an RT structure set, a structured report.

Each refers to the head CT by the identifiers of its slices. Defined here and only here: the
modules of those three object kinds (PS3.3 A.51, A.19, A.35.2).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from tciafs.sample import phantoms
from tciafs.sample.dicom import header, image_of_dataset, uid
from tciafs.sample.pictures import instance_uid
from tciafs.sample.records import Image, Series

__all__ = ["report", "segmentation", "structures"]

GRID = phantoms.CT_GRID
DAY, MOMENT = "20210520", "120000"


class Code(NamedTuple):
    """A coded concept (PS3.3 8.8). pydicom's own would bring all of SNOMED along, at every start."""

    value: str
    scheme_designator: str
    meaning: str


VENTRICLE = Code("80454004", "SCT", "Ventricle of brain")
HAEMORRHAGE = Code("50960005", "SCT", "Haemorrhage")
ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Altered Structure")
MILLILITRE = Code("ml", "UCUM", "milliliter")


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def _item(**elements: object) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _slice_reference(ct_uid: str, index: int) -> Dataset:
    return _item(
        ReferencedSOPClassUID=CTImageStorage,
        ReferencedSOPInstanceUID=instance_uid(ct_uid, index + 1),
    )


def _frame_of_reference(series: Series) -> str:
    return uid(series.study.uid, "frame of reference")


def segmentation(ct_uid: str) -> Callable[[Series], Sequence[Image]]:
    """Return a maker of a binary segmentation: ventricles and bleeding, one frame a slice."""

    def make(series: Series) -> Sequence[Image]:
        masks = [
            phantoms.inside(GRID, phantoms.VENTRICLES),
            phantoms.inside(GRID, (phantoms.BLEEDING,)),
        ]
        frames = [
            (number, index, mask[index])
            for number, mask in enumerate(masks, start=1)
            for index in np.flatnonzero(mask.any(axis=(1, 2))).tolist()
        ]
        dataset = header(series, SegmentationStorage, instance_uid(series.uid, 1))
        _describe_segments(dataset)
        _describe_frames(dataset, series, ct_uid, [frame[:2] for frame in frames])
        pixels = np.stack([frame[2] for frame in frames])
        dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pack_bits(pixels.astype(np.uint8))
        return [image_of_dataset(dataset)]

    return make


def _describe_segments(dataset: Dataset) -> None:
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ContentDate, dataset.ContentTime = DAY, MOMENT
    dataset.ContentLabel, dataset.ContentDescription = "HEAD", "Ventricles and bleeding"
    dataset.ContentCreatorName = ""
    dataset.SegmentationType = "BINARY"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelRepresentation, dataset.LossyImageCompression = 0, "00"
    kinds = ((ANATOMY, VENTRICLE, "Ventricles"), (ABNORMAL, HAEMORRHAGE, "Bleeding"))
    dataset.SegmentSequence = [
        _item(
            SegmentNumber=number,
            SegmentLabel=label,
            SegmentAlgorithmType="AUTOMATIC",
            SegmentAlgorithmName="formula",
            SegmentedPropertyCategoryCodeSequence=[_code(category)],
            SegmentedPropertyTypeCodeSequence=[_code(kind)],
        )
        for number, (category, kind, label) in enumerate(kinds, start=1)
    ]


def _describe_frames(
    dataset: Dataset, series: Series, ct_uid: str, frames: Sequence[tuple[int, int]]
) -> None:
    """Add the multi-frame functional groups and dimensions of (segment, slice) pairs."""
    dimension = uid(series.uid, "dimensions")
    dataset.FrameOfReferenceUID = _frame_of_reference(series)
    dataset.PositionReferenceIndicator = ""
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=dimension)]
    dataset.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=dimension,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=group,
        )
        for pointer, group in ((0x0062000B, 0x0062000A), (0x00200032, 0x00209113))
    ]
    dataset.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[
                _item(PixelSpacing=[GRID.spacing_mm] * 2, SliceThickness=GRID.thickness_mm)
            ],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame_groups(ct_uid, segment, index) for segment, index in frames
    ]
    slices = sorted({index for _, index in frames})
    dataset.ReferencedSeriesSequence = [
        _item(
            SeriesInstanceUID=ct_uid,
            ReferencedInstanceSequence=[_slice_reference(ct_uid, index) for index in slices],
        )
    ]


def _frame_groups(ct_uid: str, segment: int, index: int) -> Dataset:
    source = _slice_reference(ct_uid, index)
    source.PurposeOfReferenceCodeSequence = [
        _code(Code("121322", "DCM", "Source image for image processing operation"))
    ]
    derivation = _item(
        SourceImageSequence=[source],
        DerivationCodeSequence=[_code(Code("113076", "DCM", "Segmentation"))],
    )
    position = [round(GRID.left_mm, 3), round(GRID.front_mm, 3), round(GRID.z_mm(index), 3)]
    return _item(
        DerivationImageSequence=[derivation],
        FrameContentSequence=[_item(DimensionIndexValues=[segment, index + 1])],
        PlanePositionSequence=[_item(ImagePositionPatient=position)],
        SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=segment)],
    )


def structures(ct_uid: str) -> Callable[[Series], Sequence[Image]]:
    """Return a maker of an RT structure set: the bleeding as contours on the CT slices."""

    def make(series: Series) -> Sequence[Image]:
        dataset = header(series, RTStructureSetStorage, instance_uid(series.uid, 1))
        dataset.StructureSetLabel = "HEAD"
        dataset.StructureSetDate, dataset.StructureSetTime = DAY, MOMENT
        contours = list(_contours(ct_uid, phantoms.BLEEDING))
        frame = _frame_of_reference(series)
        dataset.ReferencedFrameOfReferenceSequence = [
            _item(
                FrameOfReferenceUID=frame,
                RTReferencedStudySequence=[_referenced_study(series, ct_uid)],
            )
        ]
        dataset.StructureSetROISequence = [
            _item(
                ROINumber=1,
                ReferencedFrameOfReferenceUID=frame,
                ROIName="Bleeding",
                ROIGenerationAlgorithm="AUTOMATIC",
            )
        ]
        dataset.ROIContourSequence = [
            _item(ROIDisplayColor=[220, 40, 40], ContourSequence=contours, ReferencedROINumber=1)
        ]
        dataset.RTROIObservationsSequence = [
            _item(
                ObservationNumber=1,
                ReferencedROINumber=1,
                RTROIInterpretedType="",
                ROIInterpreter="",
            )
        ]
        dataset.ApprovalStatus = "UNAPPROVED"
        return [image_of_dataset(dataset)]

    return make


def _referenced_study(series: Series, ct_uid: str) -> Dataset:
    images = [_slice_reference(ct_uid, index) for index in range(GRID.slices)]
    return _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=series.study.uid,
        RTReferencedSeriesSequence=[_item(SeriesInstanceUID=ct_uid, ContourImageSequence=images)],
    )


def _contours(ct_uid: str, piece: phantoms.Ellipsoid, points: int = 48) -> Iterable[Dataset]:
    """Yield the closed polygon of an ellipsoid on each slice that cuts it."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    for index in range(GRID.slices):
        z = GRID.z_mm(index)
        rest = 1 - ((z - piece.z) / piece.c) ** 2
        if rest <= 0:
            continue
        x = piece.x + piece.a * np.sqrt(rest) * np.cos(turn)
        y = piece.y + piece.b * np.sqrt(rest) * np.sin(turn)
        corners = np.stack([x, y, np.full(points, z)], axis=1).round(2)
        yield _item(
            ContourImageSequence=[_slice_reference(ct_uid, index)],
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=points,
            ContourData=corners.ravel().tolist(),
        )


def report(ct_uid: str) -> Callable[[Series], Sequence[Image]]:
    """Return a maker of a basic text report on the CT."""

    def make(series: Series) -> Sequence[Image]:
        dataset = header(series, BasicTextSRStorage, instance_uid(series.uid, 1))
        dataset.ReferencedPerformedProcedureStepSequence = []
        dataset.PerformedProcedureCodeSequence = []
        dataset.ContentDate, dataset.ContentTime = DAY, MOMENT
        dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
        dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
        dataset.ConceptNameCodeSequence = [_code(Code("18748-4", "LN", "Diagnostic imaging report"))]
        dataset.CurrentRequestedProcedureEvidenceSequence = [
            _item(
                StudyInstanceUID=series.study.uid,
                ReferencedSeriesSequence=[
                    _item(
                        SeriesInstanceUID=ct_uid,
                        ReferencedSOPSequence=[_slice_reference(ct_uid, 37)],
                    )
                ],
            )
        ]
        finding = Code("121071", "DCM", "Finding")
        conclusion = Code("121077", "DCM", "Conclusion")
        dataset.ContentSequence = [
            _text(finding, "Computed head: hyperdense ellipsoid, left parietal, 20 x 24 x 18 mm."),
            _text(conclusion, "A phantom. No person was imaged."),
            _item(
                RelationshipType="CONTAINS",
                ValueType="IMAGE",
                ReferencedSOPSequence=[_slice_reference(ct_uid, 37)],
            ),
        ]
        return [image_of_dataset(dataset)]

    return make


def _text(concept: Code, text: str) -> Dataset:
    return _item(
        RelationshipType="CONTAINS",
        ValueType="TEXT",
        ConceptNameCodeSequence=[_code(concept)],
        TextValue=text,
    )
