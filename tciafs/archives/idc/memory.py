"""What headers of objects said, remembered for ever: an object of IDC never changes, and a revised series is
another.

Several processes use it at once. It saves requests and decides nothing: what is not in it is asked for again,
so a disk that fails costs only that. Defined here and only here: that file. Blocks, for tenths of a
millisecond.
"""

import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tciafs.archives.idc.s3 import StoredObject
from tciafs.archives.notes import Notes

__all__ = ["IdcMemory", "KnownImage"]

log = logging.getLogger(__name__)

SCHEMA = """
create table if not exists study_ids (uuid text primary key, study_id text) without rowid;
create table if not exists images (uuid text primary key, images blob not null) without rowid;
"""
ASKED_AT_ONCE = 500


class KnownImage(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An object of a series, and what orders it: SOP Instance UID, acquisition and instance number."""

    stored: StoredObject
    sop_instance_uid: str
    acquisition_number: int | None
    instance_number: int | None


class IdcMemory:
    """The file at `path`, made if need be; by the UUIDs of series."""

    def __init__(self, path: Path) -> None:
        self._notes = Notes(path, SCHEMA, "what headers said")

    def close(self) -> None:
        """Close the file."""
        self._notes.close()

    def study_ids(self, uuids: Sequence[str]) -> dict[str, str | None]:
        """Return the StudyID in the header of these series, of those for which it is known."""
        found: dict[str, str | None] = {}
        for start in range(0, len(uuids), ASKED_AT_ONCE):
            some = uuids[start : start + ASKED_AT_ONCE]
            query = f"select uuid, study_id from study_ids where uuid in ({','.join('?' * len(some))})"
            found.update(dict(self._notes.ask(query, some)))
        return found

    def keep_study_ids(self, study_ids: Mapping[str, str | None]) -> None:
        """Remember StudyIDs, None among them: a header without one."""
        self._notes.write("insert or replace into study_ids values (?, ?)", study_ids.items())

    def images(self, uuid: str) -> list[KnownImage] | None:
        """Return the images of a series, None where they are not known."""
        for (blob,) in self._notes.ask("select images from images where uuid = ?", (uuid,)):
            try:
                return msgspec.msgpack.decode(zlib.decompress(blob), type=list[KnownImage])
            except (msgspec.MsgspecError, zlib.error) as error:
                log.warning("what is remembered of series %s cannot be read: %s", uuid, error)
        return None

    def keep_images(self, uuid: str, images: Sequence[KnownImage]) -> None:
        """Remember the images of a series."""
        blob = zlib.compress(msgspec.msgpack.encode(images))
        self._notes.write("insert or replace into images values (?, ?)", [(uuid, blob)])
