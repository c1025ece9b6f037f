"""What daemon and worker say to each other: MessagePack behind a length of four bytes.

Defined here and only here: the protocol. Values only, no I/O.
"""

import struct
from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from tciafs.archives.nbia import NbiaConfig
from tciafs.model import Series
from tciafs.store.layout import PackedImage

__all__ = [
    "Arrived",
    "Failed",
    "Fetch",
    "Finished",
    "Frames",
    "Progress",
    "Report",
    "Verified",
    "framed",
]

LENGTH = struct.Struct("<I")
MAX_MESSAGE_BYTES = 1024 * 1024
"""No message grows with a series: what a series consists of is said image by image."""


class Fetch(msgspec.Struct, frozen=True, tag=True):
    """Daemon to worker: write the pack of `series` to the new file `pack`, trying `retries` times more.

    The first new try comes after `first_wait_s`, each other one after twice the time of the one before.
    """

    series: Series
    pack: str
    archive: NbiaConfig
    retries: int
    first_wait_s: float


class Arrived(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: this image is in the pack, checked."""

    image: PackedImage


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: so many bytes of images have come."""

    received_bytes: int


class Verified(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: the images that arrived are all, and agree with what the archive says of them."""

    checks: tuple[str, ...]


class Finished(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: the pack is finished and on disk."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Worker to daemon: the series cannot be had; the name of an error class and its sentence."""

    error: str
    message: str


Report: TypeAlias = Arrived | Progress | Verified | Finished | Failed


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
