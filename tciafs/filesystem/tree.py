"""Inodes: what the kernel knows of, how often it was told, and what it may believe of it.

A node is little: inode, level, parent, what tells it from its siblings, and a day. Its record is found again
in its parent's folder, which the catalogue makes again when it is not at hand: so a walk over half a million
series leaves 300 bytes a node behind, until the kernel forgets them. State changes are synchronous, awaiting
comes before. Knows nothing of FUSE.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

from tciafs.errors import NoSuchName
from tciafs.filesystem.folders import (
    LICENCE_NAME,
    METADATA_NAME,
    ROOT_INODE,
    SHORTEST_FOLDER_TIMEOUT_S,
    Folder,
    Folders,
    Level,
    Record,
    Siblings,
    Whose,
    inode_of,
)
from tciafs.filesystem.listings import FolderListing, ImageFolder, Snapshot
from tciafs.filesystem.nodes import Attributes, Child, Node
from tciafs.model import Collection, Patient, Series
from tciafs.naming import Naming, legal_name, licence_text

if TYPE_CHECKING:
    from tciafs.catalogue.answers import Listings
    from tciafs.filesystem.images import FoundImage, ImageListing, Images

__all__ = ["Tree"]

DAY_NS = 86_400 * 10**9
FEWEST_TO_SHRINK = 10_000


class Tree:
    """All inodes that the kernel knows, and the way to those it does not know yet.

    `metadata` makes the metadata.csv of the root; None: it has none.
    """

    def __init__(
        self,
        catalogue: "Listings",
        images: "Images",
        naming: Naming,
        metadata: Callable[[], Awaitable[bytes]] | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._metadata = metadata
        self._images = images
        self.folders = Folders(catalogue, naming)
        self._mounted_ns = time.time_ns()
        self.root = Node(ROOT_INODE, Level.ROOT, None, "", lookups=1)
        self.nodes: dict[int, Node] = {ROOT_INODE: self.root}
        self._most_nodes = 1

    # -- inodes the kernel knows ------------------------------------------------------------------

    def node(self, inode: int) -> Node:
        """Return the node of an inode. Raises NoSuchName for one that was forgotten."""
        try:
            return self.nodes[inode]
        except KeyError:
            raise NoSuchName(f"inode {inode} is not known") from None

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
        """Count one lookup of each child of a folder from a place to before another.

        Of 26,000 patients `ls` waits for this loop and that of the request: they do as little as they can.
        """
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
        if (node := self.nodes.get(inode)) is not None:
            node.day = day

    def knows(self, inode: int) -> bool:
        """Return True if the kernel knows an inode."""
        return inode in self.nodes

    def __len__(self) -> int:
        """Return how many inodes the kernel knows."""
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
        """Return what the archive says of a node, of an image its series; None of the root and of
        its metadata.csv.

        Raises NoSuchName where the archive does not list it any more, or what the archive raises.
        """
        if node.parent is None or node.level is Level.METADATA:
            return None
        match node.level:
            case Level.COLLECTION | Level.LICENCE:
                return Collection(node.whose[0])
            case Level.PATIENT:
                return Patient(*node.whose)
            case Level.IMAGE:
                return await self.record(node.parent)
            case _:
                return await self._listed_record(node, node.parent)

    async def _listed_record(self, node: Node, parent: Node) -> Record:
        folder = await self._folder(parent)
        place = folder.place_of(node.inode)
        if place is None:
            raise NoSuchName(f"{self.path(node)} is not in the archive any more")
        record: Record = folder.children[place]
        return record

    async def series(self, node: Node) -> Series:
        """Return the series that a node of a series or of an image stands for; raises as `record`."""
        record = await self.record(node)
        assert isinstance(record, Series)
        return record

    # -- names ------------------------------------------------------------------------------------

    async def child(self, parent: Node, name: str) -> Child:
        """Return what is called `name` in a folder. Raises NoSuchName, or what the archive raises.

        In a series this waits until that image is in.
        """
        if parent.level is Level.SERIES:
            found = await self._images.find(await self.series(parent), name)
            if found is None:
                raise NoSuchName(f"{name!r} is not an image of {self.path(parent)}")
            return self.image_child(parent, Siblings(Level.IMAGE, parent.whose), found)
        if (listed := await self._listed_child(parent, name)) is not None:
            return listed
        text = await self.text(parent)
        # Made anew at each open, perhaps from a newer listing: its size must not be believed for long.
        return self.made_child(parent, len(text), SHORTEST_FOLDER_TIMEOUT_S)

    async def _listed_child(self, parent: Node, name: str) -> Child | None:
        """Return what is called `name` in a listing; None for what is made and in none."""
        folder = await self._folder(parent)
        place = folder.place(name)
        if place is not None:
            return Snapshot(self, parent, folder).child(place)
        if (made := self.made_in(parent)) is not None and name == made[1]:
            return None
        raise NoSuchName(f"{name!r} is not in {self.path(parent)}")

    async def attributes(self, node: Node) -> Attributes:
        """Return what the kernel may know of a node; waits if its size is not known yet."""
        if node.level in (Level.IMAGE, Level.LICENCE, Level.METADATA):
            assert node.parent is not None
            return (await self.child(node.parent, node.key)).attributes
        folder = None if node.parent is None else self.folders.peek(node.parent.inode)
        timeout_s = SHORTEST_FOLDER_TIMEOUT_S if folder is None else folder.timeout_s
        return Attributes(True, 0, self.mtime_ns(node.day), timeout_s)

    def attributes_while_open(self, node: Node, size_bytes: int) -> Attributes:
        """Return the attributes of an image that is open, and may not be in the archive any more."""
        return Attributes(False, size_bytes, self.mtime_ns(node.day), SHORTEST_FOLDER_TIMEOUT_S)

    async def listing(self, node: Node) -> FolderListing:
        """Return a folder above the images, to be read. Raises what the archive raises."""
        return Snapshot(self, node, await self._folder(node))

    def images(self, series: Node, listing: "ImageListing") -> FolderListing:
        """Return a listing of images as one of children of `series`."""
        return ImageFolder(self, series, listing)

    def made_in(self, folder: Node) -> tuple[Level, str] | None:
        """Return level and name of the file that is made in a folder and in no listing, None: it has none."""
        if folder.level is Level.COLLECTION:
            return Level.LICENCE, LICENCE_NAME
        if folder.level is Level.ROOT and self._metadata is not None:
            return Level.METADATA, METADATA_NAME
        return None

    async def text(self, node: Node) -> bytes:
        """Return the text of a file that is made, by itself or its folder. Raises what the archive raises."""
        if node.level in (Level.COLLECTION, Level.LICENCE):
            return await self.licence(node)
        assert self._metadata is not None
        return await self._metadata()

    async def licence(self, collection: Node) -> bytes:
        """Return the text of a collection's LICENSE.

        The licences are those of its first patient's series: asking for all series of a collection, to
        show a file that `ls -l` only measures, would cost the archive too much.
        """
        name = collection.whose[0]
        patients = (await self._catalogue.patients(name)).records
        series: tuple[Series, ...] = ()
        if patients:
            first = min(patient.patient_id for patient in patients)
            series = (await self._catalogue.series(name, first)).records
        return licence_text(name, [(one.licence_name, one.licence_uri) for one in series]).encode()

    async def keys(self, path: str) -> Whose:
        """Return the keys of what is at a path, from the collection down to the series; () for all.

        Raises NoSuchName, or what the archive raises.
        """
        return (await self._walked(self.root, [name for name in path.split("/") if name][:4])).whose

    async def refresh(self, path: str) -> Whose:
        """Have the archive asked again for the listing behind a path, and for those below it when needed.

        Of a study or what is below it all of the patient is asked for: archives list no less. Returns the
        keys of what was meant, from the collection down to the series; () for all. Raises NoSuchName, which
        for what is below a patient means that it is not there now, or what the archive raises.
        """
        names = [name for name in path.split("/") if name]
        node = await self._walked(self.root, names[:2])
        collection, patient = (*node.whose, None, None)[:2]
        self.folders.clear()
        await self._catalogue.refresh(collection, patient)
        return (await self._walked(node, names[2:4])).whose

    async def _walked(self, node: Node, names: Sequence[str]) -> Node:
        """Return the folder that names lead to by way of listings; what is no folder ends the way.

        Raises NoSuchName.
        """
        for name in names:
            child = await self._listed_child(node, name)
            if child is None:
                break
            node = Node(child.inode, child.level, node, child.key)
        return node

    async def _folder(self, node: Node) -> Folder:
        return await self.folders.get(node.inode, node.level, node.whose)

    # -- children and their attributes ------------------------------------------------------------

    def image_child(self, series: Node, numbers: Siblings, found: "FoundImage") -> Child:
        """Return an image as a child of its series."""
        inode = numbers.inode(found.name)
        attributes = self.image_attributes(series, found)
        return Child(inode, found.name, Level.IMAGE, found.name, series.day, attributes)

    def image_attributes(self, series: Node, found: "FoundImage") -> Attributes:
        """Return what the kernel may know of an image."""
        return Attributes(False, found.size_bytes or 0, self.mtime_ns(series.day), found.timeout_s)

    def made_child(self, folder: Node, size_bytes: int, timeout_s: float) -> Child:
        """Return the file that is made in a folder that has one."""
        made = self.made_in(folder)
        assert made is not None
        level, name = made
        attributes = Attributes(False, size_bytes, self._mounted_ns, timeout_s)
        return Child(inode_of(level, folder.whose or (name,)), name, level, name, None, attributes)

    def mtime_ns(self, day: int | None) -> int:
        """Return midnight UTC of a day as a file time, or when the archive was mounted."""
        return self._mounted_ns if day is None else day * DAY_NS
