"""The listing endpoints: which parameters each takes, what it selects, which rows it answers.

Defined here and only here: the endpoint table and the matching rules (v4 refuses a parameter it
does not know, v1 passes over it; texts are compared without case by v4 only). No HTTP here.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypedDict

from tciafs.sample.holdings import Holdings, Keys
from tciafs.sample.records import Series
from tciafs.sample.rows import (
    V4,
    Row,
    metadata_row,
    patient_row,
    row,
    series_row,
    spaced_metadata_row,
    study_row,
)

__all__ = ["ENDPOINTS", "NOT_PROCESSED", "Endpoint", "Question", "Refusal", "known_parameters"]

Parameters: TypeAlias = Mapping[str, str]
Field: TypeAlias = Callable[[Series], str | None]

FIELDS: Mapping[str, Field] = {
    "Modality": lambda series: series.modality,
    "BodyPartExamined": lambda series: series.body_part,
    "Manufacturer": lambda series: series.manufacturer,
    "ManufacturerModelName": lambda series: series.model,
}
NOT_PROCESSED = "Server was not able to process your request"


class Scope(TypedDict):
    """How far a request sees; keyword arguments of the listings of Holdings."""

    restricted: bool
    collection: str | None


class Refusal(Exception):
    """The request cannot be answered; `status` and `text` are what the server says."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Question:
    """One listing request, its parameters checked; those that v1 passed over are not among them."""

    holdings: Holdings
    version: str
    parameters: Parameters
    sees_restricted: bool
    carts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def scope(self) -> Scope:
        """The collection asked for and whether restricted ones are seen."""
        return {"restricted": self.sees_restricted, "collection": self.parameters.get("Collection")}

    @property
    def keys(self) -> Keys:
        """The patient, study and series asked for."""
        get = self.parameters.get
        patient_id = get("PatientID", get("PatientId"))
        return Keys(patient_id, get("StudyInstanceUID"), get("SeriesInstanceUID"))

    def selected(self, keys: Keys | None = None) -> Iterator[Series]:
        """Yield the series that match every parameter, or these keys and the other parameters."""
        tests = [(FIELDS[name], value) for name, value in self.parameters.items() if name in FIELDS]
        folds = self.version == V4
        for series in self.holdings.series(keys or self.keys, **self.scope):
            if all(_matches(column(series), value, folds) for column, value in tests):
                yield series

    def required(self, name: str) -> str:
        """Return a parameter; raises Refusal where it is missing or empty."""
        if value := self.parameters.get(name):
            return value
        raise Refusal(400, f"A parameter, {name}, is required for this API call.")


def _matches(found: str | None, wanted: str, folds: bool) -> bool:
    if found is None:
        return False
    return found.upper() == wanted.upper() if folds else found == wanted


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A listing: the parameters it knows and the rows it answers."""

    parameters: tuple[str, ...]
    rows: Callable[[Question], Iterable[Row]]
    versions: tuple[str, ...] = ("v1", "v4")
    method: str = "GET"


def known_parameters(version: str, given: Parameters, known: Iterable[str]) -> Parameters:
    """Return the parameters that the endpoint knows; v4 raises Refusal at another, v1 passes it over."""
    allowed = [*known, "format"]
    for name in given:
        if version == V4 and name not in allowed:
            listed = ", ".join(allowed)
            text = f"Invalid query parameter: '{name}'. Allowed parameters are: [{listed}]"
            raise Refusal(400, text)
    return {name: value for name, value in given.items() if name in allowed}


def _collections(question: Question) -> Iterator[Row]:
    for collection in question.holdings.collections(restricted=question.sees_restricted):
        yield row(Collection=collection.name)


def _patients(question: Question) -> Iterator[Row]:
    for patient in question.holdings.patients(question.keys, **question.scope):
        yield patient_row(patient, question.version)


def _studies(question: Question) -> Iterator[Row]:
    for study, count in question.holdings.studies(question.keys, **question.scope):
        yield study_row(study, count, question.version)


def _series(question: Question) -> Iterator[Row]:
    for series in question.selected():
        yield series_row(series, question.version)


def _updated_series(question: Question) -> Iterator[Row]:
    text = question.required("fromDate")
    try:
        since = dt.datetime.strptime(text, "%m-%d-%Y").date()
    except ValueError as error:
        raise Refusal(500, f"{NOT_PROCESSED}\n{error}") from error
    for series in question.selected(replace(question.keys, released_after=since)):
        yield series_row(series, question.version)


def _series_size(question: Question) -> Iterator[Row]:
    question.required("SeriesInstanceUID")
    for series in question.selected():
        yield row(TotalSizeInBytes=series.size_bytes, ObjectCount=series.image_count)


def _sop_uids(question: Question) -> Iterator[Row]:
    """Yield the images; v4 does not ask whether the user may see them."""
    series_uid = question.required("SeriesInstanceUID")
    restricted = question.sees_restricted or question.version == V4
    series = question.holdings.find(series_uid, restricted=restricted)
    for image in series.images() if series else ():
        yield row(SOPInstanceUID=image.sop_uid)


def _values(column: str) -> Callable[[Question], Iterator[Row]]:
    """Return a listing of a column's distinct values; null gives a row without columns."""

    def rows(question: Question) -> Iterator[Row]:
        for value in dict.fromkeys(FIELDS[column](series) for series in question.selected()):
            yield row(**{column: value})

    return rows


def _metadata(question: Question) -> Iterator[Row]:
    """Yield the series of a list; without a format the real one answers a table."""
    if question.required("format").lower() != "json":
        raise Refusal(500, f"{NOT_PROCESSED}\nonly json is offered here")
    for series in _found(question, question.required("list").split(",")):
        yield metadata_row(series)


def _spaced_metadata(question: Question) -> Iterator[Row]:
    question.required("SeriesInstanceUID")
    for series in question.selected():
        yield spaced_metadata_row(series)


def _cart(question: Question) -> Iterator[Row]:
    """Yield the series of a shared cart; an unknown one has none. One column is spelt as nowhere else."""
    for series in _found(question, question.carts.get(question.required("name"), ())):
        columns = series_row(series, question.version)
        yield {name.replace("DateReleased", "Date Released"): value for name, value in columns.items()}


def _found(question: Question, series_uids: Iterable[str]) -> Iterator[Series]:
    for uid in dict.fromkeys(map(str.strip, series_uids)):
        series = question.holdings.find(uid, restricted=question.sees_restricted)
        if series is not None:
            yield series


VALUE_PARAMETERS = ("Collection", "BodyPartExamined", "Modality")
ENDPOINTS: Mapping[str, Endpoint] = {
    "getCollectionValues": Endpoint((), _collections),
    "getPatient": Endpoint(("Collection", "PatientId"), _patients),
    "getPatientStudy": Endpoint(("Collection", "PatientID", "StudyInstanceUID"), _studies),
    "getSeries": Endpoint(
        (
            "Collection",
            "PatientID",
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "Modality",
            "BodyPartExamined",
            "ManufacturerModelName",
            "Manufacturer",
        ),
        _series,
    ),
    "getUpdatedSeries": Endpoint(("fromDate",), _updated_series, versions=("v4",)),
    "getSeriesSize": Endpoint(("SeriesInstanceUID",), _series_size),
    "getSeriesMetadata": Endpoint(("list",), _metadata, versions=("v4",), method="POST"),
    "getSeriesMetaData": Endpoint(("SeriesInstanceUID",), _spaced_metadata, versions=("v1",)),
    "getContentsByName": Endpoint(("name",), _cart, versions=("v1",)),
    "getSOPInstanceUIDs": Endpoint(("SeriesInstanceUID",), _sop_uids),
    "getModalityValues": Endpoint(VALUE_PARAMETERS, _values("Modality")),
    "getBodyPartValues": Endpoint(VALUE_PARAMETERS, _values("BodyPartExamined")),
    "getManufacturerValues": Endpoint(VALUE_PARAMETERS, _values("Manufacturer")),
}
