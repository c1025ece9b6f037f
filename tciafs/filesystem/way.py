"""The way through folders from one series to the next: in a study, on to the patient's next one, and so on.

Defined here and only here: the orders in which programs go through a folder. Asks for listings on the way,
one after the other, and keeps nothing. Handed the folders and their source.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from tciafs.errors import TciafsError
from tciafs.filesystem.folders import Folder, Folders
from tciafs.filesystem.identities import Level, Whose
from tciafs.filesystem.sources import Source
from tciafs.model import Series

__all__ = ["Order", "Way", "by_inode", "by_name"]

SERIES = 3
"""Where the key of a series stands in `Whose`; those of collection, patient and study are 0 to 2."""

Order: TypeAlias = Callable[[Folder, int | None], int | None]
"""Returns the place behind one in a folder (None: the first), None at its end."""


def by_name(folder: Folder, place: int | None) -> int | None:
    """Go on as listings show a folder."""
    following = 0 if place is None else place + 1
    return following if following < len(folder.names) else None


def by_inode(folder: Folder, place: int | None) -> int | None:
    """Go on as cp does, by inode number."""
    here = 0 if place is None else folder.inodes[place]
    behind = (inode for inode in folder.inodes if inode > here)
    return None if (following := min(behind, default=None)) is None else folder.inodes.index(following)


@dataclass(frozen=True, slots=True)
class Way:
    """The way through all folders of a source: of all that a mount shows, or of a view."""

    folders: Folders
    source: Source

    async def next(self, whose: Whose, order: Order, within: Whose = ()) -> Series | None:
        """Return the series behind one, or the first one in what is no series; None at the end of `within`.

        Raises what the archive raises.
        """
        depth = min(len(whose), SERIES)
        while depth >= len(within):
            folder = await self._folder(whose[:depth])
            place = self._place_of(folder, whose, depth)
            is_gone = place is None and len(whose) > depth
            following = None if is_gone else order(folder, place)
            if following is None:
                whose, depth = whose[:depth], depth - 1
            elif depth == SERIES:
                found: Series = folder.children[following]
                return found
            else:
                whose, depth = (*whose[:depth], folder.key(folder.children[following])), depth + 1
        return None

    async def series(self, whose: Whose) -> Series | None:
        """Return a series, None if it is not there any more. Raises what the archive raises."""
        folder = await self._folder(whose[:SERIES])
        place = self._place_of(folder, whose, SERIES)
        return None if place is None else folder.children[place]

    async def folder_of(self, whose: Whose) -> str:
        """Return where the folder of a series is, "" if it is not there any more or cannot be found now."""
        names: list[str] = []
        with suppress(TciafsError):
            for depth in range(len(whose)):
                folder = await self._folder(whose[:depth])
                place = self._place_of(folder, whose, depth)
                if place is None:
                    break
                names.append(folder.names[place])
        return "/".join(names) if len(names) == len(whose) else ""

    async def _folder(self, whose: Whose) -> Folder:
        level = Level(len(whose))
        return await self.folders.get(self.source, self.source.inode(level, whose), level, whose)

    def _place_of(self, folder: Folder, whose: Whose, depth: int) -> int | None:
        """Return where the key at a depth of `whose` stands in the folder; None if it does not."""
        if len(whose) <= depth:
            return None
        return folder.place_of(self.source.inode(Level(depth + 1), whose[: depth + 1]))
