"""What daemon and worker say to each other: MessagePack behind a length of four bytes.

Defined here and only here: the protocol. Values only, no I/O.
"""

import logging
import struct
from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from tciafs.archives.opening import ArchiveConfig
from tciafs.model import ListedImage, Series
from tciafs.store.layout import Held, PackedImage

__all__ = [
    "Answer",
    "Arrived",
    "Command",
    "Failed",
    "Fetch",
    "Finished",
    "Frames",
    "Granted",
    "ListCollection",
    "Logged",
    "NeedsRoom",
    "NotGranted",
    "Progress",
    "Report",
    "RowReplaced",
    "RowsWritten",
    "Survey",
    "Surveyed",
    "ToWorker",
    "TokenGiven",
    "TokenWanted",
    "Verified",
    "framed",
]

LENGTH = struct.Struct("<I")
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""None grows with a series, told image by image; two rows of a patient with 2,756 series are 2 MB."""


class Fetch(msgspec.Struct, frozen=True, tag=True):
    """Daemon to worker: write the pack of `series` to the new file `pack`, trying `retries` times more.

    The first new try comes after `first_wait_s`, each other one after twice the time of the one before. The
    file may have `granted_bytes`; for more the worker says `NeedsRoom`. If `strict`, no image is told of
    before all of the series agrees. `earlier` is a pack whose images may be the same, `held` what is here in
    part.
    """

    series: Series
    pack: str
    archive: ArchiveConfig
    retries: int
    first_wait_s: float
    granted_bytes: int
    strict: bool = False
    log_level: int = logging.WARNING
    earlier: str | None = None
    held: Held | None = None


class Granted(msgspec.Struct, frozen=True, tag=True):
    """Daemon to worker: the pack may have so many bytes now."""

    size_bytes: int


class NotGranted(msgspec.Struct, frozen=True, tag=True):
    """Daemon to worker: the pack may not grow, and why."""

    message: str


class ListCollection(msgspec.Struct, frozen=True, tag=True):
    """Daemon to worker: write rows of all studies, or all series (`kind`), of a collection.

    `folder` is that of the table of listings, `asked_at` (Unix seconds) goes into the rows.
    """

    kind: str
    collection: str
    folder: str
    asked_at: float
    archive: ArchiveConfig
    log_level: int = logging.WARNING


class Survey(msgspec.Struct, frozen=True, tag=True):
    """Daemon to worker: name the images of a series without bringing them."""

    series: Series
    archive: ArchiveConfig
    log_level: int = logging.WARNING


Command: TypeAlias = Fetch | ListCollection | Survey


class TokenGiven(msgspec.Struct, frozen=True, tag=True):
    """Daemon to worker, wanted by TokenWanted: None to ask as a guest; `error` says why there is none."""

    token: str | None
    error: str = ""
    message: str = ""

    def __repr__(self) -> str:
        return f"TokenGiven(error={self.error!r})"


Answer: TypeAlias = TokenGiven | Granted | NotGranted
ToWorker: TypeAlias = Fetch | ListCollection | Survey | TokenGiven | Granted | NotGranted


class Surveyed(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: all images of the series, in order; None: they cannot be named in advance."""

    images: list[ListedImage] | None


class Arrived(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: this image is in the pack, checked."""

    image: PackedImage
    is_annotation: bool = False


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: so many bytes of images have come."""

    received_bytes: int


class NeedsRoom(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: the pack will have so many bytes; it waits for Granted, or NotGranted."""

    size_bytes: int


class Verified(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: the images that arrived are all, and agree with what the archive says of them.

    `checks` and `routes` as in Layout. `lacks` says why annotations did not come; "": they did, or there are
    none.
    """

    checks: tuple[str, ...]
    routes: tuple[str, ...] = ()
    lacks: str = ""


class RowReplaced(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: a row of the table of listings is another now; the question, and both rows."""

    question: tuple[str, ...]
    before: bytes
    after: bytes


class RowsWritten(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: more rows are in the table of listings; the first of them come along, by patient.

    All rows of a listing are partial, or none; see `model.Partial`.
    """

    rows: list[tuple[str, bytes]]
    is_partial: bool = False


class TokenWanted(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: a token for the next request, or another than the one that was `refused`."""

    refused: str | None

    def __repr__(self) -> str:
        return "TokenWanted()"


class Logged(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: a record for the log, of the `log_level` of the command or above."""

    level: int
    logger: str
    message: str


class Finished(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: the command is carried out, and what it wrote is on disk."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: the command cannot be carried out; the name of an error class and its sentence.

    `retry_after_s` is how long the server wants to be left alone; None: it did not say.
    """

    error: str
    message: str
    retry_after_s: float | None = None


Report: TypeAlias = (
    Arrived
    | Surveyed
    | Progress
    | NeedsRoom
    | Verified
    | RowReplaced
    | RowsWritten
    | TokenWanted
    | Logged
    | Finished
    | Failed
)


def framed(message: msgspec.Struct) -> bytes:
    """Return a message as it goes over the pipe."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into message bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies that are complete now. Raises ValueError for an absurd length."""
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of {length} bytes")
            end = LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            yield body
