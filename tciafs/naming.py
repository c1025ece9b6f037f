"""From the records of an archive to the names of folders and files, as the NBIA Data Retriever
writes them. The retriever's rules, what a Linux name may hold, and the choice between two records
of one name are defined here and only here. Pure functions of their arguments, safe in any thread
and any process. Imports nothing but the records and the errors, and does no I/O.
"""

import datetime as dt
import enum
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar, overload

from tciafs.errors import UnreadableAnswer
from tciafs.model import Collection, ImageKey, Patient, Series, Study
from tciafs.policy import DATA_USAGE_POLICY_URL

__all__ = [
    "NAME_LIMIT_BYTES",
    "ImageKey",
    "Naming",
    "cleaned",
    "collection_names",
    "image_name",
    "image_names",
    "is_retriever_image_name",
    "legal_name",
    "licence_text",
    "original_name",
    "patient_names",
    "provisional_image_names",
    "resolve_aliases",
    "series_names",
    "study_names",
]

NAME_LIMIT_BYTES = 255

_Record = TypeVar("_Record")


class Naming(enum.Enum):
    """How studies and series are called: in words, or by their UIDs; the retriever offers both."""

    DESCRIPTIVE = "descriptive"
    CLASSIC = "classic"


# What a Linux name can hold

_ESCAPE = r"%(?:[0189][0-9A-F]|2[5EF]|7F|D[89A-F][0-9A-F]{2})"
_CUT_MARK = r"%~[0-9a-f]{32}"
_EMPTY = "%EMPTY"
_PLAIN = re.compile(r"\w[\w .()+=,-]{0,254}", re.ASCII)  # nearly all, in a fifth of the time
_PLAIN_LINES = re.compile(rf"(?:{_PLAIN.pattern}\n)*+", re.ASCII)
_READ_BACK = re.compile(_ESCAPE)
_WAS_CUT = re.compile(_CUT_MARK)
_UNHOLDABLE = re.compile(
    r"[\x00-\x1f/\x7f-\x9f\ud800-\udfff]"  # no name holds them, no terminal should see them raw
    r"|\A\.(?=\.?\Z)"  # the folder itself, and the folder above
    rf"|(?=\A{_EMPTY}\Z|{_CUT_MARK}|{_ESCAPE})%"  # would be read back as something else
)


def legal_name(raw: str) -> str:
    """Return the file name for the text `raw`: almost always `raw` itself.

    "/", NUL, other control characters (C0, DEL, C1), lone surrogates and the first dot of "." and
    ".." become "%" and the code point in hexadecimal ("%2F"); nothing becomes "%EMPTY". A "%" is
    written as "%25" only before what would otherwise be read back, so "100%" stays.
    `original_name` reverses all this, hence two texts never share a name. Above 255 bytes of
    UTF-8 the name is cut at a character and ends in "%~" and a 128-bit hash of the whole text:
    not reversible, but as injective as the hash.

    Apply it once, to the archive's text: a rule that keeps texts apart must escape its own
    escapes, so only names without any are left alone by a second application.
    """
    return raw if _PLAIN.fullmatch(raw) else _fitted(raw)


def _legal_names(raws: Mapping[str, object]) -> Iterable[str]:
    """Return the legal name of each text; of 26,000 plain ones in a quarter of the time."""
    lines = "\n".join((*raws, ""))
    all_plain = lines.count("\n") == len(raws) and _PLAIN_LINES.fullmatch(lines)
    return raws if all_plain else map(legal_name, raws)


def original_name(name: str) -> str | None:
    """Return the text that `legal_name` writes as `name`; None if it was cut or there is none."""
    if _WAS_CUT.search(name):
        return None
    raw = "" if name == _EMPTY else _READ_BACK.sub(lambda m: chr(int(m[0][1:], 16)), name)
    return raw if legal_name(raw) == name else None


def _escaped(raw: str) -> str:
    return _UNHOLDABLE.sub(lambda m: f"%{ord(m[0]):02X}", raw) if raw else _EMPTY


def _fitted(raw: str, ending: str = "") -> str:
    """Return the legal name for `raw + ending`, of which a cut spares the (short) ending."""
    name = _escaped(raw + ending)
    if len(name.encode()) <= NAME_LIMIT_BYTES:
        return name
    whole = (raw + ending).encode("utf-8", "surrogatepass")
    tail = f"%~{hashlib.blake2b(whole, digest_size=16).hexdigest()}"
    if ending:
        tail += _escaped(ending)
    room_bytes = NAME_LIMIT_BYTES - len(tail.encode())
    return _escaped(raw).encode()[:room_bytes].decode(errors="ignore") + tail


# Folders


def collection_names(collections: Iterable[Collection]) -> dict[str, Collection]:
    """Return the collections by folder name, in the order of the names.

    The name is the archive's spelling with nothing cleaned away, blanks and underscores included.
    """
    distinct = _distinct(collections, lambda collection: collection.name)
    return _in_order({legal_name(name): record for name, record in distinct.items()})


def patient_names(patients: Iterable[Patient]) -> dict[str, Patient]:
    """Return the patients of one collection by folder name (PatientID), in the order of names."""
    distinct = _distinct(patients, attrgetter("patient_id"))
    return _in_order(dict(zip(_legal_names(distinct), distinct.values(), strict=True)))


def study_names(studies: Iterable[Study], naming: Naming) -> dict[str, Study]:
    """Return the studies of one patient by folder name, in the order of the names.

    Descriptive: MM-DD-YYYY date, StudyID, description, last five characters of the UID, with "-"
    between; a missing date is left out, a missing text is "NA". Classic: the UID. Of two studies
    that would share a name, the smaller UID (as text) keeps it; the other's ends in " (", the last
    12 characters of its UID and ")", or in the whole UID where that is taken too.
    """
    distinct = _distinct(studies, lambda study: study.study_uid)
    if naming is Naming.CLASSIC:
        return _named(distinct, lambda study: study.study_uid)
    return _named(distinct, _descriptive_study_name)


def series_names(series: Iterable[Series], naming: Naming) -> dict[str, Series]:
    """Return the series of one study by folder name, in the order of the names.

    Descriptive: number with six decimals, description, last five characters of the UID, with "-"
    between; a missing number is left out, a missing description is "NA". Classic: the UID. Two
    series that would share a name are told apart as studies are.
    """
    distinct = _distinct(series, lambda one: one.series_uid)
    if naming is Naming.CLASSIC:
        return _named(distinct, lambda one: one.series_uid)
    return _named(distinct, _descriptive_series_name)


def _descriptive_study_name(study: Study) -> str:
    date = _part(_date_text(study.date))
    study_id = _part(cleaned(study.study_id))
    return date + study_id + _description(study.description) + _last_five(study.study_uid)


def _descriptive_series_name(series: Series) -> str:
    number = "" if series.number is None else f"{series.number:z.6f}"  # the server's SQL decimal
    return _part(number) + _description(series.description) + _last_five(series.series_uid)


def _date_text(date: dt.date | None) -> str:
    return "" if date is None else f"{date.month:02}-{date.day:02}-{date.year:04}"


_CLEANED_AWAY = re.compile(r"[^a-zA-Z0-9 .-]")
_DESCRIPTION_LIMIT = 53


def cleaned(text: str | None) -> str:
    """Return `text` as the retriever's server hands it out: characters deleted, blanks kept."""
    return _CLEANED_AWAY.sub("", text or "") or "NA"


def _part(text: str) -> str:
    return "" if text in ("", "null") else f"{text}-"


def _description(text: str | None) -> str:
    kept = cleaned(text)
    return "" if kept == "-" else _part(kept[:_DESCRIPTION_LIMIT])


def _last_five(uid: str) -> str:
    return uid[-5:]


def _distinct(records: Iterable[_Record], identity: Callable[[_Record], str]) -> dict[str, _Record]:
    """Return the records by identity; of two that differ otherwise, the one whose repr is less."""
    records = tuple(records)
    distinct = dict(zip(map(identity, records), records, strict=True))
    if len(distinct) == len(records):
        return distinct
    distinct.clear()
    for record in records:
        known = distinct.setdefault(identity(record), record)
        if record is not known and record != known and repr(record) < repr(known):
            distinct[identity(record)] = record
    return distinct


def _named(by_uid: Mapping[str, _Record], raw_name: Callable[[_Record], str]) -> dict[str, _Record]:
    """Return the records by a name of their own, in the order of the names.

    First every plain name goes to the smallest UID that has it; then, in the order of UIDs, each
    twin takes the first of its names that is free. So names depend on the set of records alone.
    """
    named: dict[str, _Record] = {}
    twins: list[tuple[str, _Record]] = []
    for uid, record in sorted(by_uid.items(), key=lambda item: item[0]):
        name = legal_name(raw_name(record))
        if name in named:
            twins.append((uid, record))
        else:
            named[name] = record
    for uid, record in twins:
        names = _twin_names(raw_name(record), uid)
        named[next(name for name in names if name not in named)] = record
    return _in_order(named)


def _twin_names(raw: str, uid: str) -> Iterator[str]:
    """Yield ever longer names: with the end of the UID, all of it, all of it twice, and so on."""
    yield _fitted(raw, f" ({uid[-12:]})")
    for times in itertools.count(1):
        yield legal_name(raw + f" ({uid})" * times)


def _in_order(named: Mapping[str, _Record]) -> dict[str, _Record]:
    names = sorted(named)
    if names == list(named):  # as archives list patients
        return dict(named)
    return {name: named[name] for name in names}


# Images

_RETRIEVER_IMAGE_NAME = re.compile(r"[0-9]+-[0-9]+\.dcm")


@dataclass(frozen=True, slots=True)
class _ProvisionalNames(Sequence[str]):
    """The names "1-1.dcm" ... "1-<count>.dcm", zero-padded; none of them is kept in memory."""

    image_count: int

    def __len__(self) -> int:
        return self.image_count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        """Return one name, or a tuple of them."""
        places = range(self.image_count)[index]
        if isinstance(places, range):
            return tuple(self._at(place) for place in places)
        return self._at(places)

    def __iter__(self) -> Iterator[str]:
        width = len(str(self.image_count))
        return (f"1-{number:0{width}}.dcm" for number in range(1, self.image_count + 1))

    def __contains__(self, name: object) -> bool:
        return self._place(name) is not None

    def index(self, name: str, start: int = 0, stop: int | None = None) -> int:
        """Return the place of `name`, without a search; raises ValueError if it is not there."""
        place = self._place(name)
        if place is None or place not in range(self.image_count)[start:stop]:
            raise ValueError(f"{name!r} is not one of these names")
        return place

    def _at(self, place: int) -> str:
        return f"1-{place + 1:0{len(str(self.image_count))}}.dcm"

    def _place(self, name: object) -> int | None:
        if not isinstance(name, str) or len(name) != len("1-.dcm") + len(str(self.image_count)):
            return None
        if not _RETRIEVER_IMAGE_NAME.fullmatch(name) or not name.startswith("1-"):
            return None
        place = int(name[2:-4]) - 1
        return place if 0 <= place < self.image_count else None


def provisional_image_names(count: int) -> Sequence[str]:
    """Return the names that most series of `count` images have: one acquisition, none left out.

    Raises ValueError for a negative count.
    """
    if count < 0:
        raise ValueError(f"a series has no {count} images")
    return _ProvisionalNames(count)


def is_retriever_image_name(name: str) -> bool:
    """Return whether `name` has the retriever's shape: digits, "-", digits, ".dcm"."""
    return _RETRIEVER_IMAGE_NAME.fullmatch(name) is not None


def image_name(given: str) -> str:
    """Return the file name for a member that the archive calls `given`.

    Of a harmless relative path it is the last component; telling apart members that then share a
    name is the caller's. Raises UnreadableAnswer for what no honest archive sends and nobody
    should repair: nothing, NUL, a backslash, an absolute path, a "." or ".." or empty component
    (a folder's entry ends in one), more than 255 bytes.
    """
    components = given.split("/")
    if "\0" in given or "\\" in given or not {"", ".", ".."}.isdisjoint(components):
        raise UnreadableAnswer(f"the archive gave an image the unsafe name {given[:80]!a}")
    name = _escaped(components[-1])
    if len(name.encode()) > NAME_LIMIT_BYTES:
        raise UnreadableAnswer(f"the archive gave an image a name too long: {given[:80]!a}...")
    return name


def image_names(images: Sequence[ImageKey]) -> list[str]:
    """Return a name for each image, in the order of `images`, where the archive gives none.

    Images are grouped by acquisition number and ordered by acquisition number, instance number
    and SOP Instance UID, an empty number before any; a name is the group's place and the image's
    place in it, both from 1. The first part is padded for the number of groups, the second for
    the number of distinct instance numbers (NBIA's rule, so acquisitions of 60 and 120 images that
    count on give "1-001.dcm") or the longest group if that is wider (so that names sort as images
    do, also where instance numbers repeat or are missing).
    """
    order = sorted(range(len(images)), key=lambda place: _image_order(images[place]))
    groups = [
        list(group) for _, group in itertools.groupby(order, lambda place: images[place].acquisition_number)
    ]
    numbers = {image.instance_number for image in images} - {None}
    group_width = len(str(len(groups)))
    image_width = len(str(max([len(numbers), *map(len, groups)])))
    names = [""] * len(images)
    for group_place, group in enumerate(groups, start=1):
        for image_place, place in enumerate(group, start=1):
            names[place] = f"{group_place:0{group_width}}-{image_place:0{image_width}}.dcm"
    return names


def _image_order(image: ImageKey) -> tuple[bool, int, bool, int, str]:
    acquisition, instance = image.acquisition_number, image.instance_number
    sop_uid = image.sop_instance_uid
    return acquisition is not None, acquisition or 0, instance is not None, instance or 0, sop_uid


def resolve_aliases(true_names: Sequence[str]) -> Mapping[str, int]:
    """Return the provisional names that turned out untrue, and the place of the image each means.

    `true_names` are the series' names in the retriever's order. The untrue provisional names are
    paired, in order, with the images that have no provisional name: true names and aliases
    together let a list made before the download open every image exactly once. Raises ValueError
    if two true names are equal.
    """
    known = frozenset(true_names)
    if len(known) != len(true_names):
        raise ValueError("two images of a series have one name")
    provisional = dict.fromkeys(provisional_image_names(len(true_names)))
    without = [place for place, name in enumerate(true_names) if name not in provisional]
    if not without:
        return {}
    untrue = (name for name in provisional if name not in known)
    return dict(zip(untrue, without, strict=True))


# The licence

_NOT_SPECIFIED = "Not Specified"


def licence_text(collection: str, licences: Sequence[tuple[str | None, str | None]]) -> str:
    """Return the text of a collection's LICENSE file from the (name, URI) pairs of its series.

    Each distinct licence once, in the order of names; None and blank are "Not Specified", as the
    server writes them.
    """
    distinct = sorted({(_one_line(name), _one_line(uri)) for name, uri in licences})
    sentences = "".join(
        f"The {_one_line(collection)} collection is distributed under the {name} ({uri}). \n"
        for name, uri in distinct or [(_NOT_SPECIFIED, _NOT_SPECIFIED)]
    )
    return (
        f"License\n\n{sentences}"
        "By downloading the data, you agree to abide by terms of this license.\n"
        f"{'_' * 72}\n\n"
        "Data Usage Policy\n\n"
        "Users must not try to identify or to contact the participants, and must cite the data\n"
        "and acknowledge TCIA in what they publish. The policy in full:\n"
        f"{DATA_USAGE_POLICY_URL}\n"
    )


def _one_line(text: str | None) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text or "")
    return " ".join(printable.split()) or _NOT_SPECIFIED
