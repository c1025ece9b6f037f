"""What is here of a series in part, put before what comes of it: the same images, for fewer bytes.

What was read in part was checked to be of the object that was listed, and the series is checked as a whole
when it is complete. A try that fails is followed by one that holds nothing. Blocking reads are made inline.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType

from tciafs.errors import SeriesDamaged
from tciafs.model import Member
from tciafs.store.layout import Held

__all__ = ["HeldBeginnings"]

PIECE_BYTES = 1 << 20


class HeldBeginnings(AbstractContextManager["HeldBeginnings"]):
    """The beginnings that a series is fetched behind; None, or a file that is gone: there are none."""

    def __init__(self, held: Held | None) -> None:
        self._pieces: Mapping[str, Sequence[tuple[int, int]]] = {} if held is None else held.pieces
        self._descriptor = -1
        if held is not None and self._pieces:
            try:
                # Who has it open reads on, also when it had to make room.
                self._descriptor = os.open(held.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self.drop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @property
    def sizes_bytes(self) -> Mapping[str, int]:
        """How many bytes are held of images, by name."""
        return {name: sum(size for _, size in pieces) for name, pieces in self._pieces.items()}

    def drop(self) -> None:
        """Hold nothing any more."""
        self._pieces = {}

    def before(self, member: Member, spared: Callable[[int], None]) -> Member:
        """Return a member that comes from its first byte on; `spared` is told of bytes that are from here.

        Raises SeriesDamaged where what is held is not what was left out.
        """
        if not member.first:
            return member
        pieces = self._pieces.get(member.name or "", ())
        if sum(size for _, size in pieces) != member.first:
            raise SeriesDamaged(f"of {member.name} the first {member.first} bytes are not here")
        chunks = _Joined(self._read(pieces), member.chunks, spared)
        return replace(member, chunks=chunks, first=0)

    def _read(self, pieces: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        for place, size in pieces:
            for start in range(place, place + size, PIECE_BYTES):
                wanted = min(PIECE_BYTES, place + size - start)
                data = os.pread(self._descriptor, wanted, start)
                if len(data) != wanted:
                    raise SeriesDamaged("parts of a series were cut short on disk")
                yield data


class _Joined(AsyncIterator[bytes]):
    """Pieces that are here, then the chunks that come; an iterator, so that leaving early is harmless."""

    def __init__(
        self, here: Iterator[bytes], coming: AsyncIterator[bytes], spared: Callable[[int], None]
    ) -> None:
        self._here = here
        self._coming = coming
        self._spared = spared

    async def __anext__(self) -> bytes:
        for piece in self._here:
            self._spared(len(piece))
            return piece
        return await anext(self._coming)
