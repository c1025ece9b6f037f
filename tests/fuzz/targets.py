"""The targets: each takes any bytes, raises nothing but our own errors, and checks what must always hold."""

import csv
import datetime as dt
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO

import msgspec

from tciafs.archives.http.body import PIECE_BYTES, Inflater
from tciafs.archives.nbia.images import parse_checksums
from tciafs.archives.nbia.listings import (
    Changes,
    collections_listing,
    image_uids_listing,
    patients_listing,
    series_listing,
    studies_listing,
)
from tciafs.archives.unzip import Limits, MemberData, MemberEnd, MemberStart, Unzipper
from tciafs.catalogue.table import unpack
from tciafs.errors import Misuse, TciafsError, UnreadableAnswer
from tciafs.headers import sop_instance_uid_in
from tciafs.model import Collection, Patient, Series, Study
from tciafs.naming import (
    Naming,
    collection_names,
    image_name,
    legal_name,
    original_name,
    patient_names,
    series_names,
    study_names,
)
from tciafs.selection.manifests import is_uid, uids_in
from tciafs.setting_sources import parse_mount_options
from tciafs.store.layout import decode_layout
from tciafs.worker.messages import MAX_MESSAGE_BYTES, Frames, Report, ToWorker

__all__ = ["SEEDS", "TARGETS", "Target"]

Target = Callable[[bytes], None]

LONGEST_NAME_BYTES = 255
LIMITS = Limits(max_members=50, max_member_bytes=1 << 20, max_total_bytes=2 << 20, ratio_grace_bytes=1 << 16)


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield what is behind the first byte, in pieces whose sizes that byte decides."""
    if not data:
        return
    sizes = random.Random(data[0])
    start = 1
    while start < len(data):
        end = start + sizes.choice([1, 2, 7, 64, 4096])
        yield data[start:end]
        start = end


def unzip(data: bytes) -> None:
    """A ZIP: no more than the limits comes out, each member is begun and ended, names once."""
    unzipper, total_bytes, open_member, names = Unzipper(LIMITS), 0, None, set[str]()
    with suppress(UnreadableAnswer):
        for piece in _pieces(data):
            for event in unzipper.feed(piece):
                match event:
                    case MemberStart(name):
                        assert open_member is None
                        assert name not in names
                        assert len(name.encode(errors="surrogateescape")) <= LIMITS.max_name_bytes * 4
                        names.add(name)
                        open_member = 0
                    case MemberData(chunk):
                        assert open_member is not None
                        open_member += len(chunk)
                        total_bytes += len(chunk)
                    case MemberEnd(size_bytes):
                        assert open_member == size_bytes
                        open_member = None
        unzipper.close()
        assert open_member is None
    assert total_bytes <= LIMITS.max_total_bytes
    assert len(names) <= LIMITS.max_members


LISTINGS: tuple[Callable[[], object], ...] = (
    collections_listing,
    image_uids_listing,
    lambda: patients_listing("Lung"),
    lambda: studies_listing("Lung", "P1"),
    lambda: series_listing("Lung", "P1"),
    lambda: Changes(dt.date(2026, 1, 1)),
)


def listing(data: bytes) -> None:
    """Rows of JSON, as each of the listings reads them: what comes out are records, with names of text."""
    for make in LISTINGS:
        reading = make()
        with suppress(UnreadableAnswer):
            for piece in _pieces(data):
                reading.feed(piece)  # type: ignore[attr-defined]
            for record in reading.finish():  # type: ignore[attr-defined]
                hash(record)
                repr(record)


def inflate(data: bytes) -> None:
    """A compressed body: pieces of a bounded size, and no more than the limit in all."""
    for encoding in ("gzip", "deflate", ""):
        inflater, total_bytes = Inflater(encoding, 1 << 20), 0
        with suppress(UnreadableAnswer):
            for piece in _pieces(data):
                for inflated in inflater.inflate(piece):
                    assert 0 < len(inflated) <= PIECE_BYTES
                    total_bytes += len(inflated)
            inflater.finish()
        assert total_bytes <= 1 << 20


def checksums(data: bytes) -> None:
    """An md5hashes.csv: pairs of a name and 32 hexadecimal digits, or an error."""
    with suppress(UnreadableAnswer):
        for name, md5 in parse_checksums(data.decode(errors="replace")).md5_by_name:
            assert name
            assert len(md5) == 32


def manifest(data: bytes) -> None:
    """A manifest: UIDs, each once."""
    with suppress(csv.Error):
        uids, odd_lines = uids_in(data.decode(errors="replace"))
        assert len(set(uids)) == len(uids)
        assert all(map(is_uid, uids))
        assert odd_lines >= 0


def names(data: bytes) -> None:
    """Texts of an archive as names: fit for Linux, distinct, and none of two records lost."""
    texts = [part.decode("utf-8", "surrogateescape") for part in data.split(b"\xff\xfe")]
    for text in texts:
        _check_name(legal_name(text))
        assert original_name(legal_name(text)) in (text, None)
        with suppress(UnreadableAnswer):
            _check_name(image_name(text))
    first = texts[0]
    named: list[Mapping[str, object]] = [
        collection_names({text: Collection(text) for text in texts}.values()),
        patient_names({text: Patient(first, text) for text in texts}.values()),
    ]
    studies = {text: Study(first, first, text, None, text, text) for text in texts}
    series = {text: Series(first, first, first, text, text, 1.5, text) for text in texts}
    for naming in Naming:
        named += [study_names(studies.values(), naming), series_names(series.values(), naming)]
    for each in named:
        assert len(each) == len(set(texts))
        for name in each:
            _check_name(name)


def _check_name(name: str) -> None:
    encoded = name.encode("utf-8", "surrogateescape")
    assert 0 < len(encoded) <= LONGEST_NAME_BYTES
    assert name not in (".", "..")
    assert b"/" not in encoded
    assert b"\0" not in encoded


def header(data: bytes) -> None:
    """An image's header: its SOP Instance UID, or none."""
    with suppress(zlib.error):
        uid = sop_instance_uid_in(data)
        assert uid is None or uid


def messages(data: bytes) -> None:
    """What comes over the pipe between daemon and worker."""
    frames = Frames()
    with suppress(ValueError, msgspec.MsgspecError):
        for piece in _pieces(data):
            for body in frames.feed(piece):
                assert len(body) <= MAX_MESSAGE_BYTES
                for kind in (Report, ToWorker):
                    with suppress(msgspec.MsgspecError, ValueError):
                        msgspec.msgpack.decode(body, type=kind)


def disk(data: bytes) -> None:
    """What is read from the cache folder: layouts and rows, which a disk may have damaged."""
    with suppress(ValueError, TypeError):
        layout = decode_layout(data)
        repr(layout.images.names)
    for kind in ("collections", "patients", "studies", "series"):
        with suppress(ValueError, TypeError, msgspec.MsgspecError, TciafsError):
            unpack((kind, "Lung", "P1"), data)


def options(data: bytes) -> None:
    """A line of mount options."""
    with suppress(Misuse):
        parse_mount_options(data.decode("utf-8", "surrogateescape"))


TARGETS: Mapping[str, Target] = {
    each.__name__: each
    for each in (unzip, listing, inflate, checksums, manifest, names, header, messages, disk, options)
}


def _zip(method: int, *members: tuple[str, bytes]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return b"\x07" + file.getvalue()


UID = b"1.3.6.1.4.1.14519.5.2.1.6279.6001.298806137288633453246975630178"
SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "unzip": (
        _zip(zipfile.ZIP_STORED, ("1-1.dcm", b"one"), ("LICENSE", b"")),
        _zip(zipfile.ZIP_DEFLATED, ("1-1.dcm", b"x" * 9000), ("1-2.dcm", b"two"), ("a/", b"")),
    ),
    "listing": (
        b'\x07[{"Collection":"Lung","PatientId":"P1","PatientID":"P1","StudyInstanceUID":"1.2",'
        b'"SeriesInstanceUID":"1.2.3","SOPInstanceUID":"1.2.3.4","SeriesNumber":2.5,"ImageCount":"3",'
        b'"FileSize":600,"StudyDate":"01-31-2000","ReleasedDate":"2000-01-01 00:00:00.0"}]',
        b"\x07",
        b"\x07[null,{},[]]",
    ),
    "inflate": (b"\x07\x1f\x8b\x08\0\0\0\0\0\0\x03\xcb\xc8\x04\0\xac\x2a\x93\xd8\x02\0\0\0", b"\x07plain"),
    "checksums": (b'Filename,MD5Hash\r\n"1-1.dcm","0123456789abcdef0123456789abcdef"\r\n',),
    "manifest": (
        b"downloadServerUrl=https://x\nincludeAnnotation=true\nListOfSeriesToDownload=\n" + UID + b"\n",
        b"Series UID,Collection\n" + UID + b",Lung\n",
        b"cp s3://idc-open-data/0d4a2a4a-7c61-4a0b-9d1b-000000000000/* .\n",
    ),
    "names": (b"CT CHEST W/O\xff\xfe..\xff\xfe\0\xff\xfea/b\xff\xfe" + b"x" * 300, "\u0130\u00df".encode()),
    "header": (b"\0" * 128 + b"DICM\x02\0\0\0UL\x04\0\0\0\0\0\x08\0\x18\0UI\x06\x001.2.3\0",),
    "messages": (b"\x07\x02\0\0\0\x80\xc0",),
    "disk": (b"\x96\xa51.2.3\xa1v\x90\xc4\0\xc4\0\xc4\0",),
    "options": (b"ro,_netdev,cache_size=5G,offline,listing=names",),
}
"""Where to begin: what each target is meant for."""
