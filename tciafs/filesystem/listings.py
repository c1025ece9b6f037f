"""Folders while they are read: places that never change, told in runs of what is alike.

A folder above the images stays as it was when it was opened, whatever becomes of its listing; the images of a
series come as they arrive. Who reads a listing tells the kernel of a run of entries, and then has a lookup
counted of each that the kernel took.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from tciafs.filesystem.folders import Folder
from tciafs.filesystem.identities import LONG, Level, Siblings
from tciafs.filesystem.nodes import Attributes, Child, Node

if TYPE_CHECKING:
    from tciafs.filesystem.images import ImageListing
    from tciafs.filesystem.tree import Tree

__all__ = ["FolderListing", "ImageFolder", "Run", "Snapshot"]

LONGEST_RUN = 256
"""An answer to the kernel takes some 200 entries, or 1,600 where a program reads more at once."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """Some entries of a folder, one after the other, with the same attributes: their names and inodes."""

    names: Sequence[bytes]
    inodes: Sequence[int]
    attributes: Attributes


class FolderListing(Protocol):
    """A folder being read; places count from 0 and never change while it is open.

    Of one that `is_complete` nothing has to be waited for.
    """

    @property
    def is_complete(self) -> bool: ...

    async def wait_for(self, place: int) -> None:
        """Return once it is known what is at a place."""
        ...

    def at(self, place: int) -> Child | None:
        """Return the child at a place, None behind the last one."""
        ...

    def run(self, place: int) -> Run | None:
        """Return some children from a place on that are alike, None behind the last one."""
        ...

    def remember(self, place: int, end: int) -> None:
        """Count one lookup of each child of the last run, from its place to before another.

        Of many as soon as there is time, or somebody asks for one of them: see `catch_up`.
        """
        ...

    def catch_up(self) -> None:
        """Do what can wait until the kernel has its answer, while it takes that in."""
        ...


class Snapshot:
    """A folder above the images as it was when it was opened."""

    is_complete = True

    def __init__(self, tree: "Tree", node: Node, folder: Folder) -> None:
        self._tree = tree
        self.node = node
        self._folder = folder
        self._timeout_s = folder.timeout_s
        made = tree.made_in(node)
        self._made = None if made is None or folder.place(made[1]) is not None else made
        self._by_day: dict[int | None, Attributes] = {}

    async def wait_for(self, place: int) -> None:
        pass

    def at(self, place: int) -> Child | None:
        if place < len(self._folder.names):
            return self.child(place)
        if place == len(self._folder.names) and self._made is not None:
            # Its size costs requests, which only who asks for the size should cause.
            return self._tree.made_child(self.node, self._made, 0, 0.0)
        return None

    def child(self, place: int) -> Child:
        """Return the child at a place where there is one."""
        folder = self._folder
        day = None if folder.days is None else folder.days[place]
        key = folder.key(folder.children[place])
        attributes = self._attributes(day)
        return Child(folder.inodes[place], folder.names[place], folder.level, key, day, attributes)

    def run(self, place: int) -> Run | None:
        folder = self._folder
        end = min(place + LONGEST_RUN, len(folder.names))
        if place >= end:
            last = self.at(place)
            return None if last is None else Run([last.name.encode()], [last.inode], last.attributes)
        if folder.days is None:
            return Run(folder.encoded[place:end], folder.inodes[place:end], self._attributes(None))
        day = folder.days[place]
        if end > place + 1:
            end = next((each for each in range(place, end) if folder.days[each] != day), end)
        return Run(folder.encoded[place:end], folder.inodes[place:end], self._attributes(day))

    def remember(self, place: int, end: int) -> None:
        listed = len(self._folder.names)
        self._tree.remember_run(self.node, self._folder, place, min(end, listed))
        if end > listed and (made := self.at(end - 1)) is not None:
            self._tree.remember(self.node, made)

    def catch_up(self) -> None:
        self._tree.catch_up()
        self._folder.number_ahead()

    def _attributes(self, day: int | None) -> Attributes:
        attributes = self._by_day.get(day)
        if attributes is None:
            may_be_long = self._folder.level in LONG
            attributes = Attributes(True, 0, self._tree.mtime_ns(day), self._timeout_s, may_be_long)
            self._by_day[day] = attributes
        return attributes


class ImageFolder:
    """The images of a series as children of its folder."""

    is_complete = False

    def __init__(self, tree: "Tree", series: Node, images: "ImageListing") -> None:
        self._tree = tree
        self.node = series
        self._numbers = Siblings(Level.IMAGE, series.whose)
        self._images = images
        self._told: list[Child] = []

    async def wait_for(self, place: int) -> None:
        await self._images.wait_for(place)

    def at(self, place: int) -> Child | None:
        found = self._images.at(place)
        return None if found is None else self._tree.image_child(self.node, self._numbers, found)

    def run(self, place: int) -> Run | None:
        """Return images of one size: those of a CT all are, and `ls` of 92,000 waits for each."""
        first = self._images.at(place)
        if first is None:
            return None
        names = [first.name]
        while len(names) < LONGEST_RUN and (found := self._images.at(place + len(names))) is not None:
            if (found.size_bytes, found.timeout_s) != (first.size_bytes, first.timeout_s):
                break
            names.append(found.name)
        attributes = self._tree.image_attributes(self.node, first)
        inodes = self._numbers.inodes(names)
        day = self.node.day
        self._told = [
            Child(inode, name, Level.IMAGE, name, day, attributes)
            for name, inode in zip(names, inodes, strict=True)
        ]
        return Run([name.encode() for name in names], inodes, attributes)

    def remember(self, place: int, end: int) -> None:
        for child in self._told[: end - place]:
            self._tree.remember(self.node, child)

    def catch_up(self) -> None:
        pass
