"""What an inode stands for, and its number: made of the identity of the record, so that it stays.

A folder has one parent, so what a view shows has inodes of its own: their identities begin with that of the
view, in the main tree with nothing. Images are the same everywhere. Defined here and only here: levels, and
the numbers. Values only.
"""

import enum
import hashlib
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, overload

__all__ = ["LONG", "MADE", "ROOT_INODE", "TOPS", "Level", "Numbers", "Siblings", "Whose", "inode_of"]

ROOT_INODE = 1

Whose: TypeAlias = tuple[str, ...]
"""What identifies a record: collection, patient ID, Study and Series Instance UID, as far as it goes."""


class Level(enum.IntEnum):
    """What an inode stands for."""

    ROOT = 0
    COLLECTION = 1
    PATIENT = 2
    STUDY = 3
    SERIES = 4
    IMAGE = 5
    LICENCE = 6
    METADATA = 7
    SERIES_TABLE = 8
    MANIFEST = 9
    COLLECTIONS_TABLE = 10
    VIEWS = 11
    KIND = 12
    VIEW = 13


MADE = frozenset({Level.LICENCE, Level.METADATA, Level.SERIES_TABLE, Level.MANIFEST, Level.COLLECTIONS_TABLE})
"""Levels of files that are made here."""

LONG = frozenset({Level.COLLECTION, Level.SERIES})
"""Levels of folders that may have thousands of entries: patients, and images."""

TOPS = frozenset({Level.ROOT, Level.VIEWS, Level.VIEW})
"""Levels below which collections begin."""


class Siblings:
    """The inode numbers of what is below `whose` on a level: the same for ever, told apart by keys."""

    def __init__(self, level: Level, whose: Whose) -> None:
        # With its length before each text no archive can make two identities read the same.
        begun = "".join(f"{len(text)}:{text}" for text in whose).encode("utf-8", "surrogatepass")
        self._begun = hashlib.blake2b(begun, digest_size=8, key=b"%d" % level)

    def inode(self, key: str) -> int:
        """Return the inode number of a sibling."""
        (number,) = self.inodes([key])
        return number

    def inodes(self, keys: Iterable[str]) -> "array[int]":
        """Return the inode numbers of siblings, in their order; a loop by itself, since folders are long."""
        begun, digests = self._begun.copy, []
        for key in keys:
            digest = begun()
            digest.update(f"{len(key)}:{key}".encode("utf-8", "surrogatepass"))
            digests.append(digest.digest())
        numbers = array("Q", b"".join(digests))
        if sys.byteorder == "little":
            numbers.byteswap()
        # 63 bits, for programs that keep an inode in a signed number; 0 and 1 are taken. Two of all 58
        # million images of TCIA share one with a probability of 1 in 5,000.
        return array("Q", [number >> 1 if number > 3 else 2 for number in numbers])


class Numbers(Sequence[int]):
    """The inode numbers of many siblings in their order, which are made as they are asked for.

    To number 26,000 patients takes 30 ms, for which the first name should not have to wait. Slices are taken
    without gaps, from the front.
    """

    def __init__(self, siblings: Siblings, keys: Sequence[str]) -> None:
        self._siblings = siblings
        self._keys = keys
        self._made = array("Q")

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[int]: ...
    def __getitem__(self, at: int | slice) -> int | Sequence[int]:
        wanted = range(len(self))[at]
        self._make(wanted + 1 if isinstance(wanted, int) else wanted.stop)
        return self._made[wanted] if isinstance(wanted, int) else self._made[wanted.start : wanted.stop]

    def __iter__(self) -> Iterator[int]:
        return iter(self[:])

    def index(self, number: int, start: int = 0, stop: int = sys.maxsize) -> int:
        """Return the place of a number. Raises ValueError where it has none."""
        return self[:].index(number, start, stop)

    def make_more(self, count: int) -> None:
        """Make some more of them: there is time."""
        self._make(len(self._made) + count)

    def _make(self, end: int) -> None:
        if end > (first := len(self._made)):
            self._made += self._siblings.inodes(self._keys[first:end])


def inode_of(level: Level, whose: Whose) -> int:
    """Return the inode number of a record, which is that of its identity."""
    return ROOT_INODE if level is Level.ROOT else Siblings(level, whose[:-1]).inode(whose[-1])
