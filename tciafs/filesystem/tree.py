"""Inodes: which record is behind which name, and what the kernel may believe of it.

A node is data: inode, place, name, record, and how often the kernel has looked it up. What differs
between the levels of the tree is which listing to ask and how to name its records: the table LEVELS, not
a class hierarchy. An inode number is a hash of the record's identity and the same after a remount. State
changes are synchronous, awaiting comes before. Handed a catalogue and the images of a store; knows
nothing of FUSE.
"""

import datetime as dt
import enum
import hashlib
import time
from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tciafs.errors import NoSuchName
from tciafs.model import Collection, Patient, Series, Study
from tciafs.naming import (
    Naming,
    collection_names,
    licence_text,
    patient_names,
    series_names,
    study_names,
)

if TYPE_CHECKING:
    from tciafs.catalogue.catalogue import Answer, Catalogue
    from tciafs.filesystem.images import FoundImage, ImageListing, Images

__all__ = ["ROOT_INODE", "Attributes", "Child", "FolderListing", "Level", "Node", "Tree"]

ROOT_INODE = 1
LICENCE_NAME = "LICENSE"
LONGEST_FOLDER_TIMEOUT_S = 3600.0
"""The kernel asks again for a folder at least this often, and sooner when its listing gets stale."""

SHORTEST_FOLDER_TIMEOUT_S = 1.0
"""Zero would make the kernel look up each entry again that a listing just gave it."""

Record: TypeAlias = Collection | Patient | Study | Series


class Level(enum.IntEnum):
    """What a node stands for."""

    ROOT = 0
    COLLECTION = 1
    PATIENT = 2
    STUDY = 3
    SERIES = 4
    IMAGE = 5
    LICENCE = 6


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the kernel is told of an inode: `timeout_s` is how long it may believe it.

    `size_bytes` of a provisional entry is meaningless, and its `timeout_s` 0: the kernel asks again
    before it uses it.
    """

    inode: int
    is_folder: bool
    size_bytes: int
    mtime_ns: int
    timeout_s: float


@dataclass(slots=True)
class Folder:
    """The named children of a folder above the images, made from `records` and good for a while."""

    records: Sequence[Any]
    children: Mapping[str, Any]
    names: Sequence[str]
    fresh_until: float
    inodes: "array[int] | None" = None

    @property
    def timeout_s(self) -> float:
        left = self.fresh_until - time.time()
        return min(LONGEST_FOLDER_TIMEOUT_S, max(SHORTEST_FOLDER_TIMEOUT_S, left))


@dataclass(slots=True)
class Node:
    """An inode that the kernel knows: `lookups` is how often it was told."""

    inode: int
    level: Level
    parent: "Node | None"
    name: str
    record: Any
    lookups: int = 0
    folder: Folder | None = None


@dataclass(frozen=True, slots=True)
class Child:
    """A name in a folder and what is behind it; not yet an inode that the kernel knows."""

    name: str
    level: Level
    record: Any
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class _Below:
    """What is below a level: whose listing to ask, and how its records are called."""

    level: Level
    ask: "Callable[[Catalogue, Any], Awaitable[Answer[Any]]]"
    name: Callable[[Sequence[Any], Naming], Mapping[str, Any]]


async def _ask_series(catalogue: "Catalogue", study: Study) -> "Answer[Series]":
    answer = await catalogue.series(study.collection, study.patient_id)
    of_study = tuple(series for series in answer.records if series.study_uid == study.study_uid)
    return replace(answer, records=of_study)


LEVELS: Mapping[Level, _Below] = {
    Level.ROOT: _Below(
        Level.COLLECTION,
        lambda catalogue, _root: catalogue.collections(),
        lambda records, _naming: collection_names(records),
    ),
    Level.COLLECTION: _Below(
        Level.PATIENT,
        lambda catalogue, collection: catalogue.patients(collection.name),
        lambda records, _naming: patient_names(records),
    ),
    Level.PATIENT: _Below(
        Level.STUDY,
        lambda catalogue, patient: catalogue.studies(patient.collection, patient.patient_id),
        study_names,
    ),
    Level.STUDY: _Below(Level.SERIES, _ask_series, series_names),
}


class FolderListing(Protocol):
    """A folder being read; places count from 0 and never change while it is open."""

    async def wait_for(self, place: int) -> None:
        """Return once `at(place)` has its answer."""
        ...

    def at(self, place: int) -> Child | None:
        """Return the child at a place, None behind the last one."""
        ...


class Tree:
    """All inodes that the kernel knows, and the way to those it does not know yet."""

    def __init__(self, catalogue: "Catalogue", images: "Images", naming: Naming) -> None:
        self._catalogue = catalogue
        self._images = images
        self._naming = naming
        self._mounted_ns = time.time_ns()
        self.root = Node(ROOT_INODE, Level.ROOT, None, "", None, lookups=1)
        self._nodes: dict[int, Node] = {ROOT_INODE: self.root}

    # -- inodes the kernel knows ------------------------------------------------------------------

    def node(self, inode: int) -> Node:
        """Return the node of an inode. Raises NoSuchName for one that was forgotten."""
        try:
            return self._nodes[inode]
        except KeyError:
            raise NoSuchName(f"inode {inode} is not known") from None

    def remember(self, parent: Node, child: Child) -> Node:
        """Count one lookup of a child: the kernel was told of it."""
        inode = child.attributes.inode
        node = self._nodes.get(inode)
        if node is None:
            node = Node(inode, child.level, parent, child.name, child.record)
            self._nodes[inode] = node
        elif node.level is not Level.ROOT:
            # The listing may have been refreshed since, and the record described anew.
            node.parent, node.name, node.record = parent, child.name, child.record
        node.lookups += 1
        return node

    def forget(self, inode: int, lookups: int) -> None:
        """Count lookups that the kernel has forgotten; never raises."""
        node = self._nodes.get(inode)
        if node is None or node.level is Level.ROOT:
            return
        node.lookups -= lookups
        if node.lookups <= 0:
            del self._nodes[inode]

    def knows(self, inode: int) -> bool:
        """Return True if the kernel knows an inode."""
        return inode in self._nodes

    def __len__(self) -> int:
        """Return how many inodes the kernel knows."""
        return len(self._nodes)

    def path(self, node: Node) -> str:
        """Return where a node is, relative to the mount point; for the log."""
        names: list[str] = []
        step: Node | None = node
        while step is not None and step.parent is not None:
            names.append(step.name)
            step = step.parent
        return "/" + "/".join(reversed(names))

    # -- names ------------------------------------------------------------------------------------

    async def child(self, parent: Node, name: str) -> Child:
        """Return what is called `name` in a folder. Raises NoSuchName, or what the archive raises.

        In a series this waits until that image is in.
        """
        if parent.level is Level.SERIES:
            found = await self._images.find(parent.record, name)
            if found is None:
                raise NoSuchName(f"{name!r} is not an image of {self.path(parent)}")
            return self._image_child(parent, found)
        folder = await self._folder(parent)
        if parent.level is Level.COLLECTION and name == LICENCE_NAME and name not in folder.children:
            text = await self.licence(parent.record)
            # Made anew at each open, perhaps from a newer listing: its size must not be believed for long.
            return self._licence_child(parent, len(text), SHORTEST_FOLDER_TIMEOUT_S)
        if name not in folder.children:
            raise NoSuchName(f"{name!r} is not in {self.path(parent)}")
        return self._folder_child(parent, name, folder)

    async def attributes(self, node: Node) -> Attributes:
        """Return what the kernel may know of a node; waits if its size is not known yet."""
        match node.level:
            case Level.IMAGE:
                assert node.parent is not None
                return (await self.child(node.parent, node.name)).attributes
            case Level.LICENCE:
                assert node.parent is not None
                return (await self.child(node.parent, node.name)).attributes
            case _:
                return self._folder_attributes(node.inode, node.record, SHORTEST_FOLDER_TIMEOUT_S)

    async def listing(self, folder: Node) -> FolderListing:
        """Return a folder above the images, to be read. Raises what the archive raises."""
        return _Snapshot(self, folder, await self._folder(folder))

    def images(self, series: Node, listing: "ImageListing") -> FolderListing:
        """Return a listing of images as one of children of `series`."""
        return _ImageFolder(self, series, listing)

    async def licence(self, collection: Collection) -> bytes:
        """Return the text of a collection's LICENSE.

        The licences are those of its first patient's series: asking for all series of a collection, to
        show a file that `ls -l` only measures, would cost the archive too much.
        """
        patients = (await self._catalogue.patients(collection.name)).records
        series: Sequence[Series] = ()
        if patients:
            first = min(patient.patient_id for patient in patients)
            series = (await self._catalogue.series(collection.name, first)).records
        licences = [(one.licence_name, one.licence_uri) for one in series]
        return licence_text(collection.name, licences).encode()

    async def _folder(self, node: Node) -> Folder:
        """Return the children of a folder above the images, as fresh as the catalogue has them."""
        if node.folder is not None and node.folder.fresh_until > time.time():
            return node.folder
        below = LEVELS[node.level]
        answer = await below.ask(self._catalogue, node.record)
        if node.folder is not None and node.folder.records == answer.records:
            # An archive that cannot be asked leaves old answers, and to name 26,000 patients takes long.
            node.folder.fresh_until = answer.fresh_until
        else:
            children = below.name(answer.records, self._naming)
            node.folder = Folder(answer.records, children, tuple(children), answer.fresh_until)
        return node.folder

    # -- children and their attributes ------------------------------------------------------------

    def _folder_child(self, parent: Node, name: str, folder: Folder) -> Child:
        level, record = LEVELS[parent.level].level, folder.children[name]
        inode = _inode(level, *_identity(record))
        attributes = self._folder_attributes(inode, record, folder.timeout_s)
        return Child(name, level, record, attributes)

    def _inodes(self, parent: Node, folder: Folder) -> "array[int]":
        """Return the inode numbers of all children of a folder, in the order of their names."""
        if folder.inodes is None:
            level = LEVELS[parent.level].level
            numbers = (_inode(level, *_identity(folder.children[name])) for name in folder.names)
            folder.inodes = array("Q", numbers)
        return folder.inodes

    def _folder_attributes(self, inode: int, record: Record | None, timeout_s: float) -> Attributes:
        return Attributes(inode, True, 0, self._mtime_ns(record), timeout_s)

    def _image_child(self, series: Node, found: "FoundImage") -> Child:
        record: Series = series.record
        inode = _inode(Level.IMAGE, *_identity(record), found.name)
        size_bytes, mtime_ns = found.size_bytes or 0, self._mtime_ns(record)
        attributes = Attributes(inode, False, size_bytes, mtime_ns, found.timeout_s)
        return Child(found.name, Level.IMAGE, record, attributes)

    def _licence_child(self, collection: Node, size_bytes: int, timeout_s: float) -> Child:
        inode = _inode(Level.LICENCE, *_identity(collection.record))
        attributes = Attributes(inode, False, size_bytes, self._mounted_ns, timeout_s)
        return Child(LICENCE_NAME, Level.LICENCE, collection.record, attributes)

    def _mtime_ns(self, record: Record | None) -> int:
        """Return the day of a record as a file time, or when the archive was mounted."""
        day = _day_of(record)
        return self._mounted_ns if day is None else _midnight_ns(day)


class _Snapshot:
    """A folder above the images as it was when it was opened."""

    def __init__(self, tree: Tree, node: Node, folder: Folder) -> None:
        self._tree = tree
        self._node = node
        self._folder = folder
        self._level = LEVELS[node.level].level
        self._inodes = tree._inodes(node, folder)  # hashing them is half of the work of a listing
        self._timeout_s = folder.timeout_s
        self._with_licence = node.level is Level.COLLECTION and LICENCE_NAME not in folder.children

    async def wait_for(self, place: int) -> None:
        pass

    def at(self, place: int) -> Child | None:
        names = self._folder.names
        if place < len(names):
            record = self._folder.children[names[place]]
            attributes = self._tree._folder_attributes(self._inodes[place], record, self._timeout_s)
            return Child(names[place], self._level, record, attributes)
        if place == len(names) and self._with_licence:
            # Its size costs a request, which only who asks for the size should cause.
            return self._tree._licence_child(self._node, 0, 0.0)
        return None


class _ImageFolder:
    """The images of a series as children of its folder."""

    def __init__(self, tree: Tree, series: Node, images: "ImageListing") -> None:
        self._tree = tree
        self._series = series
        self._images = images

    async def wait_for(self, place: int) -> None:
        await self._images.wait_for(place)

    def at(self, place: int) -> Child | None:
        found = self._images.at(place)
        return None if found is None else self._tree._image_child(self._series, found)


def _inode(level: Level, *identity: str) -> int:
    """Return the inode number of what these texts identify on a level: the same for ever."""
    # With its length before each text no archive can make two identities read the same.
    told_apart = "".join(f"{len(text)}:{text}" for text in identity)
    digest = hashlib.blake2b(told_apart.encode("utf-8", "surrogatepass"), digest_size=8, key=b"%d" % level)
    # 63 bits, for programs that keep an inode in a signed number; 0 and 1 are taken. Two of all 58
    # million images of TCIA share one with a probability of 1 in 5,000.
    return max(2, int.from_bytes(digest.digest(), "big") >> 1)


def _identity(record: Record) -> tuple[str, ...]:
    match record:
        case Collection():
            return (record.name,)
        case Patient():
            return record.collection, record.patient_id
        case Study():
            return record.collection, record.patient_id, record.study_uid
        case Series():
            return record.collection, record.patient_id, record.study_uid, record.series_uid


def _day_of(record: Record | None) -> dt.date | None:
    match record:
        case Series():
            return record.released or record.submitted or record.studied
        case Study():
            return record.date
        case _:
            return None


def _midnight_ns(day: dt.date) -> int:
    """Return midnight UTC of a day in nanoseconds since 1970, negative before."""
    return (day - dt.date(1970, 1, 1)).days * 86_400 * 10**9
