"""Paths that commands name, below the mount point: what lies there, and asking the archive again for it.

Goes by listings alone, and leaves no inode behind. Handed the tree.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tciafs.errors import Misuse, NoSuchName
from tciafs.filesystem.identities import TOPS, Level, Whose
from tciafs.filesystem.nodes import Node
from tciafs.filesystem.sources import Source
from tciafs.filesystem.texts import collection_of_manifest

if TYPE_CHECKING:
    from tciafs.filesystem.tree import Tree

__all__ = ["Paths"]


class Paths:
    """The way from a path to what it names. All methods raise NoSuchName, or what the archive raises."""

    def __init__(self, tree: "Tree") -> None:
        self._tree = tree

    async def place(self, path: str) -> tuple[Source, Whose]:
        """Return where the series at a path are listed, and the keys down to it, () for all there.

        Raises Misuse for what is no place of series.
        """
        node, _rest = await self._walked(self._tree.root, _names(path), Level.SERIES)
        if node.level in (Level.VIEWS, Level.KIND):
            raise Misuse(f"{path} holds views and not series; name one of them")
        return self._tree.sources.of(node), node.whose

    async def keys(self, path: str) -> Whose:
        """Return the keys of what is at a path, from the collection down to the series; () for all.

        Raises Misuse for a part of something, as views show it.
        """
        source, whose = await self.place(path)
        if source.prefix and len(whose) < Level.SERIES:
            raise Misuse(f"{path} is a view, which shows a part; name a series in it, or the whole outside")
        return whose

    async def refresh(self, path: str) -> Whose:
        """Have the archive asked again for the listing behind a path, and for those below it when needed.

        Of a study or what is below it all of the patient is asked for: archives list no less. Returns the
        keys of what was meant, from the collection down to the series; () for all. A NoSuchName for what is
        below a patient means that it is not there now.
        """
        tree = self._tree
        node, rest = await self._walked(tree.root, _names(path), Level.PATIENT)
        whose = () if node.level is Level.KIND else node.whose
        collection, patient = (*whose, None, None)[:2]
        await tree.sources.main.listings.refresh(collection, patient)
        tree.folders.clear()  # behind it: who looked meanwhile was given what was not yet to be asked again
        node, _rest = await self._walked(node, rest, Level.SERIES)
        return () if node.level in TOPS or node.level is Level.KIND else node.whose

    async def _walked(self, node: Node, names: Sequence[str], last: Level) -> tuple[Node, Sequence[str]]:
        """Return the folder that names lead to, on a level at most, and the names that are left.

        What is no folder ends the way, and so stands for the folder that it is in; a manifest of a collection
        stands for it. Raises Misuse for other files above the collections, which would stand for all.
        """
        for place, name in enumerate(names):
            if node.level is last:
                return node, names[place:]
            child = await self._tree.child_folder(node, name)
            if child is None:
                if self._tree.made_level(node, name) is not Level.MANIFEST:  # or there is no such name
                    if node.level in TOPS:
                        file = f"{self._tree.path(node).rstrip('/')}/{name}"
                        raise Misuse(f"{file} is made by tciafs and stands for no series; name a folder")
                    return node, ()
                child = await self._tree.child_folder(node, collection_of_manifest(name))
                if child is None or child.level is not Level.COLLECTION:
                    raise NoSuchName(f"{name!r} is not in {self._tree.path(node)}")
            node = Node(child.inode, child.level, node, child.key)
        return node, ()


def _names(path: str) -> Sequence[str]:
    return [name for name in path.split("/") if name]
