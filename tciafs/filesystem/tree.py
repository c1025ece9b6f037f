"""Inodes: what the kernel knows of, how often it was told, and what it may believe of it.

A node is little: inode, level, parent, what tells it from its siblings, and a day. Its record is found again
in its parent's folder, which the catalogue makes again when it is not at hand: so a walk over half a million
series leaves 300 bytes a node behind, until the kernel forgets them. State changes are synchronous, awaiting
comes before. Knows nothing of FUSE.
"""

import time
from itertools import repeat
from typing import TYPE_CHECKING

from tciafs.errors import NoSuchName
from tciafs.filesystem.folders import (
    LONGEST_FOLDER_TIMEOUT_S,
    SHORTEST_FOLDER_TIMEOUT_S,
    Folder,
    Folders,
    Record,
)
from tciafs.filesystem.identities import LONG, MADE, ROOT_INODE, TOPS, Level, Siblings, inode_of
from tciafs.filesystem.listings import FolderListing, ImageFolder, Snapshot
from tciafs.filesystem.nodes import Attributes, Child, Node
from tciafs.filesystem.sources import UNLISTED_COLLECTIONS, Source, Sources
from tciafs.filesystem.texts import Texts, collection_of_manifest
from tciafs.filesystem.way import Way
from tciafs.hidden import VIEWS_FOLDER
from tciafs.model import Collection, Patient, Series
from tciafs.naming import Naming, legal_name

if TYPE_CHECKING:
    from tciafs.filesystem.images import FoundImage, ImageListing, Images

__all__ = ["MANY_TOLD", "Tree"]

DAY_NS = 86_400 * 10**9
FEWEST_TO_SHRINK = 10_000
MANY_TOLD = 100
"""Lookups of so many entries at once are counted when the kernel has its answer: 0.1 ms."""


class Tree:
    """All inodes that the kernel knows, and the way to those it does not know yet."""

    def __init__(
        self, sources: Sources, images: "Images", naming: Naming, texts: Texts | None = None
    ) -> None:
        self.sources = sources
        self._texts = texts or Texts()
        self._images = images
        self.folders = Folders(naming)
        self._mounted_ns = time.time_ns()
        self.root = Node(ROOT_INODE, Level.ROOT, None, "", lookups=1)
        self.nodes: dict[int, Node] = {ROOT_INODE: self.root}
        self._told: list[tuple[Node, Folder, int, int]] = []
        self._most_nodes = 1

    # -- inodes the kernel knows ------------------------------------------------------------------

    def node(self, inode: int) -> Node:
        """Return the node of an inode. Raises NoSuchName for one that was forgotten."""
        node = self.nodes.get(inode)
        if node is None and self._told:
            self.catch_up()
            node = self.nodes.get(inode)
        if node is None:
            raise NoSuchName(f"inode {inode} is not known")
        return node

    def remember(self, parent: Node, child: Child) -> Node:
        """Count one lookup of a child: the kernel was told of it."""
        node = self.nodes.get(child.inode)
        if node is None:
            node = self.nodes[child.inode] = Node(child.inode, child.level, parent, child.key)
        elif node.level is Level.ROOT:
            return node
        node.parent, node.day = parent, child.day
        node.lookups += 1
        return node

    def remember_run(self, parent: Node, folder: Folder, place: int, end: int) -> None:
        """Count one lookup of each child of a folder from a place to before another; of many, later."""
        told = (parent, folder, place, end)
        if end - place < MANY_TOLD:
            self._count(*told)
        else:
            self._told.append(told)

    def catch_up(self) -> None:
        """Count the lookups that have been left for later.

        Of 26,000 patients `ls` waits for the entries, and need not wait for this.
        """
        while self._told:
            self._count(*self._told.pop())

    def _count(self, parent: Node, folder: Folder, place: int, end: int) -> None:
        nodes, level, key = self.nodes, folder.level, folder.key
        inodes, records = folder.inodes[place:end], folder.children[place:end]
        days = repeat(None, end - place) if folder.days is None else folder.days[place:end]
        for inode, record, day in zip(inodes, records, days, strict=True):
            node = nodes.get(inode)
            if node is None:
                nodes[inode] = Node(inode, level, parent, key(record), day, 1)
            else:
                node.parent, node.day = parent, day
                node.lookups += 1

    def forget(self, inode: int, lookups: int) -> None:
        """Count lookups that the kernel has forgotten; never raises."""
        self.catch_up()
        node = self.nodes.get(inode)
        if node is None or node.level is Level.ROOT:
            return
        node.lookups -= lookups
        if node.lookups <= 0:
            del self.nodes[inode]
            self.folders.drop(inode)
            self._shrink()

    def _shrink(self) -> None:
        """Give memory back after many were forgotten: a dictionary never does by itself."""
        self._most_nodes = max(self._most_nodes, len(self.nodes))
        if self._most_nodes > FEWEST_TO_SHRINK and len(self.nodes) < self._most_nodes // 4:
            self.nodes = dict(self.nodes)
            self._most_nodes = len(self.nodes)

    def date(self, inode: int, day: int | None) -> None:
        """Note that a record has another day, if the kernel knows it."""
        self.catch_up()
        if (node := self.nodes.get(inode)) is not None:
            node.day = day

    def knows(self, inode: int) -> bool:
        """Return True if the kernel knows an inode."""
        self.catch_up()
        return inode in self.nodes

    def __len__(self) -> int:
        """Return how many inodes the kernel knows."""
        self.catch_up()
        return len(self.nodes)

    def path(self, node: Node) -> str:
        """Return where a node is, relative to the mount point; for the log."""
        names: list[str] = []
        step: Node | None = node
        while step is not None and step.parent is not None:
            names.append(self._name(step, step.parent))
            step = step.parent
        return "/" + "/".join(reversed(names))

    def _name(self, node: Node, parent: Node) -> str:
        """Return the name of a node; its UID where the name is not at hand."""
        if node.level in (Level.STUDY, Level.SERIES):
            folder = self.folders.peek(parent.inode)
            place = None if folder is None else folder.place_of(node.inode)
            return node.key if folder is None or place is None else folder.names[place]
        return legal_name(node.key)

    # -- records ----------------------------------------------------------------------------------

    async def record(self, node: Node) -> Record | None:
        """Return what the archive says of a node, of an image its series; None above the collections.

        Raises NoSuchName where the archive does not list it any more, or what the archive raises.
        """
        match node.level:
            case Level.COLLECTION | Level.LICENCE | Level.SERIES_TABLE:
                return Collection(node.whose[0])
            case Level.PATIENT:
                return Patient(*node.whose)
            case Level.STUDY | Level.SERIES:
                assert node.parent is not None
                return await self._listed_record(node, node.parent)
            case Level.IMAGE:
                return await self._series_of_image(node)
            case _:
                return None

    async def _listed_record(self, node: Node, parent: Node) -> Record:
        folder = await self._folder(parent)
        place = folder.place_of(node.inode)
        if place is None:
            raise NoSuchName(f"{self.path(node)} is not in the archive any more")
        record: Record = folder.children[place]
        return record

    async def _series_of_image(self, node: Node) -> Record:
        """Return the series of an image, which is one inode in the main tree and in all views."""
        assert node.parent is not None
        series = node.parent
        assert series.parent is not None
        if series.top.level is Level.ROOT:
            return await self._listed_record(series, series.parent)
        # A view may be gone by now, or not show the series any more.
        record = await Way(self.folders, self.sources.main).series(series.whose)
        if record is None:
            raise NoSuchName(f"{self.path(series)} is not in the archive any more")
        return record

    async def series(self, node: Node) -> Series:
        """Return the series that a node of a series or of an image stands for; raises as `record`."""
        record = await self.record(node)
        assert isinstance(record, Series)
        return record

    # -- names ------------------------------------------------------------------------------------

    async def child(self, parent: Node, name: str) -> Child:
        """Return what is called `name` in a folder. Raises NoSuchName, or what the archive raises.

        In a series this waits until that image is in, of a file that is made until it is.
        """
        if parent.level is Level.SERIES:
            found = await self._images.find(await self.series(parent), name)
            if found is None:
                raise NoSuchName(f"{name!r} is not an image of {self.path(parent)}")
            return self.image_child(parent, Siblings(Level.IMAGE, parent.whose), found)
        if (folder := await self.child_folder(parent, name)) is not None:
            return folder
        level = self.made_level(parent, name)
        text = await self._text(parent, level, name)
        # Made anew at each open, perhaps from a newer listing: its size must not be believed for long.
        return self.made_child(parent, (level, name), len(text), SHORTEST_FOLDER_TIMEOUT_S)

    async def child_folder(self, parent: Node, name: str) -> Child | None:
        """Return the folder called `name` in one above the images, listed or not; None: it has none.

        Raises what the archive raises.
        """
        folder = await self._folder(parent)
        if (place := folder.place(name)) is not None:
            return Snapshot(self, parent, folder).child(place)
        views = self.sources.views
        if views is None:
            return None
        if parent.level is Level.ROOT and name == VIEWS_FOLDER:
            return self._hidden_child(Level.VIEWS, (), name)
        if parent.level is Level.KIND and views.finds((parent.key, name)):
            return self._hidden_child(Level.VIEW, (VIEWS_FOLDER, parent.key), name)
        if parent.level is Level.VIEWS:
            folder = await self._collections(parent)
            if (place := folder.place(name)) is not None:
                return Snapshot(self, parent, folder).child(place)
        return None

    def _hidden_child(self, level: Level, above: tuple[str, ...], name: str) -> Child:
        attributes = Attributes(True, 0, self._mounted_ns, LONGEST_FOLDER_TIMEOUT_S)
        return Child(inode_of(level, (*above, name)), name, level, name, None, attributes)

    async def attributes(self, node: Node) -> Attributes:
        """Return what the kernel may know of a node; waits if its size is not known yet."""
        if node.level is Level.IMAGE:
            assert node.parent is not None
            found = await self._images.find(await self.series(node), node.key)
            if found is None:
                raise NoSuchName(f"{self.path(node)} is no image any more")
            return self.image_attributes(node.parent, found)
        if node.level in MADE:
            assert node.parent is not None
            return (await self.child(node.parent, node.key)).attributes
        folder = None if node.parent is None else self.folders.peek(node.parent.inode)
        timeout_s = SHORTEST_FOLDER_TIMEOUT_S if folder is None else folder.timeout_s
        return Attributes(True, 0, self.mtime_ns(node.day), timeout_s, node.level in LONG)

    def attributes_while_open(self, node: Node, size_bytes: int) -> Attributes:
        """Return the attributes of an image that is open, and may not be in the archive any more."""
        return Attributes(False, size_bytes, self.mtime_ns(node.day), SHORTEST_FOLDER_TIMEOUT_S)

    async def listing(self, node: Node) -> FolderListing:
        """Return a folder above the images, to be read. Raises what the archive raises."""
        return Snapshot(self, node, await self._folder(node))

    def listing_at_hand(self, node: Node) -> FolderListing | None:
        """Return a folder above the images that takes no waiting, to be read; None: it takes some."""
        if node.level not in (Level.PATIENT, Level.STUDY):
            return None
        folder = self.folders.at_hand(self.sources.of(node), node.inode, node.level, node.whose)
        return None if folder is None else Snapshot(self, node, folder)

    def images(self, series: Node, listing: "ImageListing") -> FolderListing:
        """Return a listing of images as one of children of `series`."""
        return ImageFolder(self, series, listing)

    async def _folder(self, node: Node) -> Folder:
        return await self.folders.get(self.sources.of(node), node.inode, node.level, node.whose)

    async def _collections(self, top: Node) -> Folder:
        """Return the collections below a top: of the folder of views those that it does not list."""
        if top.level is not Level.VIEWS:
            return await self._folder(top)
        main = self.sources.main
        return await self.folders.get(self.sources.again, UNLISTED_COLLECTIONS, Level.ROOT, main.prefix)

    # -- files that are made ----------------------------------------------------------------------

    def made_in(self, folder: Node) -> tuple[Level, str] | None:
        """Return level and name of the file that is made and listed in a folder, None: it has none."""
        return self._texts.listed_in(folder.level, self._source_of_files(folder))

    def made_level(self, folder: Node, name: str) -> Level:
        """Return the level of the file that is made under a name in a folder. Raises NoSuchName for none."""
        level = self._texts.named(folder.level, self._source_of_files(folder), name)
        if level is None:
            raise NoSuchName(f"{name!r} is not in {self.path(folder)}")
        return level

    async def text(self, node: Node) -> bytes:
        """Return the text of a file that is made. Raises NoSuchName, or what the archive raises."""
        assert node.parent is not None
        return await self._text(node.parent, node.level, node.key)

    async def _text(self, folder: Node, level: Level, name: str) -> bytes:
        collection = "" if folder.level in TOPS else folder.whose[0]
        if level is Level.MANIFEST:
            collections = await self._collections(folder)
            place = collections.place(collection_of_manifest(name))
            if place is None:
                raise NoSuchName(f"{name!r} is not in {self.path(folder)}")
            collection = collections.children[place].name
        return await self._texts.text(level, self._source_of_files(folder), collection)

    def _source_of_files(self, folder: Node) -> Source:
        return self.sources.again if folder.level is Level.VIEWS else self.sources.of(folder)

    # -- children and their attributes ------------------------------------------------------------

    def image_child(self, series: Node, numbers: Siblings, found: "FoundImage") -> Child:
        """Return an image as a child of its series."""
        inode = numbers.inode(found.name)
        attributes = self.image_attributes(series, found)
        return Child(inode, found.name, Level.IMAGE, found.name, series.day, attributes)

    def image_attributes(self, series: Node, found: "FoundImage") -> Attributes:
        """Return what the kernel may know of an image."""
        return Attributes(False, found.size_bytes or 0, self.mtime_ns(series.day), found.timeout_s)

    def made_child(self, folder: Node, made: tuple[Level, str], size_bytes: int, timeout_s: float) -> Child:
        """Return a file that is made, given its level and name, as a child of its folder."""
        level, name = made
        attributes = Attributes(False, size_bytes, self._mounted_ns, timeout_s)
        # One that a collection has is told by it, others by their names.
        whose = self._source_of_files(folder).prefix + (folder.whose or (name,))
        return Child(inode_of(level, whose), name, level, name, None, attributes)

    def mtime_ns(self, day: int | None) -> int:
        """Return midnight UTC of a day as a file time, or when the archive was mounted."""
        return self._mounted_ns if day is None else day * DAY_NS
