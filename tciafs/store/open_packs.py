"""Packs that are open: one descriptor for all readers of a pack, closed when the last one is gone.

Who has an image open goes on reading whatever becomes of the pack: replaced, removed, or never complete.
Belongs to the daemon's one thread.
"""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tciafs.errors import SeriesDamaged
from tciafs.store.disk import bytes_on_disk
from tciafs.store.layout import PackedImage

__all__ = ["OpenImage", "OpenPacks"]


@dataclass(slots=True, eq=False)
class _OpenPack:
    """A pack file shared by its readers: `key` is series UID and version."""

    key: tuple[str, str]
    descriptor: int
    identity: str | None
    readers: int = 0
    is_damaged: bool = False

    def close(self) -> None:
        """Close the file, if that was not done before."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass(slots=True)
class OpenImage:
    """An image open for reading; `read` never waits for the network. Close it exactly once."""

    image: PackedImage
    _pack: _OpenPack
    _packs: "OpenPacks" = field(repr=False)

    @property
    def version(self) -> str:
        """The version of the series that these bytes belong to."""
        return self._pack.key[1]

    @property
    def identity(self) -> str | None:
        """What names the published pack these bytes are in, across all times it is opened.

        None for a pack that was opened while it grew: it may still prove to be damaged.
        """
        return self._pack.identity

    @property
    def source(self) -> object:
        """What it is read from: one object for all readers of an open pack."""
        return self._pack

    @property
    def as_part(self) -> None:
        """None: all of it is here."""
        return None

    def lacks(self, offset: int, length: int) -> bool:
        """Return False: all bytes are here."""
        return False

    def read_at_hand(self, offset: int, length: int) -> bytes | None:
        """Return what `read` does if it is all in memory, None where the disk has to be waited for."""
        if self._pack.is_damaged:
            return None  # but for `read` to say so
        wanted = self._wanted(offset, length)
        data = bytearray(wanted)
        try:
            received = os.preadv(self._pack.descriptor, [data], self.image.offset + offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return self.read(offset, length)  # some file systems that have no disk know no such question
        # As good as bytes to whoever writes it out, which another copy would only delay.
        return cast(bytes, data) if received == wanted else None

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`, fewer only at the image's end; may wait for the disk.

        Raises SeriesDamaged where the disk has lost them.
        """
        if not (wanted := self._wanted(offset, length)):
            return b""
        if self._pack.is_damaged:
            raise SeriesDamaged(f"the pack of series {self._pack.key[0]} was found to be damaged on disk")
        data = os.pread(self._pack.descriptor, wanted, self.image.offset + offset)
        if len(data) != wanted:
            raise SeriesDamaged(f"the pack of series {self._pack.key[0]} was cut short on disk")
        return data

    def _wanted(self, offset: int, length: int) -> int:
        return max(0, min(length, self.image.size_bytes - offset))

    def close(self) -> None:
        """Let go of the pack."""
        self._packs.release(self._pack)


class OpenPacks:
    """The packs that somebody has open. Methods may raise OSError."""

    def __init__(self) -> None:
        self._shared: dict[tuple[str, str], _OpenPack] = {}
        self._hidden: dict[_OpenPack, int] = {}

    @property
    def hidden_bytes(self) -> int:
        """What packs take on disk that are shared no more: they are removed, but somebody reads on."""
        return sum(self._hidden.values())

    def series_uids(self) -> frozenset[str]:
        """Return the UIDs of the series that are open, in any version."""
        return frozenset(uid for uid, _version in self._shared)

    def open(self, key: tuple[str, str], image: PackedImage, path: Path, *, in_place: bool) -> OpenImage:
        """Return an image of the pack at `path` open for reading, sharing its descriptor with others.

        `in_place`: the pack was published; else it is coming in, and has a descriptor of its own from here
        on.
        """
        # A pack that is coming in is never one that is open, though it may be of the same version.
        pack = self._shared.get(key) if in_place else None
        if pack is None:
            self.share_no_more(key)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            identity = _file_identity(descriptor) if in_place else None
            pack = self._shared[key] = _OpenPack(key, descriptor, identity)
        pack.readers += 1
        return OpenImage(image, pack, self)

    def release(self, pack: _OpenPack) -> None:
        """Count one reader of an open pack less."""
        pack.readers -= 1
        if pack.readers == 0:
            pack.close()
            self._hidden.pop(pack, None)
            if self._shared.get(pack.key) is pack:
                del self._shared[pack.key]

    def share_no_more(self, key: tuple[str, str]) -> None:
        """Hand out the descriptor of a pack no more; who has it open may go on reading."""
        if pack := self._shared.pop(key, None):
            self._hidden[pack] = bytes_on_disk(os.fstat(pack.descriptor))

    def condemn(self, series_uid: str) -> None:
        """Let who has a series open read no more of it: its pack is damaged."""
        for key, pack in list(self._shared.items()):
            if key[0] == series_uid:
                pack.is_damaged = True
                self.share_no_more(key)

    def share_only(self, series_uid: str, place: Path) -> None:
        """Of a series hand out only what is at `place` now, and nothing that was there before."""
        try:
            in_place = place.stat().st_ino
        except OSError:
            in_place = None
        for key, pack in list(self._shared.items()):
            if key[0] == series_uid and os.fstat(pack.descriptor).st_ino != in_place:
                self.share_no_more(key)

    def close(self) -> None:
        """Close all packs, whoever reads on."""
        for pack in (*self._shared.values(), *self._hidden):
            pack.close()
        self._shared.clear()
        self._hidden.clear()


def _file_identity(descriptor: int) -> str:
    status = os.fstat(descriptor)
    return f"{status.st_ino}:{status.st_mtime_ns}"
