"""What is open: files and folders by handle, and whose pages the kernel has of an image.

The kernel has one page cache an inode, and an inode outlives a version of its series. So an image may keep
the pages it has only if they are of the very pack that is opened; and while others fill them from another
pack, it must not touch them. Defined here and only here: that choice. Must not know of FUSE.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tciafs.filesystem.listings import FolderListing
from tciafs.filesystem.nodes import Node
from tciafs.filesystem.reading import Readable

if TYPE_CHECKING:
    from tciafs.store.open_packs import OpenImage
    from tciafs.store.parts import PartImage

__all__ = ["Handles", "OpenFile", "OpenFolder", "PageUse", "Text"]


@dataclass(frozen=True, slots=True)
class PageUse:
    """What the kernel's page cache may do for a file: keep the pages it has; or be left out of it."""

    keep: bool
    bypass: bool = False


@dataclass(slots=True)
class Text:
    """The content of a small generated file."""

    text: bytes

    def read_at_hand(self, offset: int, length: int) -> bytes:
        """Return a part of it, which is always in memory."""
        return self.read(offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """Return a part of it."""
        return self.text[offset : offset + length]

    def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Pages:
    """What the kernel has cached of an inode: pages of the pack `of_pack`, None if that is not certain.

    `readers` are the images that are open and may fill it.
    """

    of_pack: str | None = None
    readers: "list[OpenImage | PartImage]" = field(default_factory=list)


@dataclass(slots=True)
class OpenFile:
    """A file being read, opened by `pid`; `pages` None where the kernel caches nothing of it for long.

    `part` is the content where bytes of it may have to be brought before they can be read.
    """

    node: Node
    content: Readable
    pages: _Pages | None = None
    part: "PartImage | None" = None
    pid: int = 0


@dataclass(slots=True)
class OpenFolder:
    """A folder being read by `pid`."""

    node: Node
    pid: int
    listing: FolderListing


class Handles:
    """All that is open, by a number that is never used again."""

    def __init__(self) -> None:
        self._opened: dict[int, OpenFile | OpenFolder] = {}
        self._last = 0
        self._pages: dict[int, _Pages] = {}

    def add(self, opened: OpenFile | OpenFolder) -> int:
        """Return the handle of what was opened."""
        self._last += 1
        self._opened[self._last] = opened
        return self._last

    def add_image(self, node: Node, image: "OpenImage | PartImage", pid: int = 0) -> tuple[int, PageUse]:
        """Return the handle of an image that was opened, and what the page cache may do for it."""
        part = image.as_part
        pages = self._pages.setdefault(node.inode, _Pages())
        if any(image.source is not reader.source for reader in pages.readers):
            pages.of_pack = None
            return self.add(OpenFile(node, image, None, part, pid)), PageUse(keep=False, bypass=True)
        keep = image.identity is not None and pages.of_pack == image.identity
        pages.of_pack = image.identity
        pages.readers.append(image)
        return self.add(OpenFile(node, image, pages, part, pid)), PageUse(keep)

    def node(self, handle: int) -> Node:
        """Return the node that a handle is of."""
        return self._opened[handle].node

    def file(self, handle: int) -> OpenFile:
        """Return an open file."""
        opened = self._opened[handle]
        assert isinstance(opened, OpenFile)
        return opened

    def folder(self, handle: int) -> OpenFolder:
        """Return an open folder."""
        opened = self._opened[handle]
        assert isinstance(opened, OpenFolder)
        return opened

    def size_while_open(self, inode: int) -> int | None:
        """Return the size in bytes of the image that is being read as an inode, None if none is."""
        pages = self._pages.get(inode)
        return pages.readers[0].image.size_bytes if pages and pages.readers else None

    def release(self, handle: int) -> None:
        """Close what a handle is of, if it is open."""
        opened = self._opened.pop(handle, None)
        if isinstance(opened, OpenFile):
            if opened.pages is not None:
                opened.pages.readers = [each for each in opened.pages.readers if each is not opened.content]
            opened.content.close()

    def forget(self, inode: int) -> None:
        """Note that the kernel has dropped an inode, and its pages."""
        self._pages.pop(inode, None)

    def close(self) -> None:
        """Close all that is still open."""
        for handle in list(self._opened):
            self.release(handle)
